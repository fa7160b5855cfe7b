// How cases ended, in a word with a mark, and as a bar with words.

import { el } from "./dom.js";
import { stateName } from "./words.js";

export function badge(state) {
  const kind = state === "ok" ? "good" : state === "infra_error" ? "neutral" : "bad";
  return el("span", { class: `badge ${kind}` }, stateName(state));
}

// states: { ok: 390, timeout: 10 }
export function stateList(states) {
  const order = Object.entries(states).sort(([a, n], [b, m]) => (b === "ok") - (a === "ok") || m - n);
  return el("ul", { class: "states" },
    order.map(([state, number]) => el("li", {}, el("strong", {}, String(number)), " ", badge(state))));
}
