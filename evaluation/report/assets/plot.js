// What all plots share: they are drawn for the width that they have, and again when it changes.

import { el, newId, svg } from "./dom.js";

const WIDEST = 1100;

// draw: width in pixels => an <svg>; caption: what is seen, in words
export function figure(caption, draw, ...more) {
  const space = el("div", { class: "plot" });
  let width = 0;
  new ResizeObserver(([entry]) => {
    const wanted = Math.min(WIDEST, Math.floor(entry.contentRect.width));
    if (wanted === width || wanted < 1) return;
    width = wanted;
    space.replaceChildren(draw(width));
  }).observe(space);
  return el("figure", {}, space, el("figcaption", {}, caption), more);
}

// options: [[label, make]]; one of them is shown.
export function choices(legend, options) {
  const holder = el("div");
  const name = newId("choice");
  const choose = (make) => holder.replaceChildren(make());
  choose(options[0][1]);
  return el("div", {},
    el("fieldset", { class: "choices" }, el("legend", {}, legend),
      options.map(([label, make], index) => el("label", { class: "choice" },
        el("input", { type: "radio", name, checked: index === 0, onchange: () => choose(make) }), label))),
    holder);
}

export function picture(width, height, label, ...children) {
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    ...children);
}

// A function from data to pixels.
export function scale(low, high, from, to) {
  const span = high - low || 1;
  const place = (value) => from + ((value - low) / span) * (to - from);
  return Object.assign(place, { low, high });
}

// About so many round numbers from low to high.
export function ticks(low, high, wanted) {
  const raw = (high - low) / Math.max(1, wanted) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(Number((i * step).toPrecision(12)) + 0);
  return found;
}

export function line(x1, y1, x2, y2, kind) {
  return svg("line", { x1, y1, x2, y2, class: kind });
}

export function text(x, y, content, { anchor = "start", kind = null } = {}) {
  return svg("text", { x, y, "text-anchor": anchor, class: kind }, content);
}

// What an axis along the bottom of a plot is of.
export function axisTitle(words, left, right, height) {
  return text((left + right) / 2, height - 4, words, { anchor: "middle", kind: "axis" });
}

const pen = document.createElement("canvas").getContext("2d");

// Pixels that a plot's text takes up; 13 are the size of its letters, see .plot text.
export function textWidth(content) {
  pen.font = `13px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(content).width;
}

// What fits into so many pixels of a plot's text.
function shortened(name, width) {
  if (textWidth(name) <= width) return name;
  const letters = [...name];
  do letters.pop(); while (letters.length > 2 && textWidth(`${letters.join("")}…`) > width);
  return `${letters.join("")}…`;
}

// The names of rows, at the left; the whole name is said where it is cut.
export function rowName(name, y, width) {
  const label = text(width - 10, y, shortened(name, width - 12), { anchor: "end", kind: "row" });
  label.append(svg("title", {}, name));
  return label;
}

export function nameWidth(names, width) {
  const longest = Math.max(...names.map(textWidth));
  return Math.min(Math.ceil(longest) + 16, Math.round(width * 0.34));
}

// Lines that fill an area without colour.
export function hatching(id, angle, gap) {
  return svg("pattern", { id, width: gap, height: gap, patternUnits: "userSpaceOnUse",
    patternTransform: `rotate(${angle})` },
    svg("line", { x1: 0, y1: 0, x2: 0, y2: gap, class: "hatch" }));
}
