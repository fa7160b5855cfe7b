// How the places came about, and how sure they are.

import { el, note, section, svg } from "./dom.js";
import { teamLink } from "./links.js";
import { axisTitle, choices, figure, hatching, line, nameWidth, picture, rowName, scale, text, textWidth, ticks } from "./plot.js";
import { count, fixed, percent } from "./words.js";

const ROW = 24;
const HEAD = 26;
const FOOT = 20;
const PLACES = ["first", "second", "third"];

export function method(standings) {
  const { profile } = standings;
  const metrics = profile.metrics.map((one) => {
    const weight = one.weight === 1 ? "" : ` (weight ${one.weight})`;
    return `${one.name}${weight}`;
  });
  return `Ranked by ${profile.method} (challenge ${profile.name}) over ${count(standings.cases, "case")}: `
    + `${metrics.join(", ")}. The score is the weighted mean of ranks.`;
}

export function standingsSections(standings) {
  return [
    excluded(standings),
    section("Podium", choices("Metric", perMetric(standings, (metric) => podium(standings, metric)))),
    section("How stable the places are", figure(stabilityCaption(standings),
      (width) => stability(standings, width)), inNumbers(standings)),
    section("Who is better than whom",
      choices("Metric", perMetric(standings, (metric) => significance(standings, metric)))),
  ];
}

function perMetric(standings, make) {
  return standings.profile.metrics.map((metric) => [metric.name, () => make(metric)]);
}

function excluded({ excluded: left }) {
  if (!left.length) return null;
  return el("details", {},
    el("summary", {}, `${count(new Set(left.map((one) => one.case)).size, "case")} not ranked for any team`),
    el("ul", {}, left.map((one) =>
      el("li", {}, [one.case, one.team, one.reason].filter(Boolean).join(": ")))));
}

function podium({ teams, podium: podiums, cases }, metric) {
  const counts = podiums[metric.column];
  const caption = `${metric.name}: in how many of ${count(cases, "case")} each team was first (filled), `
    + "second (hatched) and third (outlined). Teams that tie share a place.";
  const most = Math.max(1, ...counts.map((row) => row.reduce((a, b) => a + b)));
  return figure(caption, (width) => {
    const left = nameWidth(teams, width);
    const right = 12 + Math.max(...counts.map((row) => textWidth(label(row))));
    const x = scale(0, most, left, width - right);
    const height = HEAD + ROW * teams.length;
    return picture(width, height + FOOT, caption,
      axisTitle("cases", left, width - right, height + FOOT),
      svg("defs", {}, hatching("podium-hatch", 45, 5)),
      ticks(0, most, Math.min(most, Math.max(2, Math.floor((width - left) / 90)))).map((mark) => [
        line(x(mark), HEAD - 6, x(mark), height, "grid"),
        text(x(mark), HEAD - 12, String(mark), { anchor: "middle", kind: "tick" })]),
      teams.map((team, i) => bars(team, counts[i], x, left, HEAD + ROW * i)));
  });
}

function bars(team, counts, x, left, top) {
  let before = 0;
  const said = `${team}: ${counts.map((number, i) => `${PLACES[i]} ${number} times`).join(", ")}`;
  return svg("g", {}, svg("title", {}, said), rowName(team, top + ROW / 2 + 4, left),
    counts.map((number, i) => {
      const bar = svg("rect", { x: x(before), y: top + 4, width: x(before + number) - x(before),
        height: ROW - 8, class: `podium ${PLACES[i]}`,
        fill: i === 1 ? "url(#podium-hatch)" : null });
      before += number;
      return bar;
    }),
    text(x(before) + 6, top + ROW / 2 + 4, label(counts), { kind: "tick" }));
}

function label(counts) {
  return counts.join(" / ");
}

function stabilityCaption({ resamples, tau, profile }) {
  const agreement = tau[profile.method];
  const said = agreement ? ` Kendall's tau with the full ranking: median ${fixed(agreement.median, 3)}, `
    + `quartiles ${fixed(agreement.q1, 3)} and ${fixed(agreement.q3, 3)}.` : "";
  return `How often each team came to each place when the cases were drawn again ${resamples} times, with `
    + `replacement: the larger the circle, the more often; the ring is the place it has.${said}`;
}

