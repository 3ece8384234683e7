"""A trained segmenter, with all that it needs, from a run, a file of weights or an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import numbanet
from numbanet.data import load_image
from numbanet.errors import CheckpointError
from numbanet.nn import functional as F
from numbanet.train.prediction import Classifier, load_classifier


@dataclass
class Segmentation:
    """What was found on a picture.

    Attributes
    ----------
    picture : uint8 (H, W) or (H, W, 3)
    labels : uint8 (H, W)
        The class of each pixel of the picture, in its own size.
    confidence : float32 (H, W)
        The probability of that class.
    """

    picture: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray


class Segmenter:
    """Labels the pixels of pictures.

    Parameters
    ----------
    classifier : Classifier
        A network that gives (N, C, H, W), its classes and preprocessing.

    Raises
    ------
    CheckpointError
        The network is a classifier, or gives another number of classes than are named.
    """

    def __init__(self, classifier: Classifier):
        self.model, self.preprocessing, self.device = classifier.model, classifier.preprocessing, classifier.device
        shape = classifier.output_shape()
        if len(shape) != 4:
            raise CheckpointError(f"expected a network that labels pixels, (N, C, H, W), received one that gives {tuple(shape)}; a "
                                  "classifier names whole pictures: numbanet predict, or shows where it sees a class: numbanet heatmap")
        self.classes = list(classifier.classes or map(str, range(shape[1])))
        if len(self.classes) != shape[1]:
            raise CheckpointError(f"the model gives {shape[1]} classes, {len(self.classes)} are named")

    def input_of(self, picture):
        """The network's input (1, C, H, W) of a Pillow image."""
        return numbanet.tensor(self.preprocessing.batch_transform()(self.preprocessing.pixels(picture, raw=True)[None]), device=self.device)

    @staticmethod
    def labels_of(logits, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(labels uint8, confidence float32), both of `size` (H, W), of logits (1, classes, ...)."""
        with numbanet.no_grad():
            if tuple(logits.shape[2:]) != size:
                logits = F.interpolate(logits, size, mode="bilinear")
            found = F.softmax(logits, 1).numpy()[0]
        labels = found.argmax(0)
        return labels.astype(np.uint8), np.take_along_axis(found, labels[None], 0)[0]

    def __call__(self, source) -> Segmentation:
        """Label an image (path or open binary file).

        It is scaled to the size that the network was trained on; the logits are scaled back, bilinearly.

        Raises
        ------
        DataError
            Not an image, broken, or too large.
        """
        picture = load_image(source, self.preprocessing.mode)
        labels, confidence = self.labels(picture)
        return Segmentation(np.asarray(picture), labels, confidence)

    def labels(self, picture) -> tuple[np.ndarray, np.ndarray]:
        """(labels uint8, confidence float32) of a Pillow image, both (H, W) of its size."""
        with numbanet.no_grad():
            logits = self.model(self.input_of(picture))
        return self.labels_of(logits, picture.size[::-1])


def load_segmenter(path, device: str = "cpu", model: str | None = None, metadata=None) -> Segmenter:
    """As :func:`~numbanet.train.prediction.load_classifier`, of a run or weights that label pixels."""
    return Segmenter(load_classifier(path, device, model, metadata))
