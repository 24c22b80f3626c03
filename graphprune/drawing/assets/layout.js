// Coordinates for the layers that graphprune computed: sizes depend on which calls are open, the order does not.
const SPACE = { across: 18, down: 24, bend: 12, padding: 16, header: 28, node: 26, call: 40 };

// The place of least squares for boxes in a fixed order: isotonic regression by pooling neighbours that would overlap.
function spread(wanted, weights, gaps) {
  const offsets = [0];
  for (const gap of gaps) offsets.push(offsets[offsets.length - 1] + gap);
  const pools = [];
  wanted.forEach((x, i) => {
    let pool = { sum: (x - offsets[i]) * weights[i], weight: weights[i], size: 1 };
    while (pools.length && pools[pools.length - 1].sum / pools[pools.length - 1].weight > pool.sum / pool.weight) {
      const last = pools.pop();
      pool = { sum: last.sum + pool.sum, weight: last.weight + pool.weight, size: last.size + pool.size };
    }
    pools.push(pool);
  });
  const flat = pools.flatMap((pool) => Array(pool.size).fill(pool.sum / pool.weight));
  return flat.map((x, i) => x + offsets[i]);
}

function labelsOf(number) {
  if (isCall(number)) {
    const call = calls.get(number);
    const size = nodesIn(number).length;
    return { title: shorten(callLabel(call), 34), sub: [call.class, `${size} nodes`].filter(Boolean).join(" · ") };
  }
  const node = nodes[number];
  const ends = node.op === "input" || node.op === "output";
  return { title: shorten(ends ? node.name : node.op, 34), sub: shapeOf(number) };
}

function boxOf(number) {
  if (isCall(number) && opened.has(number)) {
    const inner = placeCall(calls.get(number));
    return { number, inner, width: inner.width, height: inner.height };
  }
  const { title, sub } = labelsOf(number);
  if (isCall(number)) {
    const width = 46 + Math.max(measure(title, "600 12px"), measure(sub, "11px"));
    return { number, title, sub, width, height: SPACE.call };
  }
  const width = 26 + measure(title, "12px") + (sub ? 10 + measure(sub, "11px") : 0);
  return { number, title, sub, width, height: SPACE.node };
}

// Where a value enters (side "i") or leaves (side "o") a box, from the box's left edge.
function portOf(slot, value, side) {
  const port = slot.inner?.ports[side].get(value);
  return port === undefined ? slot.width / 2 : port;
}

// Places one call's children with the origin at its top left corner.
function placeCall(call) {
  const layers = call.layers.map((layer) =>
    layer.map(([kind, number]) => (kind === "c" ? { kind, ...boxOf(number) } : { kind, number, width: 0, height: 0 })),
  );
  const links = call.pieces.map(([layer, from, to, value]) => ({
    layer,
    value,
    from: layers[layer][from],
    to: layers[layer + 1][to],
  }));
  settle(layers, links);
  return finish(call, layers, links);
}

