"""What the page asks for, computed: every answer is a dict that JSON can hold."""

from __future__ import annotations

import base64
import io
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import numbanet
from numbanet.data.images import load_image
from numbanet.errors import DataError, NumbanetError, UsageError
from numbanet.explore.coding import coded, png
from numbanet.explore.subjects import Look, subject_of
from numbanet.geometry import conv_geometry
from numbanet.vision.classical import FILTERS, convolve, filter_pixels, parse_filter
from numbanet.vision.colours import colour_table
from numbanet.vision.features import strongest_maps
from numbanet.vision.units import dissect

MAX_PIXELS = 40_000_000
KEPT = 4                    # pictures whose activations stay, so that their units can be asked for
KEPT_BYTES = 1 << 29        # of activations, beyond which older pictures go before
MAPS, VECTOR = 12, 256      # of a layer, sent to the page
LONGEST = 64                # side of a map that is sent; larger ones are averaged
FILTERED = 320              # longer side of a picture for the classical filters
SAMPLES, SMALL = 12, 96     # pictures to begin with, and the longer side of their small copies


class Gone(NumbanetError):
    """The activations of a picture are no longer there."""


class Explorer:
    """A network, and the last pictures that went through it.

    Parameters
    ----------
    opened : Classifier, Segmenter or ObjectDetector
    name : str
    trained : bool
        Whether its weights are of a training.
    samples : paths
        Of pictures to begin with.
    """

    def __init__(self, opened, name: str, trained: bool = True, samples: Sequence[Path] = ()):
        self.subject, self.name, self.trained = subject_of(opened), name, trained
        self._samples = list(samples)[:SAMPLES]
        self._looks: OrderedDict[str, Look] = OrderedDict()

    def model(self) -> dict:
        """What the page shows before a picture comes."""
        subject = self.subject
        return {"name": self.name, "trained": self.trained, "task": subject.task, **subject.facts(),
                "parameters": sum(p.numel() for p in subject.model.parameters()), "device": str(subject.device),
                "colours": {name: coded(colour_table(name)) for name in ("maps", "signed", "heat")},
                "filters": [{"name": f.name, "kernel": f.array.tolist(), "note": f.note} for f in FILTERS.values()]}

    def samples(self) -> dict:
        """Small copies of the pictures to begin with; those that cannot be read are left out."""
        made = []
        for number, path in enumerate(self._samples):
            try:
                picture = load_image(path, self.subject.mode, MAX_PIXELS)
            except NumbanetError:
                continue
            picture.thumbnail((SMALL, SMALL))
            made.append({"number": number, "name": path.stem, "picture": png(np.asarray(picture))})
        return {"samples": made}

    def sample(self, number: int) -> dict:
        """One of them, as its file is."""
        if not 0 <= number < len(self._samples):
            raise UsageError(f"number: expected 0 to {len(self._samples) - 1}, received {number}")
        try:
            return {"data": base64.b64encode(self._samples[number].read_bytes()).decode()}
        except OSError:
            raise DataError("the picture cannot be read any more") from None

    def look(self, data: bytes) -> dict:
        """A picture through the network: its layers, and what the network says of it."""
        started = time.perf_counter()
        look = self.subject.look(_decoded(data, self.subject.mode))
        key = secrets.token_urlsafe(9)
        self._looks[key] = look
        while len(self._looks) > 1 and (len(self._looks) > KEPT or sum(kept.nbytes for kept in self._looks.values()) > KEPT_BYTES):
            self._looks.popitem(last=False)
        answer = {"id": key, "picture": png(look.picture), "size": list(look.picture.shape[:2]), **look.answer,
                  "layers": [_layer(i, a) for i, a in enumerate(look.activations)]}
        look.answer = {}                    # is sent, and needed no more
        answer["milliseconds"] = 1000 * (time.perf_counter() - started)
        return answer

    def cam(self, key: str, category: int) -> dict:
        """Where a class was seen."""
        look = self._look(key)
        if look.probabilities is None:
            raise UsageError("class: a network that says itself where it sees what has no Grad-CAM")
        return self.subject.cam(look, category)

    def unit(self, key: str, layer: int, unit: tuple[int, ...]) -> dict:
        """One unit taken apart."""
        activations = self._look(key).activations
        if not 0 <= layer < len(activations):
            raise UsageError(f"layer: expected 0 to {len(activations) - 1}, received {layer}")
        found = dissect(activations[layer], unit)
        return {"layer": activations[layer].path, "layer_kind": activations[layer].kind, "unit": list(unit), "kind": found.kind,
                "value": _finite(found.value), "total": _finite(found.total), "bias": _finite(found.bias),
                "rest": {"sum": _finite(found.rest[0]), "count": found.rest[1]}, "window": found.window,
                "parts": [{"channel": p.channel, "patch": _table(p.patch), "kernel": _table(p.kernel), "products": _table(p.products),
                           "sum": _finite(p.total)} for p in found.parts]}

    def filtered(self, data: bytes, kernel: str, stride: int = 1, padding: int | None = None, dilation: int = 1) -> dict:
        """A picture through a classical filter, as cross-correlation and as convolution."""
        from PIL import Image
        chosen = parse_filter(kernel)
        picture = _decoded(data, "RGB")
        picture.thumbnail((FILTERED, FILTERED), Image.Resampling.BILINEAR)
        pixels = np.array(picture)
        x = numbanet.tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1)), dtype=numbanet.float32, device=self.subject.device)
        answer = {"picture": png(pixels), "size": list(pixels.shape[:2]), "kernel": chosen.array.tolist(), "note": chosen.note}
        for mode in ("correlation", "convolution"):
            y = convolve(x, chosen.array, mode, stride, "same" if padding is None else padding, dilation).numpy()
            shown, how = filter_pixels(chosen.array, y)
            answer[mode] = {"picture": png(shown), "size": list(y.shape[1:]), "low": float(y.min()), "high": float(y.max()), "how": how}
        return answer

    @staticmethod
    def size(n: int, kernel: int, stride: int, padding: int, dilation: int) -> dict:
        """The output size of a window along one axis, and where its windows lie."""
        for name, value, low, high in (("input", n, 1, 64), ("kernel", kernel, 1, 15), ("stride", stride, 1, 8), ("padding", padding, 0, 8),
                                       ("dilation", dilation, 1, 6)):
            if not low <= value <= high:
                raise UsageError(f"{name}: expected {low} to {high}, received {value}")
        extent = dilation * (kernel - 1) + 1
        steps = (n + 2 * padding - extent) / stride
        answer = {"n": n, "kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "extent": extent,
                  "quotient": steps + 1, "fits": steps >= 0 and steps == int(steps),
                  "formula": f"({n} - {extent} + 2*{padding}) / {stride} + 1 = {_short(steps + 1)}"}
        if steps < 0:
            return answer | {"output": 0, "starts": [], "unread": 0}
        geometry = conv_geometry(1, 1, (n,), (kernel,), stride, padding, dilation)
        return answer | {"output": geometry.output_size[0], "unread": geometry.unread()[0],
                         "starts": [i * stride - padding for i in range(geometry.output_size[0])]}

    def _look(self, key: str) -> Look:
        if key not in self._looks:
            raise Gone("the picture is no longer held; send it again")
        self._looks.move_to_end(key)
        return self._looks[key]


