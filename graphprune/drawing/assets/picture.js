// Draws the graph, and keeps what is selected, where the window is, and which calls are open.
const picture = byId("picture");
const scene = shape("g");
picture.append(scene);
let placed; // coordinates of what is drawn
let drawn = new Map(); // number -> { element, x, y, width, height }
let selection = null; // { kind: "dimension" | "box" | "pin", number }
const view = { x: 0, y: 0, scale: 1 };

function draw() {
  placed = placeCall(calls.get(root));
  drawn = new Map();
  scene.replaceChildren(drawInside(placed, 0, 0));
  drawMinimap();
  highlight();
  move();
}

function drawInside(inner, x, y) {
  const group = shape("g", { transform: `translate(${x} ${y})` });
  const curves = shape("g");
  for (const { value, path } of inner.curves) {
    const [d] = nodes[value].colours;
    const edge = shape("path", { d: path, class: d === undefined ? "edge pinned" : "edge", "data-value": value, colour: colourOf(d) });
    edge.append(shape("title", null, `${nodes[value].name}: ${shapeOf(value)}`));
    curves.append(edge);
  }
  const open = inner.boxes.filter((box) => box.inner);
  group.append(...open.map((box) => drawFrame(box)), curves);
  // what is inside an open call lies above the curves that lead to it
  group.append(...open.map((box) => drawInside(box.inner, box.x, box.y)));
  group.append(...inner.boxes.filter((box) => !box.inner).map((box) => drawBox(box)));
  for (const box of inner.boxes) box.parent = inner;
  inner.boxes.forEach((box) => (drawn.get(box.number).inside = inner.call.id));
  return group;
}

function remember(box, element) {
  drawn.set(box.number, { element, box });
  return element;
}

function drawFrame(box) {
  const call = calls.get(box.number);
  const label = shape("text", { x: 30, y: 18, class: "title" }, labelsOf(box.number).title);
  if (call.class) label.append(shape("tspan", { class: "sub", dx: 8 }, call.class));
  const element = shape(
    "g",
    { class: "frame", transform: `translate(${box.x} ${box.y})`, "data-number": box.number },
    shape("rect", { class: "body", width: box.width, height: box.height, rx: 9 }),
    shape("rect", { class: "handle", width: box.width, height: SPACE.header }),
    label,
    toggleMark(box.number, 16, 14, false),
  );
  return remember(box, element);
}

function drawBox(box) {
  const call = isCall(box.number);
  const node = call ? null : nodes[box.number];
  const ends = node && (node.op === "input" || node.op === "output");
  const element = shape("g", {
    class: `box ${call ? "call" : ""} ${ends ? "ends" : ""}`,
    transform: `translate(${box.x} ${box.y})`,
    "data-number": box.number,
  });
  element.append(shape("rect", { class: "body", width: box.width, height: box.height, rx: call ? 7 : 5 }));
  element.append(colourStrip(coloursOf(box.number), box.height));
  if (call) {
    element.append(
      shape("text", { x: 32, y: 17, style: "font-weight: 600" }, box.title),
      shape("text", { x: 32, y: 32, class: "sub" }, box.sub),
      toggleMark(box.number, 19, box.height / 2, true),
    );
  } else {
    element.append(shape("text", { x: 14, y: 17 }, box.title));
    element.append(shape("text", { x: box.width - 8, y: 17, class: "sub", "text-anchor": "end" }, box.sub));
    if (statisticsAt.has(box.number)) {
      const mark = shape("circle", { class: "statistic", cx: box.width - 1, cy: 1, r: 4 });
      mark.append(shape("title", null, "normalises over channels"));
      element.append(mark);
    }
  }
  element.append(shape("title", null, call ? calls.get(box.number).path : `${node.name}\n${node.source}`));
  return remember(box, element);
}

// A bar at the left edge in the colours of up to eight dimensions.
function colourStrip(found, height) {
  const strip = shape("g");
  const shown = found.length ? found.slice(0, 8) : [undefined];
  const part = (height - 8) / shown.length;
  shown.forEach((d, i) => strip.append(shape("rect", { x: 4, y: 4 + i * part, width: 4, height: part, rx: shown.length > 1 ? 0 : 2, style: `fill: ${colourOf(d)}` })));
  return strip;
}

function toggleMark(number, x, y, closed) {
  const mark = shape("g", { class: "toggle", transform: `translate(${x} ${y})`, "data-toggle": number });
  mark.append(shape("circle", { r: 7 }), shape("path", { d: closed ? "M-3.5 0H3.5M0 -3.5V3.5" : "M-3.5 0H3.5" }));
  mark.append(shape("title", null, closed ? "Expand" : "Collapse"));
  return mark;
}