function settle(layers, links) {
  const above = new Map();
  const below = new Map();
  for (const link of links) {
    const [out, into] = [portOf(link.from, link.value, "o"), portOf(link.to, link.value, "i")];
    if (!above.has(link.to)) above.set(link.to, []);
    if (!below.has(link.from)) below.set(link.from, []);
    above.get(link.to).push({ other: link.from, shift: out - into });
    below.get(link.from).push({ other: link.to, shift: into - out });
  }
  const gaps = layers.map((layer) =>
    layer.slice(1).map((slot, i) => layer[i].width + (slot.kind === "c" && layer[i].kind === "c" ? SPACE.across : SPACE.bend)),
  );
  layers.forEach((layer, rank) => {
    let x = 0;
    layer.forEach((slot, i) => {
      slot.x = x;
      x += gaps[rank][i] ?? slot.width;
    });
    for (const slot of layer) slot.x -= x / 2;
  });
  const pull = (layer, rank, nearTo) => {
    const weights = [];
    const wanted = layer.map((slot) => {
      const near = nearTo(slot);
      // bends give way to boxes, or they would push each other further apart in every sweep
      weights.push(slot.kind === "c" ? (near.length ? 1 : 0.1) : 0.001);
      return near.length ? near.reduce((sum, { other, shift }) => sum + other.x + shift, 0) / near.length : slot.x;
    });
    spread(wanted, weights, gaps[rank]).forEach((x, i) => (layer[i].x = x));
  };
  const ranks = layers.map((_, rank) => rank);
  // boxes mind boxes first: edges that pass by must not pull a chain of boxes aside
  const near = (links) => {
    const boxes = links.filter(({ other }) => other.kind === "c");
    return boxes.length ? boxes : links;
  };
  const up = (slot) => (slot.kind === "c" ? near(above.get(slot) ?? []) : above.get(slot) ?? []);
  const down = (slot) => (slot.kind === "c" ? near(below.get(slot) ?? []) : below.get(slot) ?? []);
  const both = (slot) => [...up(slot), ...down(slot)];
  for (let sweep = 0; sweep < 5; sweep++) {
    for (const rank of ranks) pull(layers[rank], rank, up);
    for (const rank of [...ranks].reverse()) pull(layers[rank], rank, down);
  }
  for (let sweep = 0; sweep < 6; sweep++) for (const rank of ranks) pull(layers[rank], rank, both);
  // last, slots in a row hang straight below each other
  const inRow = (slot) => up(slot).length === 1 && down(up(slot)[0].other).length === 1;
  for (const rank of ranks) pull(layers[rank], rank, (slot) => (slot.kind !== "c" || inRow(slot) || up(slot).length > 1 ? up(slot) : both(slot)));
}

function finish(call, layers, links) {
  const title = call.id === root ? 0 : 60 + measure(labelsOf(call.id).title + "   " + call.class, "600 12px");
  const all = layers.flat();
  const left = all.length ? Math.min(...all.map((slot) => slot.x)) : 0;
  const right = all.length ? Math.max(...all.map((slot) => slot.x + slot.width)) : 0;
  const slack = Math.max(0, title - (right - left)) / 2;
  let y = call.id === root ? 0 : SPACE.header;
  const bands = layers.map((layer, rank) => {
    const height = Math.max(0, ...layer.map((slot) => slot.height));
    const edge = layer.length > 0 && layer.every((slot) => slot.kind === "i" || slot.kind === "o");
    const top = edge && rank === 0 ? 0 : y;
    if (!(edge && rank === 0)) y += height + SPACE.down;
    return { top, bottom: top + height, edge };
  });
  const last = bands[bands.length - 1];
  const height = !last ? SPACE.header : last.edge && bands.length > 1 ? last.bottom : last.bottom + SPACE.padding;
  const ports = { i: new Map(), o: new Map() };
  layers.forEach((layer, rank) => {
    for (const slot of layer) {
      slot.x += SPACE.padding - left + slack;
      slot.y = (bands[rank].top + bands[rank].bottom - slot.height) / 2;
      slot.band = bands[rank];
      if (slot.kind === "i" || slot.kind === "o") ports[slot.kind].set(slot.number, slot.x);
    }
  });
  return {
    call,
    width: right - left + 2 * (SPACE.padding + slack),
    height,
    ports,
    boxes: all.filter((slot) => slot.kind === "c"),
    curves: links.map((link) => ({ value: link.value, path: curve(link), to: link.to, from: link.from })),
  };
}

// A link leaves its upper slot, falls to the end of that layer, swings across the gap, and falls to its lower slot.
function curve({ from, to, value }) {
  const [x0, x1] = [from.x + portOf(from, value, "o"), to.x + portOf(to, value, "i")];
  const start = from.kind === "b" ? from.band.top : from.y + from.height;
  const end = to.kind === "b" ? to.band.top : to.y;
  const [bend0, bend1] = [from.band.bottom, to.band.top];
  const middle = (bend0 + bend1) / 2;
  return `M${x0} ${start}V${bend0}C${x0} ${middle} ${x1} ${middle} ${x1} ${bend1}V${end}`;
}
