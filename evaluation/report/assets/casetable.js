// Cases as rows: of one team, or of several.

import { metrics } from "./data.js";
import { caseLink, teamLink } from "./links.js";
import { badge } from "./states.js";
import { sortableTable } from "./table.js";
import { fixed, metricText, stateName, withUnit } from "./words.js";

const VOLUMES = [
  ["reference_ml", "Reference (ml)", "volume of the reference's lesions"],
  ["predicted_ml", "Predicted (ml)", "volume of the predicted lesions"],
  ["false_positive_ml", "False pos. (ml)", "volume of predicted lesions that touch no reference"],
  ["false_negative_ml", "False neg. (ml)", "volume of reference lesions that nothing touches"],
];

// teams: the names to choose from, where there are several; of: the one case that all rows are about
export function caseTable({ caption, rows, teams = null, of = null, sort = null }) {
  const states = [...new Set(rows.map((row) => row.status))];
  const filters = [{
    label: "State",
    values: [["failed", "all failures"], ...states.map((state) => [state, stateName(state)])],
    test: (row, value) => (value === "failed" ? row.status !== "ok" : row.status === value),
  }];
  if (teams && !of) {
    filters.push({
      label: "Team",
      values: teams.map((team) => [team, team]),
      test: (row, value) => row.team === value,
    });
  }
  const has = (name) => rows.length > 0 && name in rows[0]; // a page may have been made without it
  return sortableTable({
    caption,
    columns: [
      ...(of ? [{ label: "Team", value: (row) => row.team, cell: (row) => caseLink(row.team, of, row.team) }]
        : [{ label: "Case", value: (row) => row.case, cell: (row) => caseLink(row.team, row.case) }]),
      ...(teams && !of
        ? [{ label: "Team", value: (row) => row.team, cell: (row) => teamLink(row.team) }] : []),
      { label: "State", value: (row) => stateName(row.status), cell: (row) => badge(row.status) },
      ...metrics.filter((metric) => has(metric.column)).map(measured),
      ...(has("lesion_count") ? [{ label: "Lesions", title: "in the reference", numeric: true,
        value: (row) => row.lesion_count, cell: (row) => fixed(row.lesion_count, 0) }] : []),
      ...VOLUMES.filter(([name]) => has(name)).map(([name, label, title]) => ({ label, title, numeric: true,
        value: (row) => row[name], cell: (row) => fixed(row[name], 2) })),
      ...(rows.some(remark) ? [{ label: "Remark", value: (row) => remark(row) || null, cell: remark }] : []),
    ],
    rows,
    noun: teams ? "row" : "case",
    filters,
    search: (row) => `${row.case}\n${row.team}\n${row.status}\n${remark(row)}`,
    sort,
  });
}

function measured(metric) {
  return { label: withUnit(metric), title: metric.note, numeric: true,
    best: metric.is_higher_better ? "high" : "low",
    value: (row) => row[metric.column],
    cell: (row) => metricText(metric, row[metric.column]) };
}

function remark(row) {
  return row.message || (row.contaminated ? `GPU shared: ${row.contaminated}` : "");
}