// ------------------------------------------------------------------------------------------- selection

const dimensionTouches = (d, number) => nodesIn(number).some((node) => touched[node].has(d));
const pinTouches = (pin, number) => {
  const members = new Set(data.pins[pin].members.map(([p]) => p));
  return nodesIn(number).some((node) => nodes[node].parameters.some((p) => members.has(p)));
};

function highlight() {
  const { kind, number } = selection ?? {};
  picture.classList.toggle("focused", selection !== null);
  picture.style.setProperty("--focus", kind === "dimension" ? dimensions[number].colour : "");
  const box = kind === "box" ? new Set(nodesIn(number)) : null;
  const near = box ? new Set([...box].flatMap((node) => [node, ...nodes[node].inputs, ...readers[node]])) : null;
  for (const [other, { element }] of drawn) {
    const hit =
      kind === "dimension" ? dimensionTouches(number, other)
      : kind === "pin" ? pinTouches(number, other)
      : box ? nodesIn(other).some((node) => near.has(node))
      : false;
    element.classList.toggle("hit", hit);
    element.classList.toggle("selected", kind === "box" && other === number);
  }
  for (const edge of scene.querySelectorAll(".edge")) {
    const value = Number(edge.dataset.value);
    const hit = kind === "dimension" ? carried[value].has(number) : box ? box.has(value) || readers[value].some((n) => box.has(n)) : false;
    edge.classList.toggle("hit", hit);
  }
}

function select(kind, number) {
  selection = kind === null ? null : { kind, number };
  highlight();
  showDetails();
  markChosenRow();
  const name = kind === "dimension" ? dimensions[number].name : kind === "box" ? (isCall(number) ? calls.get(number).path : nodes[number].name) : "";
  history.replaceState(null, "", name ? `#${kind}=${encodeURIComponent(name)}` : location.pathname + location.search);
}

function toggle(number, open = !opened.has(number)) {
  const before = place(number);
  if (open) opened.add(number);
  else opened.delete(number);
  draw();
  const after = place(number);
  if (before && after) {
    view.x += (before.x - after.x) * view.scale;
    view.y += (before.y - after.y) * view.scale;
    move();
  }
}

// Opens every call around a node or call, selects it, and brings it into the window.
function reveal(number) {
  for (let outer = parentOf.get(number); outer !== undefined; outer = parentOf.get(outer)) opened.add(outer);
  draw();
  select("box", number);
  centre(number);
}

// Where a box is drawn, in the coordinates of the whole picture.
function place(number) {
  if (!drawn.has(number)) return null;
  const { box } = drawn.get(number);
  let { x, y } = box;
  for (let outer = parentOf.get(number); outer !== root && outer !== undefined; outer = parentOf.get(outer)) {
    x += drawn.get(outer).box.x;
    y += drawn.get(outer).box.y;
  }
  return { x, y, width: box.width, height: box.height };
}

// ------------------------------------------------------------------------------------------- the window

