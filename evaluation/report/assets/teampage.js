// What a team looks for: how its cases ended and why, its figures, its curves, its pictures.

import { caseTable } from "./casetable.js";
import { teamCurves } from "./curveplots.js";
import { details, metrics, overlayUrl, overview } from "./data.js";
import { el, note, section } from "./dom.js";
import { caseLink } from "./links.js";
import { badge, stateList } from "./states.js";
import { count, fixed, metricText, period, stateName, withUnit } from "./words.js";

const LOGS = 20; // shown at once

export async function teamPage(index) {
  const team = overview.teams[index];
  const { rows, logs, curves } = await details(index);
  const measured = rows.filter((row) => curves[row.case])
    .map((row) => ({ row, curve: curves[row.case] }));
  return [
    el("p", { class: "crumbs" }, el("a", { href: "#/" }, "Overview"), " / Team"),
    el("h1", {}, team.name),
    entry(team),
    rows.length ? [
      stateList(team.states),
      section("Figures", figures(team)),
      failures(rows, logs, team),
      pictures(team, index),
      measured.length ? section("GPU memory over time", teamCurves(measured)) : null,
      section("Cases", caseTable({ caption: "Cases of this team", rows })),
    ] : el("p", {}, "No case was run."),
    facts(team),
  ];
}

function entry(team) {
  const parts = [];
  if (team.place) parts.push(`Place ${team.place}${team.tied ? ", shared" : ""} of ${overview.standings.teams.length}.`);
  if (team.entry?.archive) parts.push(`Handed in as ${team.entry.archive}.`);
  if (team.first) parts.push(`Run ${period(team.first, team.last)}.`);
  const refused = team.entry?.state === "refused"
    ? el("p", { class: "warning" }, el("strong", {}, "Refused"), team.entry.message && `: ${team.entry.message}`)
    : null;
  return [parts.length ? el("p", { class: "lead" }, parts.join(" ")) : null, refused];
}

function figures(team) {
  const head = ["", "Mean ± SD", "Median (Q1, Q3)", "Beyond the limit", "Cases"];
  const lines = metrics.filter((metric) => metric.column in team.figures).map((metric) => {
    const one = team.figures[metric.column];
    const say = (value) => metricText(metric, value);
    const beyond = metric.limit === null
      ? "" : `${one.beyond} beyond ${fixed(metric.limit * metric.factor, 0)} ${metric.unit}`;
    return el("tr", {}, el("th", { scope: "row", title: metric.note }, withUnit(metric)),
      [`${say(one.mean)} ± ${say(one.sd)}`, `${say(one.median)} (${say(one.q1)}, ${say(one.q3)})`,
        beyond, one.n].map((cell) => el("td", { class: "number" }, cell)));
  });
  return [
    el("div", { class: "scrolled", tabindex: "0", role: "region", "aria-label": "Figures" },
      el("table", {}, el("thead", {}, el("tr", {}, head.map((label, i) =>
        el("th", { scope: "col", class: i ? "number" : null }, label)))), el("tbody", {}, lines))),
    team.contaminated ? note(`In ${count(team.contaminated, "case")} the GPU was not this team's alone, `
      + "or its memory was not steady before the run.") : null,
  ];
}

function failures(rows, logs, team) {
  const failed = rows.filter((row) => row.status !== "ok");
  if (!failed.length) return section("Failures", el("p", {}, "Every case ended with a sound mask."));
  const list = el("div", { class: "logs" });
  const more = el("button", { type: "button", onclick: () => add() });
  const add = () => {
    const from = list.childElementCount;
    list.append(...failed.slice(from, from + LOGS).map((row) => log(row, logs[row.case], team)));
    const left = failed.length - list.childElementCount;
    more.hidden = left === 0;
    more.textContent = `Show ${Math.min(LOGS, left)} more of ${left}`;
  };
  add();
  return section(`Failures: ${failed.length} of ${rows.length}`, list, more);
}

function log(row, text, team) {
  return el("details", {},
    el("summary", {}, badge(row.status), " ", el("span", { class: "name" }, row.case), " ",
      el("span", { class: "said" }, row.message || stateName(row.status))),
    el("p", {}, caseLink(team.name, row.case)),
    team.shown.includes("logs") ? logText(text) : null);
}

// A log is read from its end.
export function logText(text) {
  if (!text) return el("p", {}, "It printed nothing.");
  const log = el("pre", { tabindex: "0" }, text);
  new ResizeObserver((_, seen) => {
    if (!log.clientHeight) return;
    log.scrollTop = log.scrollHeight;
    seen.disconnect();
  }).observe(log);
  return log;
}

function pictures(team, index) {
  if (!team.overlays.length) return null;
  const shown = ["best", "worst"].map((which) => {
    const some = team.overlays.map((one, i) => overlay(team, index, i, one))
      .filter((_, i) => team.overlays[i].which === which);
    return some.length ? [el("h3", {}, which === "best" ? "Best cases" : "Worst cases"), some] : null;
  });
  return section("Best and worst cases", note("By DSC, of cases with a lesion and a sound mask."), shown);
}

export function overlay(team, index, number, one) {
  const alt = `Case ${one.case} in three planes, with the mask of ${team.name} and the reference around `
    + `a lesion; DSC ${fixed(100 * one.dsc, 1)} %.`;
  return el("figure", { class: "overlay" },
    el("img", { src: overlayUrl(index, number), alt, width: one.width, height: one.height,
      loading: "lazy" }),
    el("figcaption", {}, caseLink(team.name, one.case), `: DSC ${fixed(100 * one.dsc, 1)} %`));
}

function facts(team) {
  const entries = Object.entries(team.facts);
  if (!entries.length) return null;
  return section("How it was run", el("dl", { class: "facts listed" },
    entries.map(([label, answers]) => [el("dt", {}, label),
      answers.map((answer) => el("dd", {}, answer))])));
}
