// Sliders for the output size of a window, and a drawing of where its windows lie.

import { ask, element, say } from "./api.js";

const SLIDERS = [["n", "input", 1, 40, 7], ["kernel", "kernel", 1, 11, 3], ["stride", "stride", 1, 5, 3], ["padding", "padding", 0, 5, 0],
  ["dilation", "dilation", 1, 4, 1]];

export function sizes(form, formula, drawing) {
  const inputs = {};
  for (const [name, label, least, most, value] of SLIDERS) {
    const shown = element("output", {}, String(value));
    inputs[name] = element("input", { type: "range", min: least, max: most, value, "aria-label": label });
    inputs[name].addEventListener("input", () => {
      shown.textContent = inputs[name].value;
      update();
    });
    form.append(element("label", {}, label, inputs[name], shown));
  }
  let asked = 0;
  async function update() {
    const number = ++asked;
    try {
      const found = await ask("size", Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value])));
      if (number === asked) show(found);
    } catch (error) {
      say(error.message, true);
    }
  }
  function show(found) {
    const verdict = found.output === 0 ? element("span", { class: "bad" }, "does not fit: the window is larger than the padded input")
      : found.fits ? element("span", { class: "good" }, `fits: output ${found.output}`)
        : element("span", { class: "bad" }, `does not fit: output ${found.output}, ${found.unread} at the end never read`);
    formula.replaceChildren(`${found.formula}  `, verdict);
    drawing.replaceChildren(picture(found));
  }
  update();
}

function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// One axis: the input with its padding, below it a row for each window with its taps, at the left the index of the output.
function picture(found) {
  const total = found.n + 2 * found.padding, cell = 20, rows = found.starts.slice(0, 18);
  const width = Math.max(total, 12) * cell + 60, height = 40 + (rows.length + 1) * 18;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${found.output} windows over ${found.n} elements with ${found.padding} of padding on both sides` });
  svg.style.maxWidth = `${width * 1.4}px`;
  const last = found.starts.length ? found.starts[found.starts.length - 1] + found.extent : -found.padding;
  for (let i = -found.padding; i < found.n + found.padding; i++) {
    const outside = i < 0 || i >= found.n, unread = i >= last;
    svg.append(shape("rect", { x: 50 + (i + found.padding) * cell, y: 4, width: cell - 2, height: 22, rx: 2,
      fill: unread ? "#f3c9b4" : outside ? "#ececf1" : "#cfe0f2", stroke: outside ? "#bbb" : "#6c9bcb", "stroke-dasharray": outside ? "2 2" : "none" }));
    svg.append(shape("text", { x: 50 + (i + found.padding) * cell + cell / 2 - 1, y: 19, "font-size": 10, "text-anchor": "middle", fill: "#333" },
      outside ? "0" : String(i)));
  }
  svg.append(shape("text", { x: 44, y: 19, "font-size": 10, "text-anchor": "end", fill: "#5c5c68" }, "input"));
  rows.forEach((start, row) => {
    const y = 36 + row * 18;
    svg.append(shape("text", { x: 44, y: y + 10, "font-size": 10, "text-anchor": "end", fill: "#5c5c68" }, `out ${row}`));
    svg.append(shape("line", { x1: 50 + (start + found.padding) * cell, x2: 48 + (start + found.padding + found.extent) * cell, y1: y + 7, y2: y + 7,
      stroke: "#9ab", "stroke-width": 1 }));
    for (let tap = 0; tap < found.kernel; tap++) {
      svg.append(shape("rect", { x: 50 + (start + found.padding + tap * found.dilation) * cell, y, width: cell - 2, height: 14, rx: 2, fill: "#1f6bb6" }));
    }
  });
  if (found.starts.length > rows.length) {
    svg.append(shape("text", { x: 50, y: height - 6, "font-size": 10, fill: "#5c5c68" }, `and ${found.starts.length - rows.length} more`));
  }
  return svg;
}