function move() {
  scene.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${view.scale})`);
  moveMinimap();
}

function zoom(factor, x = picture.clientWidth / 2, y = picture.clientHeight / 2) {
  const scale = Math.min(3, Math.max(0.02, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  move();
}

function centre(number) {
  const at = place(number);
  if (!at) return;
  view.scale = Math.max(view.scale, 0.8);
  view.x = picture.clientWidth / 2 - (at.x + at.width / 2) * view.scale;
  view.y = picture.clientHeight / 2 - (at.y + Math.min(at.height, picture.clientHeight / view.scale) / 2) * view.scale;
  move();
}

function fit(whole) {
  const [width, height] = [picture.clientWidth - 40, picture.clientHeight - 100];
  const across = width / placed.width;
  const both = Math.min(across, height / placed.height, 1);
  view.scale = whole ? both : Math.max(both, Math.min(1, Math.max(across, 0.6)));
  const centre = placed.width <= width / view.scale ? placed.width / 2 : spine();
  view.x = picture.clientWidth / 2 - centre * view.scale;
  view.y = placed.height * view.scale <= height ? 56 + (height - placed.height * view.scale) / 2 : 56;
  move();
}

// Where the model's first box is: the middle of what matters when the picture is wider than the window.
const spine = () => (placed.boxes.length ? placed.boxes[0].x + placed.boxes[0].width / 2 : 0);

const minimap = byId("minimap");
const frame = shape("rect", { class: "window" });
const MINIMAP = { width: 150, height: 320 };

function drawMinimap() {
  const scale = Math.min(MINIMAP.width / placed.width, Math.min(MINIMAP.height, innerHeight * 0.45) / placed.height);
  fill(minimap, { viewBox: `0 0 ${placed.width} ${placed.height}`, width: Math.max(24, placed.width * scale), height: placed.height * scale }, []);
  const marks = [];
  for (const [number, { box }] of drawn) {
    if (box.inner) continue;
    const at = place(number);
    const [d] = coloursOf(number);
    marks.push(shape("rect", { x: at.x, y: at.y, width: at.width, height: at.height, style: `fill: ${colourOf(d)}` }));
  }
  minimap.replaceChildren(...marks, frame);
}

function moveMinimap() {
  fill(frame, {
    x: -view.x / view.scale,
    y: -view.y / view.scale,
    width: picture.clientWidth / view.scale,
    height: picture.clientHeight / view.scale,
  }, []);
}

// ------------------------------------------------------------------------------------------- mouse and keys

function listenToPicture() {
  let grip = null;
  picture.addEventListener("pointerdown", (event) => {
    grip = { x: event.clientX, y: event.clientY, moved: false };
  });
  picture.addEventListener("pointermove", (event) => {
    if (!grip || !(event.buttons & 1)) return;
    const [dx, dy] = [event.clientX - grip.x, event.clientY - grip.y];
    if (!grip.moved && Math.hypot(dx, dy) < 4) return;
    if (!grip.moved) picture.setPointerCapture(event.pointerId);
    Object.assign(grip, { x: event.clientX, y: event.clientY, moved: true });
    picture.classList.add("moving");
    view.x += dx;
    view.y += dy;
    move();
  });
  picture.addEventListener("pointerup", () => picture.classList.remove("moving"));
  picture.addEventListener("click", (event) => {
    const moved = grip?.moved;
    grip = null;
    if (moved) return;
    const mark = event.target.closest("[data-toggle]");
    const box = event.target.closest("[data-number]");
    const edge = event.target.closest(".edge");
    if (mark) toggle(Number(mark.dataset.toggle));
    else if (edge) select("box", Number(edge.dataset.value));
    else if (box) select("box", Number(box.dataset.number));
    else select(null);
  });
  picture.addEventListener("dblclick", (event) => {
    const box = event.target.closest("[data-number]");
    if (box && isCall(Number(box.dataset.number)) && !event.target.closest("[data-toggle]")) toggle(Number(box.dataset.number));
  });
  picture.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    if (event.ctrlKey || event.metaKey) return zoom(Math.exp(-event.deltaY * lines * 0.0022), event.offsetX, event.offsetY);
    view.x -= (event.shiftKey ? event.deltaY : event.deltaX) * lines;
    view.y -= (event.shiftKey ? 0 : event.deltaY) * lines;
    move();
  }, { passive: false });
  picture.addEventListener("keydown", (event) => {
    const action = KEYS[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  });
  const jump = (event) => {
    if (event.type === "pointermove" && !(event.buttons & 1)) return;
    const bounds = minimap.getBoundingClientRect();
    view.x = picture.clientWidth / 2 - ((event.clientX - bounds.left) / bounds.width) * placed.width * view.scale;
    view.y = picture.clientHeight / 2 - ((event.clientY - bounds.top) / bounds.height) * placed.height * view.scale;
    move();
  };
  minimap.addEventListener("pointerdown", jump);
  minimap.addEventListener("pointermove", jump);
  new ResizeObserver(move).observe(picture);
}

// The box that is drawn for a node: itself, or the closed call around it.
function visible(number) {
  let shown = number;
  for (let outer = number; outer !== undefined; outer = parentOf.get(outer)) if (isCall(outer) && outer !== root && !opened.has(outer)) shown = outer;
  return shown;
}

function step(neighbours, fallback) {
  if (selection?.kind !== "box") return follow(fallback);
  const own = new Set(nodesIn(selection.number));
  const next = [...own].flatMap((node) => neighbours(node)).find((node) => !own.has(node));
  if (next !== undefined) follow(visible(next));
}

function follow(number) {
  select("box", number);
  centre(number);
}

const KEYS = {
  ArrowDown: () => step((node) => readers[node], visible(0)),
  ArrowUp: () => step((node) => nodes[node].inputs, visible(nodes.length - 1)),
  ArrowRight: () => (view.x -= 60, move()),
  ArrowLeft: () => (view.x += 60, move()),
  Enter: () => selection?.kind === "box" && isCall(selection.number) && toggle(selection.number),
  " ": () => KEYS.Enter(),
  Escape: () => select(null),
  "+": () => zoom(1.25),
  "=": () => zoom(1.25),
  "-": () => zoom(0.8),
  0: () => fit(true),
};
