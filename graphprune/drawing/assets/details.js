// The panel that tells everything about what is selected.
const details = byId("details");

function showDetails() {
  const { kind, number } = selection ?? {};
  const content =
    kind === "dimension" ? dimensionDetails(number)
    : kind === "pin" ? pinDetails(number)
    : kind === "box" ? (isCall(number) ? callDetails(number) : nodeDetails(number))
    : overview();
  details.replaceChildren(...content.flat(Infinity).filter(Boolean));
  details.scrollTop = 0;
}

const link = (text, action) => make("button", { type: "button", class: "link", onclick: action }, text);
const nodeLink = (number) => link(nodes[number].name, () => reveal(number));
const swatch = (d) => make("span", { class: "swatch", colour: colourOf(d) });
const joined = (items, most = 24) => {
  const shown = items.slice(0, most).flatMap((item, i) => (i ? [", ", item] : [item]));
  return items.length > most ? [...shown, `, and ${items.length - most} more`] : shown;
};

function overview() {
  const unknown = Object.entries(data.unknown);
  return [
    make("h2", null, "What the colours mean"),
    make("p", null, "Each colour is one dimension: channels, heads or neurons that leave together wherever the colour appears. What is grey keeps its size."),
    make("p", { class: "note" }, "Select a dimension in the list to see its members, or any box to see its axes. A circle at the corner of a box marks a node that normalises over channels, so it will do so over the kept ones."),
    unknown.length > 0 && [
      make("h3", { class: "warn" }, "Ops without a rule: everything they touch stays as it is"),
      make("ul", null, unknown.map(([op, where]) => make("li", null, `${op}: `, joined(where.map(nodeLink), 8)))),
    ],
    plan && planOverview(),
  ];
}

function planOverview() {
  const rows = Object.entries(plan.cost).map(([name, [before, after]]) => [
    make("tr", null, make("td", null, name), make("td", { class: "number" }, short(before)), make("td", { class: "number" }, short(after)), make("td", null, bar(after, before), `${percent(after, before)} kept`)),
  ]);
  const zeroed = Object.entries(plan.zeroed);
  return [
    make("h3", null, "The plan"),
    make("table", null, make("tbody", null, rows)),
    zeroed.length > 0 && make("ul", null, zeroed.map(([path, share]) => make("li", null, `${path}: ${(100 * share).toFixed(1)} % of weights zeroed`))),
    plan.notes.map((note) => make("p", { class: "note" }, note)),
  ];
}

function bar(kept, size, d, requested) {
  const text = `${kept} of ${size} kept`;
  const asked = requested !== undefined && requested !== size - kept;
  return make("span", { class: "bar", role: "img", "aria-label": text, title: asked ? `${text}, ${requested} were to go` : text },
    make("span", { class: "kept", colour: d === undefined ? null : colourOf(d), style: `width: ${(100 * kept) / size}%` }),
    asked && make("span", { class: "asked", style: `left: ${(100 * (size - requested)) / size}%` }),
  );
}

function dimensionDetails(d) {
  const dimension = dimensions[d];
  const choice = choiceOf(d);
  return [
    make("h2", null, swatch(d), dimension.title),
    make("p", { class: "note" }, make("code", null, dimension.name)),
    make("p", null, `${count(dimension.size)} units of kind ${dimension.kind}, in ${dimension.members.length} parameter axes; ${count(dimension.parameters)} parameters reached (${percent(dimension.parameters, data.cost.parameters)})`),
    dimension.outer && make("p", { class: "note" }, `Each element of ${dimension.outer} may keep units of its own, equally many.`),
    choice && [
      make("h3", null, `The plan keeps ${choice.kept} of ${dimension.size}` + (choice.requested === dimension.size - choice.kept ? "" : ` (asked to remove ${choice.requested}, removes ${dimension.size - choice.kept})`)),
      unitStrip(dimension, choice),
      make("p", { class: "note" }, choice.rows.length > 1 ? `each line is a unit, coloured if kept; one row for each of the ${choice.rows.length} elements of ${dimension.outer}` : "each line is a unit, coloured if kept"),
    ],
    dimension.statistics.length > 0 && [
      make("h3", null, "Normalised over: statistics are taken over the kept units"),
      make("p", null, joined(dimension.statistics.map(nodeLink), 12)),
    ],
    make("h3", null, "Leaves from these parameters together"),
    memberTable(dimension.members),
  ];
}

function unitStrip(dimension, choice) {
  const height = choice.rows.length;
  const strip = shape("svg", { class: "units", viewBox: `0 0 ${dimension.size} ${height}`, preserveAspectRatio: "none", style: `height: ${Math.max(18, Math.min(10 * height, 240))}px`, role: "img", "aria-label": `${choice.kept} of ${dimension.size} kept` });
  choice.rows.forEach((runs, y) => {
    for (const [start, length] of runs) strip.append(shape("rect", { x: start, y, width: length, height: height > 1 ? 0.85 : 1, style: `fill: ${dimension.colour}` }));
  });
  return strip;
}

