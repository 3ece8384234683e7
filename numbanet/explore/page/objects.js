// A detector's answer: boxes over the picture, down to a least score that a slider sets.

import { element } from "./api.js";

let least = null;                                       // stays when another picture comes

// place: where it is shown; found: {shown, shape, objects}; model: {threshold, lowest}
export function showObjects(place, found, model) {
  least ??= model.threshold;
  const [height, width] = found.shape;
  const image = element("img", { src: found.shown, alt: "the picture", class: Math.max(height, width) > 64 ? "smooth" : "" });
  const stage = element("div", { class: "stage" }, image);
  const list = element("ol", { class: "objects", "aria-label": "Objects, the surest first" });
  const caption = element("figcaption", { id: "object" });
  const said = element("p", { class: "hint", role: "status" });
  const output = element("output");
  const slider = element("input", { type: "range", id: "least", min: model.lowest, max: 1, step: 0.01, value: least, "aria-label": "least score" });
  const rows = found.objects.map((object, i) => made(object, i, width, height));
  for (const { box, row } of [...rows].reverse()) stage.append(box);        // the surest lies over the others
  list.append(...rows.map(({ row }) => row));
  let marked = null;
  function mark(one) {
    for (const part of marked ? [marked.box, marked.row] : []) part.classList.remove("marked");
    marked = one;
    for (const part of one ? [one.box, one.row] : []) part.classList.add("marked");
    caption.textContent = one ? one.said : "what it finds; hover a box or a line of the list";
  }
  stage.addEventListener("mousemove", (event) => {                          // of boxes in one another the smallest is meant
    const area = stage.getBoundingClientRect();
    const x = (event.clientX - area.left) * width / area.width, y = (event.clientY - area.top) * height / area.height;
    let best = null;
    for (const one of rows) {
      const [left, top, right, bottom] = one.edges;
      if (!one.box.hidden && left <= x && x <= right && top <= y && y <= bottom && !(best && best.size <= one.size)) best = one;
    }
    if (best !== marked) mark(best);
    if (best) list.scrollTop = best.row.offsetTop - list.clientHeight / 2;  // the list alone: the page stays where it is
  });
  stage.addEventListener("mouseleave", () => mark(null));
  for (const one of rows) {
    for (const [name, on] of [["mouseenter", true], ["focusin", true], ["mouseleave", false], ["focusout", false]]) {
      one.row.addEventListener(name, () => mark(on ? one : null));
    }
  }

  function choose() {
    least = Number(slider.value);
    output.textContent = least.toFixed(2);
    let count = 0;
    rows.forEach(({ box, row }, i) => {
      const shown = found.objects[i].score > least;
      box.hidden = row.hidden = !shown;
      count += shown;
    });
    mark(null);
    const others = rows.length - count;
    said.textContent = `${count || "no"} object${count === 1 ? "" : "s"}${others ? `; ${others} with lower scores` : ""}`;
  }
  slider.addEventListener("input", choose);
  choose();
  place.replaceChildren(
    element("figure", {}, stage, caption),
    element("div", { class: "aside" }, element("label", { class: "slider" }, "Least score", slider, output), said, list));
}

function made(object, number, width, height) {
  const [left, top, right, bottom] = object.box, colour = `rgb(${object.colour})`;
  const percent = `${(100 * object.score).toFixed(1)}%`;
  const tag = element("b", {}, `${object.class} ${object.score.toFixed(2)}`);
  const box = element("div", { class: "object", "data-number": number, "aria-hidden": "true" }, tag);
  Object.assign(box.style, { left: `${100 * left / width}%`, top: `${100 * top / height}%`, width: `${100 * (right - left) / width}%`,
    height: `${100 * (bottom - top) / height}%`, borderColor: colour });
  tag.style.background = colour;
  tag.className = (object.colour[0] * 0.3 + object.colour[1] * 0.6 + object.colour[2] * 0.1 > 140 ? "light" : "")
    + (top < 0.06 * height ? " below" : "") + (left > 0.85 * width ? " left" : "");
  const swatch = element("i", { class: "swatch" });
  swatch.style.background = colour;
  const where = `left ${left.toFixed(0)}, top ${top.toFixed(0)}, right ${right.toFixed(0)}, bottom ${bottom.toFixed(0)}`;
  const row = element("li", {}, element("button", { type: "button" }, swatch, object.class, element("span", { class: "percent" }, percent),
    element("small", {}, where)));
  return { box, row, edges: object.box, size: (right - left) * (bottom - top), said: `${object.class}, ${percent}: ${where}` };
}
