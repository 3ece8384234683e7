"""A classifier from an ONNX file: class names and preprocessing come with it, from a JSON file beside it, or are ImageNet's usual ones."""

from __future__ import annotations

import logging

import numpy as np

from numbanet.errors import CheckpointError, UsageError
from numbanet.nn import Module
from numbanet.train.prediction import Classifier, check_classes, read_metadata
from numbanet.train.preprocessing import Preprocessing
from numbanet.zoo.registry import IMAGENET

logger = logging.getLogger("numbanet.predict")

USUAL_SIZE, USUAL_CROP = 224, 0.875         # of networks for ImageNet: the middle of a picture scaled to 256


class ChannelsFirst(Module):
    """A model of images (N, H, W, C) as one of (N, C, H, W)."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.permute(0, 2, 3, 1).contiguous())


class OnnxClassifier(Classifier):
    """A :class:`Classifier` around an OnnxModel: of images (N, C, H, W) or (N, H, W, C), giving scores or probabilities."""

    def __init__(self, model, classes, preprocessing: Preprocessing, channels_last: bool, device: str = "cpu"):
        super().__init__(ChannelsFirst(model) if channels_last else model, classes, preprocessing, device)

    def as_probabilities(self, output) -> np.ndarray:
        """What the network answered to one input, as probabilities."""
        found = next(iter(output.values())) if isinstance(output, dict) else output
        scores = np.asarray(found, np.float64).reshape(-1)
        if scores.min(initial=0) >= 0 and abs(scores.sum() - 1) < 1e-3:         # the network ends in a softmax
            return scores
        scores = np.exp(scores - scores.max(initial=-np.inf))
        return scores / scores.sum()


def load_onnx_classifier(path, device: str = "cpu", metadata=None) -> OnnxClassifier:
    """The classifier of an ONNX model.

    Parameters
    ----------
    path : of the model; its one input is a batch of images
    metadata : path of a JSON file, optional
        ``{"classes": [...], "preprocessing": {...}}`` instead of what the model carries; each may be absent.

    Raises
    ------
    UsageError
        The model does not take one batch of images.
    CheckpointError
        The metadata are damaged, or those of a detector.
    """
    from numbanet.onnx import load
    model = load(path)
    known = model.numbanet_metadata() if metadata is None else read_metadata(metadata)
    if known.get("task") == "detection":
        raise CheckpointError(f"{path}: the network is a detector's, which names objects and where they are: numbanet detect, with the run "
                              "or the weights that it was exported from")
    channels_last, size = _image_size(path, model)
    if "preprocessing" in known:
        preprocessing = Preprocessing.from_metadata(known["preprocessing"])
    else:
        preprocessing = _usual(size)
        logger.warning("%s does not say how pictures become its input; they are scaled to %s x %s pixels and normalised as for ImageNet",
                       path, *size[1:])
    classes = known.get("classes")
    if classes is not None:
        check_classes(metadata or path, classes)
    return OnnxClassifier(model, classes, preprocessing, channels_last, device)


def _image_size(path, model) -> tuple[bool, tuple[int, int, int]]:
    """(whether channels are the last axis, (C, H, W)) of the model's input."""
    if len(model.inputs) != 1 or model.inputs[0].shape is None or len(model.inputs[0].shape) != 4:
        described = ", ".join(f"{d.name} {d.shape}" for d in model.inputs)
        raise UsageError(f"{path}: expected a model of one batch of images (N, C, H, W), its inputs are {described or 'none'}")
    _, *sizes = (n if isinstance(n, int) else None for n in model.inputs[0].shape)
    channels_last = sizes[0] not in (1, 3) and sizes[2] in (1, 3)
    C, H, W = (sizes[2], *sizes[:2]) if channels_last else sizes
    return channels_last, (C or 3, H or W or USUAL_SIZE, W or H or USUAL_SIZE)


def _usual(size) -> Preprocessing:
    C, H, W = size
    if C not in (1, 3):
        raise UsageError(f"expected a model of pictures with 1 or 3 channels, its input has {C}")
    values = IMAGENET if C == 3 else {"mean": (0.5,), "std": (0.5,)}
    return Preprocessing(size, (H, W), **values, resize=round(max(H, W) / USUAL_CROP))
