// One box a team: how the cases spread, on one metric at a time.

import { svg } from "./dom.js";
import { axisTitle, choices, figure, line, nameWidth, picture, rowName, scale, text, ticks } from "./plot.js";
import { metricText, withUnit } from "./words.js";

const ROW = 26;
const SPREAD = [0, 4, -4, 2, -2, 6, -6]; // dots of about one value lie side by side
const HEAD = 30;
const FOOT = 24;

export function boxPlots(teams, metrics) {
  return choices("Metric", metrics.map((metric) => [metric.label, () => one(teams, metric)]));
}

function one(teams, metric) {
  const shown = teams.filter((team) => metric.column in team.figures);
  const better = metric.is_higher_better ? "further right is better" : "further left is better";
  const caption = `${withUnit(metric)}: ${metric.note}; ${better}. Box: quartiles with the median; `
    + "whiskers: last value within 1.5 box lengths; dots: the cases, where there are more than "
    + "60 of them only those beyond. A case that failed counts with 0 in DSC, NSD and F1.";
  return figure(caption, (width) => draw(shown, metric, width));
}

function draw(teams, metric, width) {
  const left = nameWidth(teams.map((team) => team.name), width);
  const height = HEAD + ROW * teams.length + FOOT;
  const all = teams.map((team) => team.figures[metric.column]);
  const high = Math.max(...all.map((box) => Math.max(box.high, ...box.far))) * metric.factor;
  const low = Math.min(0, ...all.map((box) => Math.min(box.low, ...box.far))) * metric.factor;
  const x = scale(low, high || 1, left, width - 12);
  const place = (value) => x(value * metric.factor);
  const marks = ticks(low, high || 1, Math.max(2, Math.floor((width - left) / 90)));
  const label = `Box plots of ${withUnit(metric)} for ${teams.length} teams; the leaderboard has `
    + "their figures.";
  return picture(width, height, label,
    axisTitle(withUnit(metric), left, width - 12, height),
    marks.map((mark) => [
      line(x(mark), HEAD - 8, x(mark), height - FOOT, "grid"),
      text(x(mark), HEAD - 14, mark.toLocaleString("en-US"), { anchor: "middle", kind: "tick" }),
    ]),
    metric.limit === null ? null : limit(metric, x, width, height),
    teams.map((team, index) => row(team, metric, place, left, HEAD + ROW * index + ROW / 2)));
}

function limit(metric, x, width, height) {
  const at = x(metric.limit * metric.factor);
  if (at > width - 12) return null;
  return line(at, HEAD - 8, at, height - FOOT, "limit");
}

function row(team, metric, place, left, y) {
  const box = team.figures[metric.column];
  const said = `${team.name}: median ${metricText(metric, box.median)}, quartiles `
    + `${metricText(metric, box.q1)} and ${metricText(metric, box.q3)}, ${box.n} cases`;
  return svg("g", {},
    svg("title", {}, said),
    rowName(team.name, y + 4, left),
    line(place(box.low), y, place(box.q1), y, "whisker"),
    line(place(box.q3), y, place(box.high), y, "whisker"),
    line(place(box.low), y - 4, place(box.low), y + 4, "whisker"),
    line(place(box.high), y - 4, place(box.high), y + 4, "whisker"),
    svg("rect", { x: place(box.q1), y: y - 7, width: Math.max(1, place(box.q3) - place(box.q1)),
      height: 14, class: "box" }),
    line(place(box.median), y - 7, place(box.median), y + 7, "median"),
    (box.values ?? box.far).map((value, i) => svg("circle", { cx: place(value),
      cy: y + (box.values ? SPREAD[i % SPREAD.length] : 0), r: box.values ? 1.8 : 2.5,
      class: box.values ? "dot" : "far" })));
}
