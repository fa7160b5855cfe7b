// GPU memory over time: one case with all that is known of it, or all cases of a team.

import { overview } from "./data.js";
import { svg } from "./dom.js";
import { figure, hatching, line, picture, scale, text, ticks } from "./plot.js";
import { fixed } from "./words.js";

const HEIGHT = 300;
const EDGE = { left: 62, right: 14, top: 26, bottom: 40 };
// The challenge's limits, each null where it has none.
const { time_s: TIME_LIMIT_S, vram_mib: VRAM_LIMIT_MIB } = overview.limits;
const TIME_LIMIT = TIME_LIMIT_S === null ? null : `${TIME_LIMIT_S} s`;
const VRAM_LIMIT = VRAM_LIMIT_MIB === null ? null : `${VRAM_LIMIT_MIB / 1024} GB`;

// { t_s, mib } of a curve as Python's `packed` wrote it.
export function unpacked(curve) {
  let now = 0;
  return { t_s: curve.step_ms.map((step) => (now += step) / 1000), mib: curve.mib };
}

// row: the case as in the case table
export function caseCurve(curve, row) {
  const { t_s, mib } = unpacked(curve);
  const [peak, area] = [row.peak_vram_mib, row.area_mib_s].map((value) => fixed(value, 0));
  const caption = `GPU memory in use on the whole GPU. Above the baseline of ${fixed(row.baseline_mib, 0)}`
    + ` MiB (dotted): peak ${peak} MiB, area ${area} MiB·s (hatched, from start to finish).`
    + joined(" Dashed: ", ", and ", [TIME_LIMIT, VRAM_LIMIT && `${VRAM_LIMIT} above the baseline`], ", where in view.");
  const label = `Memory over time of case ${row.case}: peak ${peak} MiB above the baseline,`
    + ` ${fixed(row.runtime_s, 1)} s from start to finish.`;
  return figure(caption, (width) => {
    const axes = frame(width, t_s[0], Math.max(t_s.at(-1), row.runtime_s), Math.max(...mib) * 1.12);
    const inside = during(t_s, mib, row.runtime_s);
    return picture(width, HEIGHT, label,
      svg("defs", {}, hatching("area-hatch", 45, 6)),
      axes.drawn,
      svg("path", { d: closed(axes, inside, row.baseline_mib), class: "area",
        fill: "url(#area-hatch)" }),
      across(axes, row.baseline_mib, "baseline"),
      limits(axes, row.baseline_mib),
      down(axes, 0, "moment", "start"),
      down(axes, row.runtime_s, "moment", "finish"),
      svg("path", { d: open(axes, t_s, mib), class: "curve" }));
  });
}

// curves: [{ curve, row }]
export function teamCurves(curves) {
  const caption = "Memory above the baseline in all cases of the team, from each start; dashed: cases "
    + `that failed${joined(", and the challenge's ", " and ", [TIME_LIMIT, VRAM_LIMIT])}.`;
  const all = curves.map(({ curve, row }) => {
    const { t_s, mib } = unpacked(curve);
    return { t_s, mib: mib.map((value) => value - row.baseline_mib), row };
  });
  const high = Math.max(...all.map((one) => Math.max(...one.mib)), 1) * 1.12;
  const end = Math.max(...all.map((one) => one.t_s.at(-1)));
  const label = `Memory over time of ${all.length} cases in one plot; the case table has the figures.`;
  return figure(caption, (width) => {
    const axes = frame(width, 0, end, high);
    return picture(width, HEIGHT, label, axes.drawn, limits(axes, 0),
      // Of each path: of all together it would make the densest part as faint as the thinnest.
      all.map(({ t_s, mib, row }) => svg("path", { d: open(axes, ...since(0, t_s, mib)),
        "stroke-opacity": Math.max(0.25, Math.min(1, 12 / all.length)),
        class: row.status === "ok" ? "curve thin" : "curve thin failed" })));
  });
}

function frame(width, from, to, high) {
  const x = scale(from, to, EDGE.left, width - EDGE.right);
  const y = scale(0, high, HEIGHT - EDGE.bottom, EDGE.top);
  const [left, right, bottom] = [EDGE.left, width - EDGE.right, HEIGHT - EDGE.bottom];
  const drawn = [
    ticks(0, high, 5).map((mark) => [
      line(left, y(mark), right, y(mark), "grid"),
      text(left - 8, y(mark) + 4, mark.toLocaleString("en-US", { useGrouping: mark >= 10000 }),
        { anchor: "end", kind: "tick" }),
    ]),
    ticks(from, to, Math.max(2, Math.floor((right - left) / 90))).map((mark) =>
      text(x(mark), bottom + 18, mark.toLocaleString("en-US"), { anchor: "middle", kind: "tick" })),
    text(left - 52, 14, "MiB", { kind: "tick" }),
    text(right, HEIGHT - 4, "seconds since the container started", { anchor: "end", kind: "tick" }),
  ];
  return { x, y, left, right, bottom, drawn };
}

function limits(axes, baseline) {
  return [
    VRAM_LIMIT && axes.y.high > baseline + VRAM_LIMIT_MIB
      ? across(axes, baseline + VRAM_LIMIT_MIB, "limit", VRAM_LIMIT) : null,
    TIME_LIMIT && axes.x.high > TIME_LIMIT_S ? down(axes, TIME_LIMIT_S, "limit", TIME_LIMIT) : null,
  ];
}

// What there is of parts with words around it, or nothing.
function joined(before, between, parts, after = "") {
  const there = parts.filter(Boolean);
  return there.length ? `${before}${there.join(between)}${after}` : "";
}

function across(axes, mib, kind, words = "") {
  const y = axes.y(mib);
  return [line(axes.left, y, axes.right, y, kind),
    text(axes.right - 4, y - 5, words, { anchor: "end", kind: "tick" })];
}

function down(axes, second, kind, words) {
  const x = axes.x(second);
  return [line(x, EDGE.top - 6, x, axes.bottom, kind),
    text(x, EDGE.top - 11, words, { anchor: x > axes.right - 30 ? "end" : "middle", kind: "tick" })];
}

function open(axes, t_s, mib) {
  return t_s.map((second, i) =>
    `${i ? "L" : "M"}${axes.x(second).toFixed(1)} ${axes.y(mib[i]).toFixed(1)}`).join("");
}

function closed(axes, [t_s, mib], baseline) {
  const base = axes.y(baseline).toFixed(1);
  const [first, last] = [t_s[0], t_s.at(-1)].map((second) => axes.x(second).toFixed(1));
  return `M${first} ${base}${open(axes, t_s, mib).replace("M", "L")}L${last} ${base}Z`;
}

// From start to finish, both ends interpolated, as areas are measured.
function during(t_s, mib, runtime_s) {
  const [later, values] = since(0, t_s, mib);
  const kept = later.map((second, i) => [second, values[i]]).filter(([second]) => second < runtime_s);
  kept.push([runtime_s, at(runtime_s, t_s, mib)]);
  return [kept.map(([second]) => second), kept.map(([, value]) => value)];
}

function since(start, t_s, mib) {
  const first = t_s.findIndex((second) => second > start);
  if (first < 0) return [[start], [mib.at(-1)]];
  return [[start, ...t_s.slice(first)], [at(start, t_s, mib), ...mib.slice(first)]];
}

function at(second, t_s, mib) {
  const after = t_s.findIndex((one) => one >= second);
  if (after < 0) return mib.at(-1);
  if (after === 0) return mib[0];
  const share = (second - t_s[after - 1]) / (t_s[after] - t_s[after - 1]);
  return mib[after - 1] + share * (mib[after] - mib[after - 1]);
}
