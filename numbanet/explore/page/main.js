// A picture comes in, goes to the engine, and what comes back is drawn.

import { ask, element, say } from "./api.js";
import { paper } from "./draw.js";
import { filters } from "./filters.js";
import { showLabels } from "./labels.js";
import { setColours, showLayers } from "./layers.js";
import { showObjects } from "./objects.js";
import { samples } from "./samples.js";
import { sizes } from "./sizes.js";
import { showUnit } from "./unit.js";

const $ = (id) => document.getElementById(id);
let current = null, sent = 0, filterWith = () => {}, picture = null, model = { largest: Infinity };

async function look(blob, again = false) {
  const number = ++sent, started = performance.now();
  picture = blob;
  say("looking ...");
  try {
    const found = await ask("look", {}, blob);
    if (number !== sent) return;
    current = found;
    showAnswer(found);
    showLayers($("strips"), found.layers, choose);
    if (!again) $("unit").replaceChildren(element("h3", {}, "Unit"), element("p", { class: "empty" }, "No unit chosen."));
    requestAnimationFrame(() => requestAnimationFrame(() => {
      const total = performance.now() - started;
      say(`${found.layers.length} layers; engine ${found.milliseconds.toFixed(0)} ms, painted after ${total.toFixed(0)} ms`);
      document.body.dataset.painted = total.toFixed(1);
    }));
    await filterWith(blob);
  } catch (error) {
    if (number === sent) say(error.message, true);
  }
}

function showAnswer(found) {
  $("seen").hidden = Boolean(found.detection || found.segmentation);        // which show the picture themselves
  $("seen-image").src = found.picture;
  $("seen-image").classList.toggle("smooth", found.size[0] > 64);
  if (found.detection) showObjects($("scene"), found.detection, model);
  if (found.segmentation) showLabels($("scene"), found.segmentation);
  $("scene").hidden = !found.detection && !found.segmentation;
  if (found.top) showTop(found);
}

function showTop(found) {
  $("top").replaceChildren(...found.top.map((row, i) => {
    const button = element("button", { type: "button", "aria-pressed": i === 0 ? "true" : "false", title: "where was it seen?",
      onclick: () => showClass(row, button) }, element("span", { class: "percent" }, `${(100 * row.probability).toFixed(1)}%`), row.name);
    const bar = element("span", { class: "bar" });
    bar.style.width = `${100 * row.probability}%`;
    button.append(bar);
    return element("li", {}, button);
  }));
  showCam(found.cam);
}

function showCam(cam) {
  $("cam").hidden = false;
  $("cam-image").hidden = Boolean(cam.error);
  if (!cam.error) {
    $("cam-image").src = cam.picture;
    $("cam-image").alt = `where the network saw ${cam.name}`;
  }
  $("cam-image").classList.toggle("smooth", current.size[0] > 64);
  $("cam-text").textContent = cam.error || `Grad-CAM: where it saw "${cam.name}" (maps of ${cam.layer})`;
}

async function showClass(row, button) {
  const id = current.id;
  try {
    const cam = await ask("cam", { id, class: row.class });
    if (id !== current.id) return;
    for (const other of $("top").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
    showCam(cam);
  } catch (error) {
    await again(error);
  }
}

let chosen = 0;
async function choose(layer, unit, box) {
  const number = ++chosen;
  for (const other of document.querySelectorAll("#strips .chosen")) other.classList.remove("chosen");
  box.classList.add("chosen");
  try {
    const found = await ask("unit", { id: current.id, layer: layer.index, unit: unit.join(",") });
    if (number === chosen) $("unit-said").textContent = showUnit($("unit"), found);
  } catch (error) {
    await again(error);
  }
}

// The server keeps the last pictures only: one that is gone is sent again.
async function again(error) {
  if (error.status === 410 && picture) {
    await look(picture, true);
    say("the picture was sent again; please repeat your choice");
  } else {
    say(error.message, true);
  }
}

function acceptFile(file) {
  if (file && file.size > model.largest) {              // a server that stops reading looks to a browser like one that is gone
    say(`a picture may have ${model.largest / 2 ** 20} MB, this one has ${Math.ceil(file.size / 2 ** 20)}`, true);
  } else if (file) {
    look(file);
  }
}

const sheet = paper($("canvas"), async () => look(await sheet.picture()));
$("send").addEventListener("click", async () => look(await sheet.picture()));
$("clear").addEventListener("click", () => sheet.clear());
$("drop").addEventListener("click", () => $("file").click());
$("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    $("file").click();
  }
});
$("file").addEventListener("click", (event) => event.stopPropagation());
$("file").addEventListener("change", () => {
  acceptFile($("file").files[0]);
  $("file").value = "";
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") acceptFile(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => acceptFile([...event.clipboardData.files].find((f) => f.type.startsWith("image/"))));

sizes($("size-form"), $("size-formula"), $("size-drawing"));
for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());

const DOES = { classification: "names what is on a picture", detection: "finds objects of", segmentation: "labels pixels of" };

ask("model").then(async (told) => {
  model = told;
  setColours(model.colours);
  document.body.dataset.task = model.task;
  const does = DOES[model.task] + (model.classes ? ` ${model.classes.length} classes` : "");
  $("model").textContent = `${model.name}${model.trained ? "" : " with random weights"} ${does}: input ${model.input.join(" x ")}, `
    + `${model.parameters.toLocaleString("en")} parameters, on ${model.device}`;
  filterWith = filters(model.filters, { select: $("filter-name"), table: $("kernel"), note: $("filter-note"), results: $("filter-results") });
  await samples($("samples"), $("sample-list"), (blob) => look(blob));
  document.body.dataset.ready = "yes";
}).catch((error) => say(error.message, true));
