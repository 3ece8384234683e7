// The classical filters on the person's picture; every number can be changed.

import { ask, element, say, short } from "./api.js";

export function filters(known, place) {
  let picture = null, asked = 0, timer = null;
  const { select, table, note, results } = place;
  select.replaceChildren(...known.map((f) => element("option", { value: f.name }, f.name)), element("option", { value: "own" }, "own numbers"));

  function fill(kernel) {
    table.replaceChildren(...kernel.map((row, i) => element("tr", {}, ...row.map((value, j) => {
      const input = element("input", { inputmode: "decimal", "aria-label": `row ${i + 1}, column ${j + 1}`, value: String(Number(value.toFixed(4))) });
      input.exact = value;
      input.addEventListener("input", () => {
        input.exact = null;
        select.value = "own";
        note.textContent = "";
        clearTimeout(timer);
        timer = setTimeout(update, 250);
      });
      return element("td", {}, input);
    }))));
  }
  select.addEventListener("change", () => {
    const chosen = known.find((f) => f.name === select.value);
    if (!chosen) return;
    note.textContent = chosen.note;
    fill(chosen.kernel);
    update();
  });
  function matrix() {
    return [...table.rows].map((row) => [...row.cells].map((cell) => cell.firstChild.exact ?? (cell.firstChild.value.trim() || "0")).join(" ")).join("; ");
  }
  async function update() {
    if (!picture) return;
    const number = ++asked;
    try {
      const found = await ask("filter", { kernel: matrix() }, picture);
      if (number === asked) show(found);
    } catch (error) {
      say(error.message, true);
    }
  }
  function figure(image, text, more) {
    return element("figure", {}, element("img", { src: image, alt: text, class: "smooth" }), element("figcaption", {}, text, element("br"), more));
  }
  function show(found) {
    const range = (r) => `${short(r.low)} to ${short(r.high)}; ${r.how}`;
    results.replaceChildren(figure(found.picture, "picture", found.size.join(" x ")),
      figure(found.correlation.picture, "cross-correlation, as in networks", range(found.correlation)),
      figure(found.convolution.picture, "convolution: kernel turned by 180 degrees", range(found.convolution)));
  }
  select.value = "sobel";
  select.dispatchEvent(new Event("change"));
  return (next) => {
    picture = next;
    return update();
  };
}
