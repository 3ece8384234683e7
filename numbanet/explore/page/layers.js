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

// choose(layer, unit) is called for the unit that was clicked.
export function showLayers(place, layers, choose) {
  if (watch) watch.disconnect();
  const waiting = new Map();
  watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting || !waiting.has(target)) continue;
      fill(target, waiting.get(target), choose);
      waiting.delete(target);
      watch.unobserve(target);
    }
  }, { rootMargin: "400px" });
  place.replaceChildren(...layers.map((layer) => {
    const box = strip(layer);
    waiting.set(box, layer);
    watch.observe(box);
    return box;
  }));
}

let watch = null;       // tells which strips come near the window: only those are painted

function strip(layer) {
  const head = element("h3", {}, layer.path || layer.kind, element("span", {}, layer.kind), element("span", {}, layer.shape.join(" x ")),
    element("span", { class: "time" }, `${layer.milliseconds.toFixed(2)} ms`));
  return element("div", { class: layer.maps ? "strip" : "strip low" }, head);
}

function fill(box, layer, choose) {
  box.classList.add("filled");
  if (layer.maps) {
    box.append(element("div", { class: "maps" }, ...layer.maps.map((map) => mapOf(layer, map, choose))));
  } else {
    const most = Math.max(...layer.units.map((u) => Math.abs(u.value ?? 0)), 1e-12);
    box.append(element("div", { class: "units" }, ...layer.units.map((u) => {
      const bar = element("button", { type: "button", class: u.value < 0 ? "below" : "", title: `unit ${u.index}: ${short(u.value)}`,
        "aria-label": `unit ${u.index} of ${layer.path}: ${short(u.value)}`,
        onclick: () => choose(layer, layer.shape.length === 1 ? [u.index] : [u.index, 0, 0], bar) });
      bar.style.height = `${Math.max(2, 62 * Math.abs(u.value ?? 0) / most)}px`;
      return bar;
    })));
  }
}

function brief(value) {
  return value === null ? "nan" : String(Number(value.toPrecision(2)));
}

function mapOf(layer, map, choose) {
  const [height, width] = layer.shown;
  const [, H, W] = layer.shape;
  const canvas = element("canvas", { tabindex: "0", role: "button",
    "aria-label": `map ${map.index} of ${layer.path}, ${short(map.low)} to ${short(map.high)}; arrow keys choose a pixel, Enter takes it apart` });
  paint(canvas, bytes(map.data), width, height, tables[layer.colours]);
  const box = element("div", { class: "map", title: `map ${map.index}: ${short(map.low)} to ${short(map.high)}` }, canvas,
    element("small", {}, element("b", {}, String(map.index)), element("br"), `${brief(map.low)} .. ${brief(map.high)}`));
  const at = { y: Math.floor(H / 2), x: Math.floor(W / 2) };
  const take = () => choose(layer, [map.index, at.y, at.x], box);
  canvas.addEventListener("click", (event) => {
    const area = canvas.getBoundingClientRect();
    at.y = Math.min(H - 1, Math.max(0, Math.floor((event.clientY - area.top) / area.height * H)));
    at.x = Math.min(W - 1, Math.max(0, Math.floor((event.clientX - area.left) / area.width * W)));
    take();
  });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (move) {
      at.y = Math.min(H - 1, Math.max(0, at.y + move[0]));
      at.x = Math.min(W - 1, Math.max(0, at.x + move[1]));
      canvas.setAttribute("aria-description", `row ${at.y}, column ${at.x}`);
      take();
    } else if (event.key === "Enter" || event.key === " ") {
      take();
    } else {
      return;
    }
    event.preventDefault();
  });
  return box;
}
