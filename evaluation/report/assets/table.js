// A table that sorts, filters and turns pages; everything in it can be reached by keyboard.

import { el, newId } from "./dom.js";
import { choose, chosen } from "./links.js";
import { count } from "./words.js";

const PRINTED = 500; // rows at most

// columns: [{ label, title, value: row => number|string|null, cell: row => text|node, numeric }]
// filters: [{ label, values: [[value, text]], test: (row, value) => bool }]
// search: row => the text that is searched, or null for no search
// sort: { column, descending }, at the start; pageSize: rows
// stacked: on a narrow screen each row becomes a card; name: its own, of what the address keeps
export function sortableTable({ caption, columns, rows, noun, filters = [], search = null,
                                sort = null, pageSize = 50, stacked = false, name = "" }) {
  let order = null;
  const state = kept();
  const body = el("tbody");
  const said = el("p", { class: "said", "aria-live": "polite" });
  const heads = columns.map((column, index) => head(column, index));
  const table = el("table", { class: stacked ? "stacked" : null },
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, heads)), body);
  const [previous, next] = [["Previous", -1], ["Next", 1]].map(([label, step]) =>
    el("button", { type: "button", onclick: () => turn(step) }, label));
  const pager = el("div", { class: "pager" }, previous, next);

  function key(what) {
    return [name, what].filter(Boolean).join(".");
  }

  function kept() {
    const [, column, way] = /^(\d+)([+-])$/.exec(chosen(key("sort")) ?? "") ?? [];
    const known = column !== undefined && Number(column) < columns.length;
    return {
      sort: known ? { column: Number(column), descending: way === "-" } : sort,
      page: Math.max(0, (Number.parseInt(chosen(key("page")), 10) || 1) - 1),
      chosen: filters.map(({ label, values }) => {
        const wanted = chosen(key(label.toLowerCase())) ?? "";
        return values.some(([value]) => value === wanted) ? wanted : "";
      }),
      text: search ? chosen(key("search")) ?? "" : "",
      size: pageSize,
    };
  }

  function changed() {
    const { sort: by, page, text } = state;
    choose({
      [key("sort")]: by && (by.column !== sort?.column || by.descending !== sort.descending)
        ? `${by.column}${by.descending ? "-" : "+"}` : "",
      [key("page")]: page ? String(page + 1) : "",
      [key("search")]: text,
      ...Object.fromEntries(filters.map(({ label }, i) => [key(label.toLowerCase()), state.chosen[i]])),
    });
    draw();
  }

  function head(column, index) {
    const button = el("button", { type: "button", title: column.title, onclick: () => sortBy(index) },
      column.label);
    return el("th", { scope: "col", class: column.numeric ? "number" : null }, button);
  }

  function sortBy(index) {
    const again = state.sort?.column === index;
    const descending = again ? !state.sort.descending : columns[index].best === "high";
    state.sort = { column: index, descending };
    if (order) order.value = index;
    state.page = 0;
    changed();
  }

  function turn(step) {
    state.page += step;
    changed();
  }

  function shown() {
    const wanted = state.text.toLowerCase();
    const kept = rows.filter((row) =>
      (!wanted || search(row).toLowerCase().includes(wanted)) &&
      filters.every((filter, i) => !state.chosen[i] || filter.test(row, state.chosen[i])));
    return state.sort ? sorted(kept, columns[state.sort.column].value, state.sort.descending) : kept;
  }

  function draw() {
    const kept = shown();
    const pages = Math.max(1, Math.ceil(kept.length / state.size));
    state.page = Math.min(state.page, pages - 1);
    const first = state.page * state.size;
    const page = kept.slice(first, first + state.size);
    body.replaceChildren(...page.map(line));
    if (!page.length) {
      body.append(el("tr", {}, el("td", { colspan: columns.length }, `No ${noun} to show.`)));
    }
    heads.forEach((cell, index) => {
      const direction = state.sort?.descending ? "descending" : "ascending";
      cell.setAttribute("aria-sort", state.sort?.column === index ? direction : "none");
    });
    const range = pages > 1 ? `, ${first + 1} to ${first + page.length} shown` : "";
    const of = kept.length < rows.length ? ` of ${rows.length}` : "";
    said.textContent = of
      ? `${kept.length}${of} ${noun}s${range}` : `${count(rows.length, noun)}${range}`;
    previous.disabled = state.page === 0;
    next.disabled = state.page === pages - 1;
    pager.hidden = pages === 1;
  }

  function line(row) {
    return el("tr", { class: row.state === "refused" ? "refused" : null },
      columns.map((column, index) => {
        const cell = (column.cell ?? column.value)(row);
        const properties = {
          class: column.numeric ? "number" : null,
          "data-label": stacked ? column.label : null,
        };
        return index === 0
          ? el("th", { scope: "row", ...properties }, cell)
          : el("td", properties, cell);
      }));
  }

  // Cards have no heads to sort by.
  function orderField() {
    const id = newId("order");
    order = el("select", { id, onchange: (event) => sortBy(Number(event.target.value)) },
      columns.map((column, index) => el("option", { value: index, selected: index === state.sort?.column },
        column.label)));
    return el("div", { class: "controls narrow" },
      el("span", { class: "field" }, el("label", { for: id }, "Sort by"), order));
  }

  function controls() {
    if (!search && !filters.length) return null;
    const fields = filters.map((filter, i) => {
      const id = newId("filter");
      const options = [["", "all"], ...filter.values].map(([value, text]) =>
        el("option", { value, selected: value === state.chosen[i] }, text));
      const pick = (event) => { state.chosen[i] = event.target.value; state.page = 0; changed(); };
      return el("span", { class: "field" }, el("label", { for: id }, filter.label),
        el("select", { id, onchange: pick }, options));
    });
    if (search) {
      const id = newId("search");
      const type = (event) => { state.text = event.target.value.trim(); state.page = 0; changed(); };
      fields.push(el("span", { class: "field" }, el("label", { for: id }, "Search"),
        el("input", { id, type: "search", autocomplete: "off", value: state.text, oninput: type })));
    }
    return el("div", { class: "controls", role: "search" }, fields);
  }

  // Paper has no pages to turn.
  const whole = new AbortController();
  const resize = (size) => () => {
    if (!table.isConnected) return whole.abort();
    state.size = size;
    return draw();
  };
  window.addEventListener("beforeprint", resize(PRINTED), { signal: whole.signal });
  window.addEventListener("afterprint", resize(pageSize), { signal: whole.signal });

  draw();
  const scrolled = el("div", { class: "scrolled", tabindex: "0", role: "region", "aria-label": caption },
    table);
  return el("div", { class: "listing" }, stacked ? orderField() : controls(), scrolled,
    el("div", { class: "under" }, said, pager));
}

// What has no value comes last, whichever way.
export function sorted(rows, value, descending) {
  const sign = descending ? -1 : 1;
  return rows
    .map((row, index) => ({ row, index, key: value(row) }))
    .sort((a, b) => {
      const missing = (a.key === null) - (b.key === null);
      if (missing || a.key === null) return missing || a.index - b.index;
      const order = typeof a.key === "string"
        ? a.key.localeCompare(b.key, "en", { numeric: true }) : a.key - b.key;
      return sign * order || a.index - b.index;
    })
    .map(({ row }) => row);
}
