// The lists beside the picture: dimensions, sortable, and the reasons why the rest stays.
const list = byId("list");
const COLUMNS = [
  { title: "Dimension", key: (d) => d, cell: (d) => make("span", { class: "named" }, swatch(d), make("button", { type: "button", class: "plain", title: dimensions[d].name }, dimensions[d].title)) },
  { title: "Kind", key: (d) => dimensions[d].kind, cell: (d) => make("span", { class: "kind" }, dimensions[d].kind.replace("_", " ")) },
  { title: "Units", number: true, key: (d) => -dimensions[d].size, cell: (d) => count(dimensions[d].size) },
  { title: "Reaches", hint: "parameters reached", number: true, key: (d) => -dimensions[d].parameters, cell: (d) => short(dimensions[d].parameters) },
];
if (plan)
  COLUMNS.splice(3, 0, {
    title: "Kept",
    key: (d) => keptOf(d) / dimensions[d].size,
    cell: (d) => [make("span", { class: "number" }, `${count(keptOf(d))} of ${count(dimensions[d].size)}`), bar(keptOf(d), dimensions[d].size, d, choiceOf(d)?.requested)],
  });
const order = { column: 0, reversed: false };
let tab = "dimensions";

function drawTabs() {
  const stay = data.pins.reduce((sum, pin) => sum + pin.members.length, 0);
  const tabs = [["dimensions", `Dimensions (${dimensions.length})`], ["pins", `What stays (${stay} axes)`]];
  byId("tabs").replaceChildren(...tabs.map(([name, text]) =>
    make("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-selected": String(tab === name), "aria-controls": "list", onclick: () => ((tab = name), drawTabs(), drawList()) }, text)));
  list.setAttribute("aria-labelledby", `tab-${tab}`);
}

function drawList() {
  list.replaceChildren(tab === "dimensions" ? dimensionTable() : pinTable());
  markChosenRow();
}

function dimensionTable() {
  if (!dimensions.length) return make("p", { class: "note" }, "Nothing can be removed from this model; see what stays.");
  const head = COLUMNS.map((column, i) =>
    make("th", { class: column.number && "number", "aria-sort": order.column === i ? (order.reversed ? "descending" : "ascending") : "none" },
      make("button", { type: "button", title: column.hint ?? null, onclick: () => sortBy(i) }, column.title, order.column === i ? (order.reversed ? " ▴" : " ▾") : "")));
  const sign = order.reversed ? -1 : 1;
  const { key } = COLUMNS[order.column];
  const compare = (a, b) => (key(a) < key(b) ? -sign : key(a) > key(b) ? sign : a - b);
  const rows = dimensions.map((_, d) => d).sort(compare).map((d) =>
    make("tr", { "data-dimension": d, onclick: () => select("dimension", d) },
      COLUMNS.map((column) => make("td", { class: column.number && "number" }, column.cell(d)))));
  return make("table", null, make("thead", null, make("tr", null, head)), make("tbody", null, rows));
}

function sortBy(column) {
  order.reversed = order.column === column && !order.reversed;
  order.column = column;
  drawList();
}

function pinTable() {
  const rows = data.pins.map((pin, number) =>
    make("tr", { "data-pin": number, onclick: () => select("pin", number) },
      make("td", null, swatch(undefined), make("button", { type: "button", class: "plain" }, pin.reason)),
      make("td", { class: "number" }, count(pin.members.length))));
  const head = make("tr", null, make("th", null, make("button", { type: "button", disabled: true }, "Reason")), make("th", { class: "number" }, make("button", { type: "button", disabled: true }, "Parameter axes")));
  return make("table", null, make("thead", null, head), make("tbody", null, rows));
}

function markChosenRow() {
  const { kind, number } = selection ?? {};
  for (const row of list.querySelectorAll("tbody tr")) {
    const chosen = row.dataset[kind ?? ""] === String(number);
    row.classList.toggle("chosen", chosen);
    if (chosen) row.scrollIntoView({ block: "nearest" });
  }
}
