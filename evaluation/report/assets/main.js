// Shows what the address asks for.

import { caseTable } from "./casetable.js";
import { casePage } from "./casepage.js";
import { allRows, overview, teamIndex } from "./data.js";
import { el } from "./dom.js";
import { parsed, teamAddress } from "./links.js";
import { overviewPage } from "./overviewpage.js";
import { teamPage } from "./teampage.js";
import { day } from "./words.js";

const main = document.querySelector("main");
const bar = document.querySelector("header");
let turn = 0;

async function show(moved) {
  turn += 1;
  const mine = turn;
  const address = parsed(location.hash);
  let content;
  try {
    content = (await page(address)) ?? missing();
  } catch (error) {
    content = el("p", { class: "warning" }, `This part of the report cannot be read: ${error.message}`);
  }
  if (mine !== turn) return; // somebody went on meanwhile
  main.replaceChildren(...[content].flat(Infinity).filter(Boolean));
  bar.replaceChildren(...navigation(address ?? []));
  const heading = main.querySelector("h1");
  document.title = [...new Set([heading?.textContent.trim(), overview.title])].filter(Boolean).join(" – ");
  if (moved) main.focus({ preventScroll: true });
  window.scrollTo(0, history.state?.y ?? 0);
}

// Where a page was left is where the browser's way back leads.
let resting = 0;
function rest() {
  clearTimeout(resting);
  resting = setTimeout(() => history.replaceState({ y: window.scrollY }, ""), 100);
}

function page(address) {
  if (address?.length === 0) return overviewPage();
  if (address?.length === 1 && address[0] === "all") return wholeReport();
  const [kind, team, name, ...rest] = address ?? [];
  if (kind === "cases" && team === undefined) return casesPage();
  const index = teamIndex(team);
  if (kind !== "team" || index < 0 || rest.length) return null;
  return name === undefined ? teamPage(index) : casePage(index, name);
}

// Everything but the cases' own pages, one after the other, for paper.
async function wholeReport() {
  const teams = await Promise.all(overview.teams.map((_, index) => teamPage(index)));
  return [overviewPage(), teams.map((content) => el("div", { class: "sheet" }, content.flat(Infinity)
    .filter(Boolean).map((node) => (node.localName === "h1" ? el("h2", { class: "team" }, node.textContent) : node))))];
}

async function casesPage() {
  const teams = overview.teams.map((team) => team.name);
  return [
    el("h1", {}, "All cases"),
    caseTable({ caption: "All cases of all teams", rows: await allRows(), teams }),
  ];
}

function missing() {
  return [el("h1", {}, "Not in this report"),
    el("p", {}, "There is no such team or case. ", el("a", { href: "#/" }, "Go to the overview."))];
}

function navigation([kind, name]) {
  const current = (here) => (here ? "page" : null);
  const go = (event) => { location.hash = event.target.value ? teamAddress(event.target.value) : "#/"; };
  const names = overview.teams.map((team) => team.name);
  return [
    el("nav", { "aria-label": "Report" },
      el("a", { href: "#/", "aria-current": current(!kind) }, "Overview"),
      el("a", { href: "#/cases", "aria-current": current(kind === "cases") }, "Cases"),
      el("a", { href: "#/all", "aria-current": current(kind === "all"), title: "all of it, for paper" }, "Whole"),
      el("label", { for: "team" }, "Team"),
      el("select", { id: "team", onchange: go },
        el("option", { value: "" }, "choose"),
        names.map((one) => el("option", { value: one, selected: kind === "team" && one === name }, one)))),
  ];
}

function foot() {
  const licences = el("details", {}, el("summary", {}, "Licences of what this file contains"),
    el("pre", { tabindex: "0" }, overview.licences));
  return [
    el("p", {}, `Made on ${day(overview.made)} with version ${overview.version} of the harness, from the `
      + "records of every case. This file loads nothing and sends nothing."),
    licences,
  ];
}

// The skip link's address is no page's.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.querySelector("footer").append(...foot());
history.scrollRestoration = "manual";
window.addEventListener("scroll", rest);
window.addEventListener("hashchange", () => { clearTimeout(resting); show(true); });
show(false);
