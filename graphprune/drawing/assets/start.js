// Puts the page together.
function drawFacts() {
  const facts = [
    [count(nodes.length), "nodes"],
    [short(data.cost.parameters), "parameters"],
    [short(data.cost.macs), "MACs"],
    [count(dimensions.length), "dimensions"],
    [percent(data.reachable, data.cost.parameters), "of parameters can shrink"],
  ];
  if (plan) for (const [name, [before, after]] of Object.entries(plan.cost)) facts.push([percent(after, before), `of ${name === "macs" ? "MACs" : name} kept`]);
  const unknown = Object.keys(data.unknown).length;
  if (unknown) facts.push([count(unknown), "ops without a rule"]);
  byId("facts").replaceChildren(...facts.map(([value, name]) => make("li", null, make("b", null, value), ` ${name}`)));
}

function goToHash() {
  const [, kind, name] = /^#(\w+)=(.*)$/.exec(location.hash) ?? [];
  const wanted = decodeURIComponent(name ?? "");
  if (kind === "dimension") {
    const number = dimensions.findIndex((d) => d.name === wanted);
    if (number >= 0) select("dimension", number);
  } else if (kind === "box") {
    const node = nodes.findIndex((n) => n.name === wanted);
    const call = data.calls.find((c) => c.path === wanted);
    if (node >= 0) reveal(node);
    else if (call) reveal(call.id);
  }
}

function listenToTools() {
  byId("open-all").addEventListener("click", () => (calls.forEach((_, id) => opened.add(id)), draw(), fit(false)));
  byId("close-all").addEventListener("click", () => (opened.clear(), opened.add(root), draw(), fit(false)));
  byId("fit").addEventListener("click", () => fit(true));
  byId("zoom-in").addEventListener("click", () => zoom(1.25));
  byId("zoom-out").addEventListener("click", () => zoom(0.8));
  byId("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  });
}

drawFacts();
drawTabs();
drawList();
draw();
fit(false);
showDetails();
listenToPicture();
listenToSearch();
listenToTools();
goToHash();
