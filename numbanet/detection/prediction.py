"""A trained detector, with all that it needs, from a run or a file of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import numbanet
from numbanet.data.images import load_image
from numbanet.detection.model import DecodedDetector, Detector, detector
from numbanet.detection.recipe import TASK
from numbanet.detection.samples import Fitting
from numbanet.detection.selection import MOST, OVERLAP, SURE, select
from numbanet.errors import CheckpointError, NumbanetError
from numbanet.weights import load_weights


class ObjectDetector:
    """Finds objects on pictures.

    Parameters
    ----------
    model : Detector
    classes : names of its classes
    fitting : Fitting
    device : str
    metadata : dict
        What stands with the weights.
    """

    def __init__(self, model: Detector, classes: list[str], fitting: Fitting, device: str = "cpu", metadata: dict | None = None):
        self.model, self.classes, self.fitting, self.device = model.to(device).eval(), classes, fitting, device
        self.metadata = metadata or {}
        self._compiled = None

    def detect(self, picture, threshold: float = SURE, overlap: float = OVERLAP, most: int = MOST) -> dict:
        """The objects on a picture (Pillow, RGB), the surest first: boxes (K, 4) in its pixels, scores (K,), labels (K,)."""
        _, x = self.input_of(picture)
        if self._compiled is None:
            self._compiled = numbanet.compile(DecodedDetector(self.model), x)
        boxes, scores = (part.numpy()[0] for part in self._compiled(x))
        return self.in_pixels_of(picture, select(boxes, scores, threshold, overlap, most))

    def input_of(self, picture):
        """(uint8 (H, W, 3), the network's input (1, 3, H, W)) of a Pillow image."""
        pixels = self.fitting.pixels(picture)
        return pixels, numbanet.tensor(self.fitting.normalized(pixels[None]), device=self.device)

    def in_pixels_of(self, picture, found: dict) -> dict:
        """What was found on the network's input, with boxes in the pixels of the picture."""
        edges = np.float32([*picture.size, *picture.size])
        return {**found, "boxes": np.clip(found["boxes"] / np.float32(self.fitting.scale(*picture.size)), 0, edges)}

    def __call__(self, source, threshold: float = SURE, overlap: float = OVERLAP, most: int = MOST) -> list[dict]:
        """The objects on an image (path or open file): [{"class": ..., "score": ..., "box": [left, top, right, bottom]}].

        Raises
        ------
        DataError
            Not an image, broken or too large.
        """
        return self.named(self.detect(load_image(source), threshold, overlap, most))

    def named(self, found: dict) -> list[dict]:
        """What :meth:`detect` gave, as plain values."""
        return [{"class": self.classes[label], "score": float(score), "box": [round(float(edge), 2) for edge in box]}
                for box, score, label in zip(found["boxes"], found["scores"], found["labels"])]


def is_detector(path) -> bool:
    """Whether a run folder, or a file of weights, is that of a detector; False for what cannot be read."""
    path = Path(path)
    try:
        return load_weights(path / "weights" / "best.safetensors" if path.is_dir() else path)[1].get("task") == TASK
    except NumbanetError:
        return False


def load_detector(path, device: str = "cpu") -> ObjectDetector:
    """The detector of a run folder (its best weights) or of a file of weights.

    Raises
    ------
    CheckpointError
        The weights cannot be read, are those of a classifier, or contradict themselves.
    """
    path = Path(path)
    file = path / "weights" / "best.safetensors" if path.is_dir() else path
    if not file.exists():
        what = f"{path} has no weights yet" if path.is_dir() else f"{path} does not exist"
        raise CheckpointError(f"{what}; expected the run folder of a detector or a file of its weights")
    if file.suffix.lower() == ".onnx":
        raise CheckpointError(f"{file}: a .onnx file is for other programs; expected the run or the weights that it was exported from")
    arrays, stored = load_weights(file)
    if stored.get("task") != TASK:
        noun, verb, does = (("segmenter", "segment", "labels its pixels") if stored.get("task") == "segmentation" else
                            ("classifier", "predict", "names what is on a whole picture"))
        what = f"those of a {noun} ({stored['model']})" if isinstance(stored.get("model"), str) else "not those of a detector"
        remedy = f"; 'numbanet {verb}' {does}" if isinstance(stored.get("model"), str) else ""
        raise CheckpointError(f"{file}: the weights are {what}, which finds no boxes{remedy}; 'numbanet train detector' trains a detector")
    fitting = Fitting.from_metadata(stored.get("fitting"))
    classes = stored.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{file}: classes expects a list of names, received {type(classes).__name__}")
    try:
        model = detector(str(stored["trunk"]), len(classes), strides=tuple(stored["strides"]), channels=stored["channels"],
                         convolutions=stored["convolutions"], **stored["trunk_options"])
    except (KeyError, TypeError, NumbanetError) as error:
        raise CheckpointError(f"{file}: no detector can be made of what is stored with the weights ({error})") from None
    model.load_state_dict(arrays)
    return ObjectDetector(model, classes, fitting, device, stored)