def _decoded(data: bytes, mode: str):
    source = io.BytesIO(data)
    source.name = "picture"
    return load_image(source, mode, MAX_PIXELS)


def _layer(index: int, activation) -> dict:
    output = activation.output
    answer = {"index": index, "path": activation.path, "kind": activation.kind, "shape": list(output.shape[1:]),
              "milliseconds": 1000 * activation.seconds}
    if activation.is_map:
        maps = strongest_maps(output, MAPS)
        low, high = min(m.low for m in maps), max(m.high for m in maps)
        low, high = (-max(-low, high), max(-low, high)) if low < 0 else (low, high)
        shown = _reduced(np.stack([m.values for m in maps]))
        span = (high - low) or 1.0
        with np.errstate(invalid="ignore"):
            steps = np.nan_to_num(np.clip(np.round(255 * (shown - low) / span), 0, 255)).astype(np.uint8)
        return answer | {"low": _finite(low), "high": _finite(high), "colours": "signed" if low < 0 else "maps",
                         "shown": list(shown.shape[1:]), "maps": [{"index": m.index, "low": _finite(m.low), "high": _finite(m.high),
                                                                   "data": coded(c)} for m, c in zip(maps, steps)]}
    values = np.asarray(output.detach().numpy(), np.float64)[0].reshape(-1)
    order = np.sort(np.argsort(-np.abs(values), kind="stable")[:VECTOR])
    return answer | {"units": [{"index": int(i), "value": _finite(float(values[i]))} for i in order]}


def _reduced(maps: np.ndarray) -> np.ndarray:
    """(K, H, W), averaged over squares where a side is longer than LONGEST; the engine's mean pooling."""
    factor = math.ceil(max(maps.shape[1:]) / LONGEST)
    if factor == 1:
        return maps
    return numbanet.functional.avg_pool2d(numbanet.tensor(maps[None], dtype=numbanet.float32), factor, ceil_mode=True,
                                          count_include_pad=False).numpy()[0]


def _table(values):
    return None if values is None else [[_finite(float(v)) for v in row] for row in values]


def _finite(value):
    """None for what JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else value


def _short(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"
