// Small makers of elements and spellers of numbers. Text is always set as text, never parsed as HTML.
const byId = (id) => document.getElementById(id);
const fill = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name !== "colour") element.setAttribute(name, value === true ? "" : value);
  }
  if (attributes?.colour) element.style.setProperty("--colour", attributes.colour); // after "style", which would undo it
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
};
const make = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const shape = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const count = (value) => value.toLocaleString("en-US");
const short = (value) => {
  for (const [unit, scale] of [["G", 1e9], ["M", 1e6], ["k", 1e3]])
    if (value >= scale) return `${(value / scale).toPrecision(3)} ${unit}`;
  return String(value);
};
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "");
const measure = (() => {
  const context = document.createElement("canvas").getContext("2d");
  const family = getComputedStyle(document.body).fontFamily;
  const widths = new Map();
  return (text, font) => {
    const key = font + text;
    if (!widths.has(key)) {
      context.font = `${font} ${family}`;
      widths.set(key, context.measureText(text).width);
    }
    return widths.get(key);
  };
})();
const shorten = (text, length) => (text.length <= length ? text : `${text.slice(0, length - 1)}…`);
