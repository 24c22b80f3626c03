// Finds dimensions, modules, nodes and parameters whose names, ops or paths contain every word that is typed.
const query = byId("query");
const results = byId("results");
const MOST = 60;
let found = [];
let active = 0;

const everything = [
  ...dimensions.map((d, i) => ({ what: "dimension", name: d.title, where: `${d.name} · ${d.kind}`, go: () => ((tab = "dimensions"), drawTabs(), drawList(), select("dimension", i)) })),
  ...data.calls.filter((call) => call.id !== root).map((call) => ({ what: "module", name: call.path, where: call.class, go: () => reveal(call.id) })),
  ...parameters.map((p, i) => ({ what: p.trained ? "parameter" : "buffer", name: p.path, where: p.axes.map((axis) => axes[axis].size).join("×"), go: () => reveal(parameterReaders[i][0]) })),
  ...nodes.map((node, i) => ({ what: "node", name: node.name, where: [node.op, modulePath(i)].filter(Boolean).join(" · "), go: () => reveal(i) })),
];
for (const entry of everything) entry.text = `${entry.what} ${entry.name} ${entry.where}`.toLowerCase();

function search(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = words.length ? everything.filter((entry) => words.every((word) => entry.text.includes(word))) : [];
  const rank = (entry) => (entry.name.toLowerCase() === text.toLowerCase() ? 0 : words.every((word) => entry.name.toLowerCase().includes(word)) ? 1 : 2);
  return matches.map((entry) => [rank(entry), entry]).sort((a, b) => a[0] - b[0]).map(([, entry]) => entry);
}

function drawResults() {
  const all = search(query.value);
  found = all.slice(0, MOST);
  active = 0;
  const options = found.map((entry, i) =>
    make("div", { class: "option", role: "option", id: `result-${i}`, onmousedown: (event) => (event.preventDefault(), choose(i)) },
      make("span", { class: "what" }, entry.what), make("span", { class: "found" }, marked(entry.name)), make("span", { class: "where" }, marked(entry.where))));
  const summary = all.length ? (all.length > MOST ? `the first ${MOST} of ${all.length}` : `${all.length} found`) : "nothing found";
  results.replaceChildren(...options, make("div", { class: "count" }, summary));
  show(query.value.trim() !== "");
  markActive();
}

function marked(text) {
  const word = query.value.trim().split(/\s+/)[0];
  const at = word ? text.toLowerCase().indexOf(word.toLowerCase()) : -1;
  return at < 0 ? text : [text.slice(0, at), make("mark", null, text.slice(at, at + word.length)), text.slice(at + word.length)];
}

function show(open) {
  results.hidden = !open;
  query.setAttribute("aria-expanded", String(open));
}

function markActive() {
  results.querySelectorAll(".option").forEach((option, i) => option.setAttribute("aria-selected", String(i === active)));
  if (found.length) query.setAttribute("aria-activedescendant", `result-${active}`);
  byId(`result-${active}`)?.scrollIntoView({ block: "nearest" });
}

function choose(i) {
  show(false);
  found[i]?.go();
}

function listenToSearch() {
  query.addEventListener("input", drawResults);
  query.addEventListener("focus", () => query.value.trim() && drawResults());
  query.addEventListener("blur", () => show(false));
  query.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps && found.length) {
      active = (active + steps[event.key] + found.length) % found.length;
      markActive();
      event.preventDefault();
    } else if (event.key === "Enter") choose(active);
    else if (event.key === "Escape") show(false);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== query) {
      event.preventDefault();
      query.select();
      query.focus();
    }
  });
}
