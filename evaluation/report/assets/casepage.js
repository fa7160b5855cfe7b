// One case of one team: all that is known of it, and a viewer.

import { caseTable } from "./casetable.js";
import { caseCurve } from "./curveplots.js";
import { allRows, details, metrics, overview } from "./data.js";
import { el, section } from "./dom.js";
import { caseAddress, teamLink } from "./links.js";
import { badge } from "./states.js";
import { logText, overlay } from "./teampage.js";
import { viewer } from "./viewer.js";
import { fixed, metricText } from "./words.js";

export async function casePage(index, name) {
  const team = overview.teams[index];
  const { rows, logs, curves } = await details(index);
  const at = rows.findIndex((row) => row.case === name);
  if (at < 0) return null;
  const row = rows[at];
  const shown = team.overlays.map((one, i) => [one, i]).filter(([one]) => one.case === name);
  return [
    el("p", { class: "crumbs" }, el("a", { href: "#/" }, "Overview"), " / ", teamLink(team.name),
      " / Case"),
    el("h1", {}, row.case, " ", badge(row.status)),
    row.message ? el("p", { class: "warning" }, row.message) : null,
    row.contaminated ? el("p", { class: "warning" }, `GPU not alone: ${row.contaminated}`) : null,
    facts(row),
    neighbours(team, rows, at),
    team.shown.includes("case-names") && team.shown.includes("pictures")
      ? section("Scan, mask and reference", viewer(team.name, row.case, team.lesion_label)) : null,
    shown.length ? section("Overlay", shown.map(([one, i]) => overlay(team, index, i, one))) : null,
    row.status === "ok" || !team.shown.includes("logs") ? null : section("End of the log", logText(logs[row.case])),
    curves[row.case] ? section("GPU memory over time", caseCurve(curves[row.case], row)) : null,
    overview.teams.length > 1 ? section("This case, all teams", await others(name)) : null,
  ];
}

function facts(row) {
  const pairs = [
    ...metrics.map((metric) => [metric.label,
      `${metricText(metric, row[metric.column])} ${row[metric.column] === null ? "" : metric.unit}`,
      metric.column]),
    ["Lesions", `${fixed(row.lesion_count, 0)} in the reference`, "lesion_count"],
    ["Volume", `${fixed(row.predicted_ml, 2)} ml predicted, ${fixed(row.reference_ml, 2)} ml reference`,
      "predicted_ml", "reference_ml"],
    ["Runtime", `${fixed(row.runtime_s, 2)} s from start to finish`, "runtime_s"],
    ["Scan", `${row.size_x} × ${row.size_y} × ${row.size_z} voxels`, "size_x", "size_y", "size_z"],
    ["Organisers' GPU", `${fixed(row.flare_max_gpu_mb, 0)} MB, ${fixed(row.flare_auc_gpu_time, 0)} MB·s`,
      "flare_max_gpu_mb", "flare_auc_gpu_time"],
    ["Attempts", fixed(row.attempts, 0), "attempts"],
  ].filter(([, , ...columns]) => columns.every((name) => name in row));
  return el("dl", { class: "facts" }, pairs.map(([label, text]) =>
    el("div", {}, el("dt", {}, label), el("dd", {}, text))));
}

function neighbours(team, rows, at) {
  const link = (row, words, rel) => (row
    ? el("a", { href: caseAddress(team.name, row.case), rel }, words) : null);
  return el("p", { class: "neighbours" }, link(rows[at - 1], "← Previous case", "prev"),
    link(rows[at + 1], "Next case →", "next"));
}

async function others(name) {
  const rows = (await allRows()).filter((row) => row.case === name);
  const teams = overview.teams.map((team) => team.name);
  return caseTable({ caption: `${name}, one row a team`, rows, teams, of: name,
    sort: metrics[0] && metrics[0].column in rows[0]
      ? { column: 2, descending: metrics[0].is_higher_better } : null });
}
