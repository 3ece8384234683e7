// A segmenter's answer: each class's colour over the picture, as strong as a slider says.

import { bytes, element } from "./api.js";

let strength = 0.5;                                     // stays when another picture comes

// place: where it is shown; found: {shown, shape, labels, confidence, classes}
export function showLabels(place, found) {
  const [height, width] = found.shape, labels = bytes(found.labels), confidence = bytes(found.confidence);
  const names = new Map(found.classes.map((row) => [row.class, row])), hidden = new Set();
  const canvas = element("canvas", { width, height, role: "img", class: Math.max(height, width) > 64 ? "smooth" : "",
    "aria-label": `the picture with the colours of ${found.classes.map((row) => row.name).join(", ")}` });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const said = element("figcaption", { id: "pixel" }, "what it sees; hover a pixel");
  const output = element("output");
  const slider = element("input", { type: "range", id: "strength", min: 0, max: 1, step: 0.05, value: strength, "aria-label": "strength of the colours" });
  const edges = edgesOf(labels, width, height);
  let picture = null;

  function paint() {
    strength = Number(slider.value);
    output.textContent = `${Math.round(100 * strength)}%`;
    if (!picture) return;
    const shown = new ImageData(new Uint8ClampedArray(picture.data), width, height);
    for (let i = 0; i < labels.length; i++) {
      const row = names.get(labels[i]);
      if (!row.drawn || hidden.has(row.class)) continue;
      const share = edges[i] && strength > 0 ? 1 : strength;
      for (let c = 0; c < 3; c++) shown.data[4 * i + c] = (1 - share) * picture.data[4 * i + c] + share * row.colour[c];
    }
    context.putImageData(shown, 0, 0);
    canvas.dataset.painted = "yes";
  }
  const image = new Image();
  image.onload = () => {
    context.drawImage(image, 0, 0, width, height);
    picture = context.getImageData(0, 0, width, height);
    paint();
  };
  image.src = found.shown;
  slider.addEventListener("input", paint);
  canvas.addEventListener("mousemove", (event) => {
    const box = canvas.getBoundingClientRect();
    const x = Math.min(width - 1, Math.max(0, Math.floor((event.clientX - box.left) * width / box.width)));
    const y = Math.min(height - 1, Math.max(0, Math.floor((event.clientY - box.top) * height / box.height)));
    said.textContent = `row ${y}, column ${x}: ${names.get(labels[y * width + x]).name}, ${confidence[y * width + x]}% sure`;
  });
  canvas.addEventListener("mouseleave", () => { said.textContent = "what it sees; hover a pixel"; });
  const list = element("ol", { class: "objects", "aria-label": "Classes, those of the most pixels first" }, ...found.classes.map((row) => {
    const swatch = element("i", { class: row.drawn ? "swatch" : "swatch none" });
    if (row.drawn) swatch.style.background = `rgb(${row.colour})`;
    const button = element("button", { type: "button", "aria-pressed": row.drawn ? "true" : null, disabled: !row.drawn,
      title: row.drawn ? "shown or not" : "is not coloured", onclick: () => {
        if (!hidden.delete(row.class)) hidden.add(row.class);
        button.setAttribute("aria-pressed", String(!hidden.has(row.class)));
        paint();
      } }, swatch, row.name, element("span", { class: "percent" }, `${(100 * row.share).toFixed(1)}%`));
    return element("li", {}, button);
  }));
  paint();
  place.replaceChildren(element("figure", {}, element("div", { class: "stage" }, canvas), said),
    element("div", { class: "aside" }, element("label", { class: "slider" }, "Colours", slider, output), list));
}

// 1 where the neighbour at the left, right, above or below is of another class.
function edgesOf(labels, width, height) {
  const found = new Uint8Array(labels.length);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (x && labels[i] !== labels[i - 1]) found[i] = found[i - 1] = 1;
      if (y && labels[i] !== labels[i - width]) found[i] = found[i - width] = 1;
    }
  }
  return found;
}
