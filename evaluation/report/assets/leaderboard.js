// All teams, one line each.

import { el } from "./dom.js";
import { teamLink } from "./links.js";
import { sortableTable } from "./table.js";
import { fixed, metricText, withUnit } from "./words.js";

const PLACE = { label: "Place", title: "= is a shared place", numeric: true,
  value: (team) => team.place ?? null,
  cell: (team) => `${fixed(team.place, 0)}${team.tied ? " =" : ""}` };
const SCORE = { label: "Score", title: "weighted mean of ranks; smaller is better", numeric: true,
  value: (team) => team.score ?? null,
  cell: (team) => fixed(team.score, 2) };

export function leaderboard(teams, metrics, standings) {
  const columns = [
    ...(standings ? [PLACE] : []),
    { label: "Team", value: (team) => team.name, cell: named },
    ...(standings ? [SCORE] : []),
    ...metrics.map(figure),
    { label: "Failed", title: "cases without a sound mask, of all", numeric: true, value: failed,
      cell: (team) => (team.cases ? `${failed(team)} of ${team.cases}` : "") },
  ];
  return sortableTable({
    caption: standings ? "Leaderboard" : "Teams, means of all cases",
    columns,
    rows: teams.map((team) => ({ ...team, state: team.entry?.state })),
    noun: "team",
    sort: standings ? { column: 0, descending: false } : null,
    pageSize: teams.length,
    stacked: true,
  });
}

function named(team) {
  if (team.entry?.state !== "refused") return teamLink(team.name);
  return [teamLink(team.name), " ", el("span", { class: "badge bad" }, "refused")];
}

function figure(metric) {
  return {
    label: withUnit(metric),
    title: `${metric.note}: mean ± SD`,
    numeric: true,
    best: metric.is_higher_better ? "high" : "low",
    value: (team) => team.figures[metric.column]?.mean ?? null,
    cell: (team) => {
      const figures = team.figures[metric.column];
      if (!figures) return "n/a";
      const spread = figures.sd === null ? "" : ` ± ${metricText(metric, figures.sd)}`;
      return [metricText(metric, figures.mean), el("span", { class: "spread" }, spread)];
    },
  };
}

function failed(team) {
  return team.cases - (team.states.ok ?? 0);
}