function stability({ teams, place_counts: counts, places, profile, resamples }, width) {
  const left = nameWidth(teams, width);
  const columns = teams.length;
  const step = Math.min(34, (width - left - 8) / columns);
  const height = HEAD + ROW * teams.length + FOOT;
  const most = Math.min(step, ROW) / 2 - 0.5;
  const at = (place) => left + step * (place - 0.5);
  const every = step >= 17 ? 1 : 5;
  const own = places[profile.method];
  return picture(left + step * columns + 8, height, "Circles at the places of each team in the resamples; "
    + "the table below has the numbers.",
    axisTitle("place", left, left + step * columns, height),
    teams.map((_, i) => ((i + 1) % every === 0 || i === 0
      ? text(at(i + 1), HEAD - 12, String(i + 1), { anchor: "middle", kind: "tick" }) : null)),
    teams.map((team, i) => {
      const y = HEAD + ROW * (i + 0.5);
      return svg("g", {}, rowName(team, y + 4, left), line(left, y, left + step * columns, y, "grid"),
        counts[i].map((number, place) => (number
          ? svg("circle", { cx: at(place + 1), cy: y, r: Math.max(0.8, most * Math.sqrt(number / resamples)),
            class: "bubble" }, svg("title", {}, `${team}: place ${place + 1} in ${percent(number / resamples)}`))
          : null)),
        svg("circle", { cx: at(own[i]), cy: y, r: most, class: "ring" }));
    }));
}

function inNumbers({ teams, places, place_bounds: bounds, place_counts: counts, profile, resamples, tau }) {
  const methods = [profile.method, ...Object.keys(places).filter((name) => name !== profile.method)];
  const head = ["Team", ...methods, "95 % of resamples", "First in"];
  const lines = teams.map((team, i) => el("tr", {}, el("th", { scope: "row" }, teamLink(team)),
    [...methods.map((name) => places[name][i]), bounds[i][0] === bounds[i][1]
      ? bounds[i][0] : `${bounds[i][0]} to ${bounds[i][1]}`, percent(counts[i][0] / resamples)]
      .map((cell) => el("td", { class: "number" }, cell))));
  const taus = methods.filter((name) => tau[name])
    .map((name) => `${name} ${fixed(tau[name].median, 3)}`).join(", ");
  return el("details", {}, el("summary", {}, "In numbers, and by the other methods"),
    el("div", { class: "scrolled", tabindex: "0", role: "region", "aria-label": "Places" },
      el("table", {}, el("thead", {}, el("tr", {}, head.map((label, i) =>
        el("th", { scope: "col", class: i ? "number" : null }, label)))), el("tbody", {}, lines))),
    taus ? note(`Median of Kendall's tau over the resamples: ${taus}.`) : null);
}

function significance({ teams, significance: all, profile }, metric) {
  const caption = `${metric.name}: filled where the team of the row is better than that of the column, `
    + `significant at ${profile.alpha} (one-sided Wilcoxon signed rank test over cases, Holm-adjusted over `
    + "all pairs). Columns are in the order of the rows.";
  const any = all[metric.column].some((row, i) => row.some((p, j) => i !== j && p <= profile.alpha));
  if (!any) return note(`${metric.name}: no team is significantly better than another at ${profile.alpha}.`);
  return figure(caption, (width) => {
    const left = nameWidth(teams, width - 20) + 20;
    const step = Math.min(ROW, (width - left - 4) / teams.length);
    const [right, height] = [left + step * teams.length, HEAD + step * teams.length + 4];
    return picture(right + 4, height, caption,
      teams.map((team, i) => [
        rowName(`${i + 1} ${team}`, HEAD + step * (i + 0.5) + 4, left),
        step >= 15 || (i + 1) % 5 === 0 || i === 0
          ? text(left + step * (i + 0.5), HEAD - 8, String(i + 1), { anchor: "middle", kind: "tick" })
          : null,
        teams.map((other, j) => cell(team, other, i === j ? null : all[metric.column][i][j],
          profile.alpha, left + step * j, HEAD + step * i, step)),
      ]));
  });
}

function cell(team, other, p, alpha, x, y, step) {
  const size = step - 2;
  if (p === null) return line(x + 1, y + 1, x + size, y + size, "grid");
  const said = `${team} better than ${other}: p ${p < 0.0001 ? "below 0.0001" : `= ${fixed(p, 4)}`}`;
  return svg("rect", { x: x + 1, y: y + 1, width: size, height: size,
    class: p <= alpha ? "better" : "open" }, svg("title", {}, said));
}