function memberTable(members) {
  const rows = members.map(([p, axis]) => {
    const reader = parameterReaders[p][0];
    return make("tr", null,
      make("td", null, link(parameters[p].path, () => reveal(reader))),
      make("td", { class: "number" }, `axis ${axis}`),
      make("td", { class: "axis" }, axisType(parameters[p].axes[axis])),
    );
  });
  return make("table", null, make("tbody", null, rows));
}

function axisType(number) {
  const axis = axes[number];
  if (axis.pin) return make("span", { class: "chip" }, axis.size);
  return typeOf(axis.type, true);
}

function typeOf(type, outermost) {
  if (Array.isArray(type)) {
    const [size, d] = type;
    if (d < 0) return make("span", { class: "chip" }, size);
    return make("button", { type: "button", class: "chip", colour: colourOf(d), title: dimensions[d].title, onclick: () => select("dimension", d) }, choiceOf(d) ? `${size}→${keptOf(d)}` : size);
  }
  const [[symbol, parts]] = Object.entries(type);
  const spelled = parts.flatMap((part, i) => [i ? ` ${symbol} ` : "", typeof part === "number" ? `… ${part} more` : typeOf(part, false)]);
  return make("span", null, outermost ? "" : "(", spelled, outermost ? "" : ")");
}

function axisTable(numbers) {
  const rows = numbers.map((number, position) => {
    const axis = axes[number];
    return make("tr", null,
      make("td", { class: "number" }, String(position)),
      make("td", { class: "number" }, axis.kept ? `${axis.size} → ${axis.kept}` : axis.size),
      make("td", { class: "axis" }, axis.pin ? why(axis.pin) : axisType(number)),
    );
  });
  return make("table", null, make("tbody", null, rows));
}

const why = ([reason, node]) => make("span", { class: "note" }, `stays: ${reason}`, node >= 0 && [" at ", nodeLink(node)]);

function source(text) {
  if (!text) return null;
  const found = /^(.*?:\d+): ([^]*)$/.exec(text);
  return found ? make("code", { class: "source" }, make("span", { class: "file" }, found[1]), make("br"), found[2]) : make("code", { class: "source" }, text);
}

function nodeDetails(number) {
  const node = nodes[number];
  const path = modulePath(number);
  return [
    make("h2", null, node.name),
    make("p", { class: "note" }, make("code", null, node.target), path && [" in ", link(path, () => reveal(parentOf.get(number)))]),
    source(node.source),
    statisticsAt.has(number) && make("p", { class: "warn" }, "Normalises over channels: over the kept ones after pruning."),
    node.values.map((value, i) => [
      make("h3", null, `${node.values.length > 1 ? `Value ${i}` : "Value"}${node.dtype ? `, ${node.dtype}` : ""}: axis, size, made of`),
      value.length ? axisTable(value) : make("p", { class: "note" }, "a single number"),
    ]),
    node.parameters.map((p) => [make("h3", null, `${parameters[p].trained ? "Parameter" : "Buffer"} ${parameters[p].path}`), axisTable(parameters[p].axes)]),
    make("h3", null, "Edges"),
    make("p", null, "from ", node.inputs.length ? joined(node.inputs.map(nodeLink)) : "nothing"),
    make("p", null, "to ", readers[number].length ? joined(readers[number].map(nodeLink)) : "nothing"),
  ];
}

function callDetails(number) {
  const call = calls.get(number);
  const inside = nodesIn(number);
  const own = [...new Set(inside.flatMap((node) => nodes[node].parameters))].filter((p) => parameters[p].trained);
  const total = own.reduce((sum, p) => sum + parameters[p].elements, 0);
  const found = [...new Set(inside.flatMap((node) => [...touched[node]]))].sort((a, b) => a - b);
  return [
    make("h2", null, call.path || data.title),
    make("p", null, `${call.class ? `${call.class}, ` : ""}${inside.length} nodes, ${count(total)} parameters`),
    number !== root && make("p", null, make("button", { type: "button", onclick: () => (toggle(number), showDetails()) }, opened.has(number) ? "Collapse" : "Expand")),
    make("h3", null, `${found.length} dimensions inside`),
    make("table", null, make("tbody", null, found.map((d) => make("tr", null,
      make("td", null, swatch(d), link(dimensions[d].title, () => select("dimension", d))),
      make("td", { class: "number" }, choiceOf(d) ? `${count(dimensions[d].size)} → ${count(keptOf(d))}` : count(dimensions[d].size)),
    )))),
  ];
}

function pinDetails(number) {
  const { reason, members } = data.pins[number];
  const rows = members.slice(0, 400).map(([p, axis]) => {
    const [, node] = axes[parameters[p].axes[axis]].pin;
    return make("tr", null,
      make("td", null, link(parameters[p].path, () => reveal(parameterReaders[p][0])), ` axis ${axis}`),
      make("td", null, node >= 0 && ["at ", nodeLink(node), source(nodes[node].source)]),
    );
  });
  return [
    make("h2", null, swatch(undefined), reason),
    make("p", null, `${count(members.length)} parameter axes stay for this reason`),
    make("table", null, make("tbody", null, rows)),
    members.length > 400 && make("p", { class: "note" }, `and ${members.length - 400} more`),
  ];
}
