"""What the page asks for, computed: every answer is a dict that JSON can hold."""

from __future__ import annotations

import base64
import io
import math
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

import numbanet
from numbanet.data.images import load_image
from numbanet.errors import NumbanetError, UsageError
from numbanet.geometry import conv_geometry
from numbanet.segmentation.drawing import overlay as label_overlay
from numbanet.train.prediction import Classifier
from numbanet.vision.cam import GradCAM
from numbanet.vision.classical import FILTERS, convolve, filter_pixels, parse_filter
from numbanet.vision.colours import colour_table
from numbanet.vision.explaining import Explanation, explain, overlay
from numbanet.vision.features import strongest_maps
from numbanet.vision.layers import find_layer, last_maps, record_activations, recording
from numbanet.vision.units import dissect

MAX_PIXELS = 40_000_000
KEPT = 4                    # pictures whose activations stay, so that their units can be asked for
KEPT_BYTES = 1 << 29        # of activations, beyond which older pictures go before
MAPS, VECTOR = 12, 256      # of a layer, sent to the page
LONGEST = 64                # side of a map that is sent; larger ones are averaged
FILTERED = 320              # longer side of a picture for the classical filters


class Gone(NumbanetError):
    """The activations of a picture are no longer there."""


@dataclass
class Look:
    """A picture that went through the network."""

    x: object
    picture: np.ndarray
    activations: list
    probabilities: np.ndarray
    labels: np.ndarray | None = None        # of the pixels, where the network gives them

    @property
    def nbytes(self) -> int:
        return sum(a.output.nbytes for a in self.activations)


class Explorer:
    """A classifier, and the last pictures that went through it."""

    def __init__(self, classifier: Classifier, name: str, trained: bool = True):
        self.classifier, self.name, self.trained = classifier, name, trained
        self._looks: OrderedDict[str, Look] = OrderedDict()

    def model(self) -> dict:
        """What the page shows before a picture comes."""
        C, H, W = self.classifier.preprocessing.input_size
        parameters = sum(p.numel() for p in self.classifier.model.parameters())
        return {"name": self.name, "trained": self.trained, "input": [C, H, W], "parameters": parameters,
                "digits": self.classifier.preprocessing.digits, "device": str(self.classifier.device),
                "colours": {name: _coded(colour_table(name)) for name in ("maps", "signed", "heat")},
                "filters": [{"name": f.name, "kernel": f.array.tolist(), "note": f.note} for f in FILTERS.values()]}

    def look(self, data: bytes) -> dict:
        """A picture through the network: layers, best classes, and where the first of them was seen."""
        started = time.perf_counter()
        preprocessing = self.classifier.preprocessing
        pixels = preprocessing.pixels(_decoded(data, preprocessing.mode))
        values = preprocessing.batch_transform()(pixels[None])
        x = numbanet.tensor(values, device=self.classifier.device)
        cam, activations, probabilities = self._run(x)
        look = Look(x, preprocessing.picture(values[0]), activations, probabilities)
        key = secrets.token_urlsafe(9)
        self._looks[key] = look
        if isinstance(cam, np.ndarray):
            look.labels = cam
        while len(self._looks) > 1 and (len(self._looks) > KEPT or sum(kept.nbytes for kept in self._looks.values()) > KEPT_BYTES):
            self._looks.popitem(last=False)
        order = np.argsort(-look.probabilities, kind="stable")[:5]
        answer = {"id": key, "picture": _png(look.picture), "size": list(look.picture.shape[:2]),
                  "top": [{"class": int(k), "name": self._name(int(k)), "probability": float(look.probabilities[k])} for k in order],
                  "layers": [_layer(i, a) for i, a in enumerate(activations)], "cam": self._shown_cam(look, int(order[0]), cam)}
        answer["milliseconds"] = 1000 * (time.perf_counter() - started)
        return answer

    def cam(self, key: str, category: int) -> dict:
        """Where a class was seen."""
        return self._cam(self._look(key), category)

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
        x = numbanet.tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1)), dtype=numbanet.float32, device=self.classifier.device)
        answer = {"picture": _png(pixels), "size": list(pixels.shape[:2]), "kernel": chosen.array.tolist(), "note": chosen.note}
        for mode in ("correlation", "convolution"):
            y = convolve(x, chosen.array, mode, stride, "same" if padding is None else padding, dilation).numpy()
            shown, how = filter_pixels(chosen.array, y)
            answer[mode] = {"picture": _png(shown), "size": list(y.shape[1:]), "low": float(y.min()), "high": float(y.max()), "how": how}
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

    def _name(self, category: int) -> str:
        classes = self.classifier.classes
        return classes[category] if classes and category < len(classes) else f"class {category}"

    def _labelled(self, x):
        """A network that labels pixels: (its picture in place of Grad-CAM's, activations, mean probabilities)."""
        activations, output = record_activations(self.classifier.model, x)
        found = numbanet.softmax(output, 1).numpy()[0]
        return found.argmax(0).astype(np.uint8), activations, found.mean((1, 2))

    def _run(self, x):
        """One pass: (Grad-CAM of the best class or the reason why there is none, activations, probabilities); of a network that labels
        pixels the labels take the place of Grad-CAM."""
        model = self.classifier.model
        if self.classifier.metadata.get("task") == "segmentation":
            return self._labelled(x)
        try:
            layer = last_maps(model, x)
            used = GradCAM(model, [find_layer(model, layer)])
            with recording(model) as activations:
                cam = Explanation("gradcam", used(x)[0], layer, [])
        except NumbanetError as error:
            cam = error
            activations, _ = record_activations(model, x)
            return cam, activations, self.classifier.probabilities_of(x)
        return cam, activations, self.classifier.as_probabilities(used.outputs.detach())

    def _cam(self, look: Look, category: int) -> dict:
        if not 0 <= category < len(look.probabilities):
            raise UsageError(f"class: expected 0 to {len(look.probabilities) - 1}, received {category}")
        if look.labels is not None:         # the pixels of that class alone
            return self._shown_cam(look, category, np.where(look.labels == category, look.labels, 0).astype(np.uint8))
        try:
            found = explain(self.classifier.model, look.x, "gradcam", category)
        except NumbanetError as error:
            found = error
        return self._shown_cam(look, category, found)

    def _shown_cam(self, look: Look, category: int, found) -> dict:
        if isinstance(found, np.ndarray):
            picture = label_overlay(look.picture, found, self.classifier.classes)
            return {"class": category, "name": self._name(category), "layer": "labels of the pixels", "picture": _png(picture)}
        if isinstance(found, NumbanetError):
            return {"class": category, "error": str(found)}
        height, width = found.map.shape
        rgb = np.broadcast_to(look.picture.reshape(height, width, -1), (height, width, 3)) / 255
        return {"class": category, "name": self._name(category), "layer": found.layer, "picture": _png(overlay(rgb, found.map, True))}


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
            coded = np.nan_to_num(np.clip(np.round(255 * (shown - low) / span), 0, 255)).astype(np.uint8)
        return answer | {"low": _finite(low), "high": _finite(high), "colours": "signed" if low < 0 else "maps",
                         "shown": list(shown.shape[1:]), "maps": [{"index": m.index, "low": _finite(m.low), "high": _finite(m.high),
                                                                   "data": _coded(c)} for m, c in zip(maps, coded)]}
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


def _png(pixels: np.ndarray) -> str:
    from PIL import Image
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _coded(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _table(values):
    return None if values is None else [[_finite(float(v)) for v in row] for row in values]


def _finite(value):
    """None for what JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else value


def _short(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"
