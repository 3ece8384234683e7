"""Pictures with the objects that were found on them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from numbanet.vision.draw import text_font

COLOURS = ((214, 39, 40), (31, 119, 180), (44, 160, 44), (255, 127, 14), (148, 103, 189), (23, 190, 207), (227, 119, 194), (140, 86, 75),
           (188, 189, 34), (57, 59, 121))
SHORTEST, LARGEST = 480, 2000           # pixels: small pictures are enlarged, so that names can be read


def draw_objects(picture: Image.Image, objects: dict, classes) -> Image.Image:
    """A copy of a picture with boxes, names and scores.

    Parameters
    ----------
    picture : Pillow, RGB
    objects : dict of boxes (K, 4), labels (K,) and, where there are some, scores (K,)
    classes : names of the labels
    """
    enlarged = max(1, min(-(-SHORTEST // max(picture.size)), LARGEST // max(picture.size)))
    made = picture.resize([enlarged * n for n in picture.size], Image.Resampling.BICUBIC if enlarged > 1 else Image.Resampling.NEAREST)
    draw, unit = ImageDraw.Draw(made), max(made.size) / 640
    font, thick = text_font(max(11, round(14 * unit))), max(2, round(2 * unit))
    order = range(len(objects["boxes"]))[::-1]          # the surest last, over all others
    marks = []
    for i in order:
        label = int(objects["labels"][i])
        colour = COLOURS[label % len(COLOURS)]
        left, top, right, bottom = (np.asarray(objects["boxes"][i], np.float64) * enlarged).tolist()
        draw.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour, width=thick)
        marks.append((left, top, bottom, colour, f"{classes[label]} {objects['scores'][i]:.2f}" if "scores" in objects else classes[label]))
    for left, top, bottom, colour, text in marks:
        text = text.encode("ascii", "replace").decode()
        _, _, wide, high = draw.textbbox((0, 0), text, font)
        wide, high = wide + 6, high + 4
        x = min(max(left, 0), made.size[0] - wide)
        y = top - high if top >= high else min(bottom, made.size[1] - high)
        draw.rectangle((x, y, x + wide, y + high), colour)
        draw.text((x + 3, y + 1), text, "white" if sum(colour) < 480 else "black", font)
    return made
