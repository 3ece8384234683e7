// One unit taken apart: patch, kernel, products and their sum.

import { element, short } from "./api.js";
import { cellColour } from "./layers.js";

const SIGNS = { convolution: "patch x kernel, summed", maximum: "the greatest of the patch", mean: "the mean of the patch",
  linear: "inputs x weights, summed", pointwise: "a function of one value", other: "" };

function table(name, rows) {
  const most = Math.max(...rows.flat().map((v) => Math.abs(v ?? 0)));
  const body = rows.map((row) => element("tr", {}, ...row.map((value) => {
    const cell = element("td", { class: value === null ? "n pad" : "n", title: value === null ? "beyond the border" : String(value) },
      value === null ? "0" : short(value));
    if (value !== null) {
      const colour = cellColour(value, most);
      cell.style.background = colour.background;
      cell.style.color = colour.dark ? "#202028" : "#fff";
    }
    return cell;
  })));
  return element("div", {}, element("label", {}, name), element("table", { "aria-label": name }, ...body));
}

function list(parts) {
  const head = element("tr", {}, ...["input", "value", "weight", "product"].map((text) => element("th", { scope: "col" }, text)));
  const most = Math.max(...parts.map((p) => Math.abs(p.sum ?? 0)));
  return element("table", { "aria-label": "the inputs that add most" }, head, ...parts.map((part) => {
    const product = element("td", { class: "n" }, short(part.sum));
    const colour = cellColour(part.sum, most);
    product.style.background = colour.background;
    product.style.color = colour.dark ? "#202028" : "#fff";
    return element("tr", {}, element("th", { scope: "row" }, String(part.channel)), element("td", { class: "n" }, short(part.patch[0][0])),
      element("td", { class: "n" }, short(part.kernel[0][0])), product);
  }));
}

function terms(found) {
  const parts = found.parts.map((p) => short(p.sum));
  if (found.rest.count) parts.push(`${short(found.rest.sum)} of ${found.rest.count} more`);
  if (found.bias) parts.push(`bias ${short(found.bias)}`);
  return parts.join(" + ").replaceAll("+ -", "- ");
}

// Draws it, and returns it in a sentence.
export function showUnit(place, found) {
  const where = found.unit.length === 1 ? `unit ${found.unit[0]}` : `map ${found.unit[0]}, row ${found.unit[1]}, column ${found.unit[2]}`;
  const children = [element("h3", {}, `${found.layer}: ${where}`), element("p", { class: "hint" },
    `${found.layer_kind}${SIGNS[found.kind] ? `: ${SIGNS[found.kind]}` : ""}`)];
  if (found.total !== null) {
    children.push(element("p", { class: "sum" }, `${terms(found)} = `, element("strong", { id: "unit-total" }, short(found.total))),
      element("p", { class: "sum hint" }, "the engine computed ", element("strong", { id: "unit-value" }, short(found.value))));
  } else {
    children.push(element("p", { class: "sum" }, found.kind === "pointwise" ? `${short(found.parts[0].sum)} becomes ` : "value ",
      element("strong", { id: "unit-value" }, short(found.value))));
  }
  if (found.window) {
    const [top, left, rows, columns, dilation] = found.window;
    children.push(element("p", { class: "hint" }, `patch: ${rows} x ${columns} from row ${top}, column ${left} of its input`
      + `${dilation > 1 ? `, every ${dilation}nd pixel` : ""}`));
  }
  if (found.kind === "linear") {
    children.push(list(found.parts));
  } else if (found.kind !== "pointwise" && found.kind !== "other") {
    for (const part of found.parts) {
      const tables = [table(`patch of channel ${part.channel}`, part.patch)];
      if (part.kernel) tables.push(table("kernel", part.kernel), table(`products, sum ${short(part.sum)}`, part.products));
      children.push(element("div", { class: "tables" }, ...tables));
    }
  }
  place.replaceChildren(...children);
  return `${found.layer}: ${where} is ${short(found.value)}`;
}
