// The content of the page and what follows from it: who contains, reads and carries what.
const data = JSON.parse(document.getElementById("data").textContent);
const { nodes, axes, parameters, dimensions, plan } = data;
const calls = new Map(data.calls.map((call) => [call.id, call]));
const root = data.calls[0].id;
const parentOf = new Map(data.calls.flatMap((call) => call.children.map((child) => [child, call.id])));
const isCall = (number) => calls.has(number);
const opened = new Set(data.open);

const readers = nodes.map(() => []);
nodes.forEach((node, number) => node.inputs.forEach((source) => readers[source].push(number)));

// dimensions in a node's value, and those in the parameters it reads as well
const carried = nodes.map((node) => new Set(node.values.flat().flatMap((axis) => axes[axis].dimensions)));
const touched = nodes.map((node, number) => {
  const all = new Set(carried[number]);
  for (const p of node.parameters) for (const axis of parameters[p].axes) for (const d of axes[axis].dimensions) all.add(d);
  return all;
});
const parameterReaders = parameters.map(() => []);
nodes.forEach((node, number) => node.parameters.forEach((p) => parameterReaders[p].push(number)));
const statisticsAt = new Map();
dimensions.forEach((dimension) => dimension.statistics.forEach((node) => statisticsAt.set(node, true)));

const insideOf = new Map(); // call -> the nodes in it, at any depth
const nodesIn = (number) => {
  if (!isCall(number)) return [number];
  if (!insideOf.has(number)) insideOf.set(number, calls.get(number).children.flatMap(nodesIn));
  return insideOf.get(number);
};
const modulePath = (number) => {
  const own = isCall(number) ? number : parentOf.get(number);
  return own === undefined ? "" : calls.get(own).path;
};
// a call's name below the call that encloses it; a mere number says more with the name before it
const callLabel = (call) => {
  const outer = call.parent === null ? "" : calls.get(call.parent).path;
  const inner = outer && call.path.startsWith(outer + ".") ? call.path.slice(outer.length + 1) : call.path;
  return (/^\d+$/.test(inner) ? call.path.split(".").slice(-3).join(".") : inner) || data.title;
};
// the dimensions of a box, the one of its channel axis first
const colourOf = (d) => (d === undefined ? "var(--pinned)" : dimensions[d].colour);
const coloursOf = (number) => {
  if (!isCall(number)) return nodes[number].colours;
  const found = new Set();
  for (const node of nodesIn(number)) for (const d of nodes[node].colours) found.add(d);
  return [...found].sort((a, b) => dimensions[b].parameters - dimensions[a].parameters || a - b);
};
const choiceOf = (d) => (plan ? plan.choices[d] : undefined);
const keptOf = (d) => (choiceOf(d) ? choiceOf(d).kept : dimensions[d].size);
const shapeOf = (number) => {
  const value = nodes[number].values[0];
  if (!value || !value.length) return "";
  return value.map((axis) => axes[axis].kept ?? axes[axis].size).join("×");
};
