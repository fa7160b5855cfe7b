// Makes elements. Text only ever becomes text: nothing in this page is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

// el("td", { class: "number", onclick: f }, "text", node, null)
export function el(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

export function svg(name, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, name), properties, children);
}

function filled(node, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

export function section(heading, ...children) {
  return el("section", {}, el("h2", {}, heading), ...children);
}

export function note(...children) {
  return el("p", { class: "note" }, ...children);
}

let lastId = 0;

export function newId(stem) {
  lastId += 1;
  return `${stem}-${lastId}`;
}
