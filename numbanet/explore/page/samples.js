// Pictures to begin with: those that the run has kept.

import { ask, bytes, element, say } from "./api.js";

export async function samples(place, list, onPicture) {
  const found = (await ask("samples")).samples;
  list.replaceChildren(...found.map((sample) => element("li", {}, element("button", { type: "button", title: sample.name,
    "aria-label": `test picture ${sample.name}`, onclick: async () => {
      try {
        onPicture(new Blob([bytes((await ask("sample", { number: sample.number })).data)]));
      } catch (error) {
        say(error.message, true);
      }
    } }, element("img", { src: sample.picture, alt: `test picture ${sample.name}` })))));
  place.hidden = !found.length;
}
