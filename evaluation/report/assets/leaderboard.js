// All teams, one line each.

import { overview } from "./data.js";
import { el } from "./dom.js";
import { teamLink } from "./links.js";
import { sortableTable } from "./table.js";
import { count, fixed, metricText, percent, withUnit } from "./words.js";

const PLACE = { label: "Place", title: "= is a shared place", numeric: true,
  value: (team) => team.place ?? null,
  cell: (team) => `${fixed(team.place, 0)}${team.tied ? " =" : ""}` };
const SCORE = { label: "Score", title: "weighted mean of ranks; smaller is better", numeric: true,
  value: (team) => team.score ?? null,
  cell: (team) => fixed(team.score, 2) };

const FAILED = { label: "Failed", title: "cases without a sound mask, of all", numeric: true, value: failed,
  cell: (team) => (team.cases ? `${failed(team)} of ${team.cases}` : "") };
const ALARMS = { label: "False alarms", numeric: true,
  title: "share of healthy cases in which a lesion is found, or that failed; volume found a case",
  value: (team) => team.healthy.rate,
  cell: (team) => (team.healthy.rate === null ? "n/a" : [percent(team.healthy.rate),
    small(` of ${team.healthy.cases}, ${fixed(team.healthy.ml_per_case, 1)} ml`)]) };

// First what is ranked, each with its place; then what else is known.
export function leaderboard(teams, metrics, standings) {
  const ranked = standings ? standings.profile.metrics : [];
  const own = ranked.map((rule) => metrics.find((metric) => metric.column === rule.column && !rule.tolerance)
    ?? beside(rule));
  const others = metrics.filter((metric) => !own.includes(metric));
  const columns = [
    ...(standings ? [PLACE] : []),
    { label: "Team", value: (team) => team.name, cell: named },
    ...(standings ? [SCORE] : []),
    ...own.map(figure),
    FAILED,
    ...(teams.some((team) => team.healthy.cases) ? [ALARMS] : []),
    ...others.map(figure),
  ];
  return sortableTable({
    caption: standings ? "Leaderboard" : "Teams, means of all cases",
    columns,
    rows: teams.map((team) => ({ ...team, state: team.entry?.state })),
    noun: "team",
    name: "teams",
    sort: standings ? { column: 0, descending: false } : null,
    pageSize: teams.length,
    stacked: true,
  });
}

// A metric that only the ranking has.
function beside(rule) {
  return { column: rule.column, label: rule.name, unit: "", factor: 1, limit: null, ofRanking: true,
    is_higher_better: rule.better === "larger",
    note: `${rule.name}, as it is ranked: a failed case counts with ${rule.failed}` };
}

function named(team) {
  if (team.entry?.state === "refused") {
    return [teamLink(team.name), " ", el("span", { class: "badge bad" }, "refused")];
  }
  if (team.unranked === undefined) return teamLink(team.name);
  return [teamLink(team.name), " ", el("span", { class: "badge neutral", title: team.unranked }, "not ranked")];
}

function figure(metric) {
  return {
    label: withUnit(metric),
    title: `${metric.note}: mean ± SD; where it is ranked, between what 95 % of the resamples have the mean, `
      + "and the place",
    numeric: true,
    best: metric.is_higher_better ? "high" : "low",
    value: (team) => known(team, metric).find((one) => one)?.mean ?? null,
    cell: (team) => {
      const [ranked, figures] = known(team, metric);
      if (!ranked && !figures) return "n/a";
      const say = (value) => metricText(metric, value, metric.decimals ?? (value < 1000 ? 1 : 0));
      const missed = figures && figures.n < team.cases;
      return el("span", {}, say((ranked ?? figures).mean),
        ranked ? [" ", el("strong", { title: "place by this alone" }, `#${ranked.place}`),
          small(` ${ranked.interval.map(say).join(" to ")}`, "below")]
          : small(figures.sd === null ? "" : ` ± ${say(figures.sd)}`),
        missed ? small(` ${figures.n} of ${count(team.cases, "case")}`, "below") : null,
        figures?.beyond ? [" ", el("span", { class: "badge bad" }, `${figures.beyond} beyond `
          + `${fixed(metric.limit * metric.factor, 0)} ${metric.unit}`)] : null);
    },
  };
}

// What is ranked of a metric, and what was measured; each may be undefined.
function known(team, metric) {
  const figures = metric.ofRanking ? undefined : team.figures[metric.column];
  const isRanked = metric.ofRanking || !hasTolerance(metric.column);
  return [isRanked ? team.ranked?.[metric.column] : undefined, figures];
}

function hasTolerance(column) {
  return overview.standings?.profile.metrics.some((rule) => rule.column === column && rule.tolerance);
}

function small(text, place = "") {
  return el("span", { class: `spread ${place}` }, text);
}

function failed(team) {
  return team.cases - (team.states.ok ?? 0);
}
