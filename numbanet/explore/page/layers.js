// Strips of feature maps, one a layer, in the order in which they ran.

import { bytes, element, short } from "./api.js";

const tables = {};

export function setColours(coded) {
  for (const [name, text] of Object.entries(coded)) tables[name] = bytes(text);
}

function paint(canvas, values, width, height, table) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < values.length; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = table[3 * values[i] + c];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

export function cellColour(value, most) {
  const table = tables.signed;
  const at = Math.round(Math.min(Math.max(127.5 + 127.5 * (most ? value / most : 0), 0), 255));
  const rgb = [0, 1, 2].map((c) => table[3 * at + c]);
  return { background: `rgb(${rgb})`, dark: rgb[0] * 0.3 + rgb[1] * 0.6 + rgb[2] * 0.1 > 140 };
}

// choose(layer, unit, box) is called for the unit that was clicked, or chosen with Enter.
export function showLayers(place, layers, choose) {
  if (watch) watch.disconnect();
  watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) target.fill();
  }, { rootMargin: "400px" });
  place.replaceChildren(...layers.map((layer) => strip(layer, choose)));
  for (const box of place.children) watch.observe(box);
}

let watch = null;       // tells which strips come near the window: only those are painted

function strip(layer, choose) {
  const head = element("h3", {}, layer.path || layer.kind, element("span", {}, layer.kind), element("span", {}, layer.shape.join(" x ")),
    element("span", { class: "time" }, `${layer.milliseconds.toFixed(2)} ms`));
  const row = element("div", { class: layer.maps ? "maps" : "units", role: "group", tabindex: "0",
    "aria-label": `${layer.path || layer.kind}, ${layer.kind}, ${layer.shape.join(" x ")}` });
  const box = element("div", { class: layer.maps ? "strip" : "strip low" }, head, row);
  box.fill = () => {
    box.fill = () => {};
    watch.unobserve(box);
    box.classList.add("filled");
    row.removeAttribute("tabindex");
    const most = layer.maps ? 0 : Math.max(...layer.units.map((u) => Math.abs(u.value ?? 0)), 1e-12);
    row.append(...layer.maps ? layer.maps.map((map) => mapOf(layer, map, choose)) : layer.units.map((u) => barOf(layer, u, most, choose)));
    walk(box, [...row.querySelectorAll("canvas, button")]);
  };
  row.addEventListener("focus", () => {                 // the keyboard was faster than the paint
    box.fill();
    focusOn(box);
  });
  return box;
}

// A layer is one stop of the Tab key; from there arrow keys go to its other maps or units, and to the layers above and below.
function walk(box, stops) {
  stops.forEach((stop, i) => { stop.tabIndex = i ? -1 : 0; });
  box.addEventListener("focusin", (event) => {
    for (const stop of stops) stop.tabIndex = stop === event.target ? 0 : -1;
  });
  box.addEventListener("keydown", (event) => {
    const i = stops.indexOf(event.target);
    if (event.defaultPrevented || i < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const goes = { ArrowLeft: stops[i - 1], ArrowRight: stops[i + 1], Home: stops[0], End: stops[stops.length - 1],
      ArrowUp: box.previousElementSibling, ArrowDown: box.nextElementSibling };
    if (!(event.key in goes)) return;
    event.preventDefault();
    focusOn(goes[event.key]);
  });
}

function focusOn(there) {
  if (there && there.fill) there.fill();
  const stop = there && there.fill ? there.querySelector("[tabindex='0']") : there;
  if (stop) stop.focus();
}

function barOf(layer, unit, most, choose) {
  const bar = element("button", { type: "button", class: unit.value < 0 ? "below" : "", title: `unit ${unit.index}: ${short(unit.value)}`,
    "aria-label": `unit ${unit.index} of ${layer.path}: ${short(unit.value)}`,
    onclick: () => choose(layer, layer.shape.length === 1 ? [unit.index] : [unit.index, 0, 0], bar) });
  bar.style.height = `${Math.max(2, 62 * Math.abs(unit.value ?? 0) / most)}px`;
  return bar;
}

function brief(value) {
  return value === null ? "nan" : String(Number(value.toPrecision(2)));
}

function mapOf(layer, map, choose) {
  const [height, width] = layer.shown;
  const [, H, W] = layer.shape;
  const canvas = element("canvas", { role: "button",
    "aria-label": `map ${map.index} of ${layer.path}, ${short(map.low)} to ${short(map.high)}; Enter takes a pixel apart, then arrow keys choose others` });
  paint(canvas, bytes(map.data), width, height, tables[layer.colours]);
  const mark = element("i", { class: "mark" });
  const box = element("div", { class: "map", title: `map ${map.index}: ${short(map.low)} to ${short(map.high)}` },
    element("div", { class: "frame" }, canvas, mark),
    element("small", {}, element("b", {}, String(map.index)), element("br"), `${brief(map.low)} to ${brief(map.high)}`));
  const at = { y: Math.floor(H / 2), x: Math.floor(W / 2) };
  let inside = false;                                   // arrow keys move the pixel, until Escape or Tab
  const take = () => {
    Object.assign(mark.style, { left: `${100 * at.x / W}%`, top: `${100 * at.y / H}%`, width: `${100 / W}%`, height: `${100 / H}%` });
    choose(layer, [map.index, at.y, at.x], box);
  };
  canvas.addEventListener("click", (event) => {
    const area = canvas.getBoundingClientRect();
    at.y = Math.min(H - 1, Math.max(0, Math.floor((event.clientY - area.top) / area.height * H)));
    at.x = Math.min(W - 1, Math.max(0, Math.floor((event.clientX - area.left) / area.width * W)));
    inside = true;
    take();
  });
  canvas.addEventListener("blur", () => { inside = false; });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (inside && move) {
      at.y = Math.min(H - 1, Math.max(0, at.y + move[0]));
      at.x = Math.min(W - 1, Math.max(0, at.x + move[1]));
      take();
    } else if (event.key === "Enter" || event.key === " ") {
      inside = true;
      take();
    } else if (inside && event.key === "Escape") {
      inside = false;
    } else {
      return;
    }
    event.preventDefault();
  });
  return box;
}
