"""What the page is about: a classifier, a segmenter or a detector, each with what it makes of a picture."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

import numbanet
from numbanet.detection import ObjectDetector, select
from numbanet.detection.drawing import COLOURS
from numbanet.detection.selection import SURE, THRESHOLD
from numbanet.errors import NumbanetError, UsageError
from numbanet.explore.coding import coded, png
from numbanet.segmentation import Segmenter
from numbanet.segmentation.drawing import class_colours, is_background
from numbanet.train.prediction import Classifier
from numbanet.vision.cam import GradCAM
from numbanet.vision.explaining import Explanation, explain, overlay
from numbanet.vision.layers import find_layer, last_maps, record_activations, recording

SHOWN = 1024                # longer side of a picture with boxes or labels over it


@dataclass
class Look:
    """A picture that went through the network."""

    x: object
    picture: np.ndarray                                     # as the network sees it
    activations: list
    probabilities: np.ndarray | None = None                 # of a classifier
    answer: dict = field(default_factory=dict)              # what the page shows beside the layers

    @property
    def nbytes(self) -> int:
        return sum(a.output.nbytes for a in self.activations)


def subject_of(opened):
    """Of a Classifier, which may turn out to label pixels, a Segmenter or an ObjectDetector."""
    if isinstance(opened, ObjectDetector):
        return DetectorSubject(opened)
    if isinstance(opened, Segmenter):
        return SegmenterSubject(opened)
    return SegmenterSubject(Segmenter(opened)) if opened.labels_pixels() else ClassifierSubject(opened)


class ClassifierSubject:
    """Names what is on a picture, and shows where it saw that."""

    task = "classification"
    mode = property(lambda self: self.classifier.preprocessing.mode)
    model = property(lambda self: self.classifier.model)
    device = property(lambda self: self.classifier.device)

    def __init__(self, classifier: Classifier):
        self.classifier = classifier

    def facts(self) -> dict:
        preprocessing = self.classifier.preprocessing
        return {"input": list(preprocessing.input_size), "digits": preprocessing.digits}

    def look(self, picture: Image.Image) -> Look:
        preprocessing = self.classifier.preprocessing
        values = preprocessing.batch_transform()(preprocessing.pixels(picture)[None])
        x = numbanet.tensor(values, device=self.device)
        cam, activations, probabilities = self._run(x)
        look = Look(x, preprocessing.picture(values[0]), activations, probabilities)
        order = np.argsort(-probabilities, kind="stable")[:5]
        look.answer = {"top": [{"class": int(k), "name": self._name(int(k)), "probability": float(probabilities[k])} for k in order],
                       "cam": self._shown_cam(look, int(order[0]), cam)}
        return look

    def cam(self, look: Look, category: int) -> dict:
        """Where a class was seen."""
        if not 0 <= category < len(look.probabilities):
            raise UsageError(f"class: expected 0 to {len(look.probabilities) - 1}, received {category}")
        try:
            found = explain(self.model, look.x, "gradcam", category)
        except NumbanetError as error:
            found = error
        return self._shown_cam(look, category, found)

    def _name(self, category: int) -> str:
        classes = self.classifier.classes
        return classes[category] if classes and category < len(classes) else f"class {category}"

    def _run(self, x):
        """One pass: (Grad-CAM of the best class or the reason why there is none, activations, probabilities)."""
        model = self.model
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

    def _shown_cam(self, look: Look, category: int, found) -> dict:
        if isinstance(found, NumbanetError):
            return {"class": category, "error": str(found)}
        height, width = found.map.shape
        rgb = np.broadcast_to(look.picture.reshape(height, width, -1), (height, width, 3)) / 255
        return {"class": category, "name": self._name(category), "layer": found.layer, "picture": png(overlay(rgb, found.map, True))}


class SegmenterSubject:
    """Names the class of every pixel."""

    task = "segmentation"
    mode = property(lambda self: self.segmenter.preprocessing.mode)
    model = property(lambda self: self.segmenter.model)
    device = property(lambda self: self.segmenter.device)

    def __init__(self, segmenter: Segmenter):
        self.segmenter = segmenter

    def facts(self) -> dict:
        return {"input": list(self.segmenter.preprocessing.input_size), "digits": False, "classes": list(self.segmenter.classes)}

    def look(self, picture: Image.Image) -> Look:
        segmenter, shown = self.segmenter, _shown(picture)
        x = segmenter.input_of(picture)
        activations, logits = record_activations(self.model, x)
        labels, confidence = segmenter.labels_of(logits, shown.size[::-1])
        classes, counts = segmenter.classes, np.bincount(labels.reshape(-1), minlength=len(segmenter.classes))
        colours = class_colours(classes)
        order = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
        percent = np.round(100 * confidence).astype(np.uint8)
        answer = {"shown": png(np.asarray(shown)), "shape": list(labels.shape), "labels": coded(labels), "confidence": coded(percent),
                  "classes": [{"class": k, "name": classes[k], "colour": colours[k].tolist(), "share": float(counts[k] / labels.size),
                               "drawn": not is_background(k, classes[k])} for k in order]}
        return Look(x, segmenter.preprocessing.picture(x.numpy()[0]), activations, answer={"segmentation": answer})


class DetectorSubject:
    """Says what is on a picture and where."""

    task = "detection"
    mode = "RGB"
    model = property(lambda self: self.detector.model)
    device = property(lambda self: self.detector.device)

    def __init__(self, detector: ObjectDetector):
        self.detector = detector

    def facts(self) -> dict:
        return {"input": [3, *self.detector.fitting.size], "digits": False, "classes": list(self.detector.classes),
                "threshold": SURE, "lowest": THRESHOLD}

    def look(self, picture: Image.Image) -> Look:
        """All objects down to the lowest score that the page may ask for: what suppression leaves above a score does not depend on what
        is below it."""
        detector = self.detector
        pixels, x = detector.input_of(picture)
        activations, raw = record_activations(self.model, x)
        boxes, scores = (part.numpy()[0] for part in self.model.decode(raw))
        found = detector.in_pixels_of(picture, select(boxes, scores, THRESHOLD))
        objects = [{**named, "label": int(label), "colour": COLOURS[label % len(COLOURS)]}
                   for named, label in zip(detector.named(found), found["labels"])]
        return Look(x, pixels, activations, answer={"detection": {
            "shown": png(np.asarray(_shown(picture))), "shape": [picture.size[1], picture.size[0]], "objects": objects}})


def _shown(picture: Image.Image) -> Image.Image:
    """As large as the page needs it."""
    scale = min(1.0, SHOWN / max(picture.size))
    return picture if scale == 1 else picture.resize([max(1, round(n * scale)) for n in picture.size], Image.Resampling.BILINEAR)
