// Where things are: the part of the address after #, which works from a file as well.

import { el } from "./dom.js";

export function teamAddress(team) {
  return `#/team/${encodeURIComponent(team)}`;
}

export function caseAddress(team, name) {
  return `${teamAddress(team)}/${encodeURIComponent(name)}`;
}

export function teamLink(team) {
  return el("a", { href: teamAddress(team) }, team);
}

export function caseLink(team, name, words = name) {
  return el("a", { href: caseAddress(team, name) }, words);
}

// [] for the overview, ["team", NAME], ["team", NAME, CASE], ["cases"]; null: no such address.
export function parsed(hash) {
  try {
    return hash.replace(/^#?\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return null;
  }
}
