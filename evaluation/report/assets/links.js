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
    return path(hash).replace(/^#?\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return null;
  }
}

function path(hash) {
  return hash.split("?")[0];
}

// What is chosen on the page stands behind its address, so that it can be sent and gone back to.
export function chosen(name) {
  return new URLSearchParams(location.hash.split("?")[1]).get(name);
}

export function choose(values) {
  const query = new URLSearchParams(location.hash.split("?")[1]);
  for (const [name, value] of Object.entries(values)) {
    if (value) query.set(name, value);
    else query.delete(name);
  }
  const whole = query.size ? `${path(location.hash) || "#/"}?${query}` : path(location.hash) || "#/";
  history.replaceState(history.state, "", whole);
}
