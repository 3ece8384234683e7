"""A trained classifier, with all that it needs, from a run or a file of weights."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

import numpy as np

import numbanet
from numbanet.errors import CheckpointError
from numbanet.train.preprocessing import Preprocessing
from numbanet.weights import load_weights
from numbanet.zoo import create_model, model_info

OF_SEGMENTERS = "the network is a segmenter's, which labels the pixels of a picture and not the whole: numbanet segment"


class Classifier:
    """Names what is on a picture; without names of classes, by their numbers."""

    def __init__(self, model, classes: list[str] | None, preprocessing: Preprocessing, device: str = "cpu", metadata: dict | None = None):
        self.model, self.classes, self.preprocessing, self.device = model.to(device).eval(), classes, preprocessing, device
        self.metadata = metadata or {}          # what stands with the weights, and what was told instead
        self._transform = preprocessing.batch_transform()

    def output_shape(self) -> tuple[int, ...]:
        """Of what the network makes of one picture."""
        blank = np.zeros((1, *self.preprocessing.picture_shape), np.uint8)
        with numbanet.no_grad():
            output = self.model(numbanet.tensor(self._transform(blank), device=self.device))
        return tuple((next(iter(output.values())) if isinstance(output, dict) else output).shape)

    def labels_pixels(self) -> bool:
        """Whether it is a segmenter's network, which gives (N, C, H, W)."""
        return self.metadata.get("task") == "segmentation" or len(self.output_shape()) == 4

    def probabilities(self, pixels) -> np.ndarray:
        """Of the classes, for one picture of the preprocessing's size."""
        return self.probabilities_of(numbanet.tensor(self._transform(pixels[None]), device=self.device))

    def probabilities_of(self, x) -> np.ndarray:
        """Of the classes, for one network input (1, C, H, W)."""
        with numbanet.no_grad():
            output = self.model(x)
        if output.ndim == 4:
            raise CheckpointError(OF_SEGMENTERS)
        return self.as_probabilities(output)

    def as_probabilities(self, output) -> np.ndarray:
        """What the network answered to one input, as probabilities."""
        return numbanet.softmax(output, 1).numpy()[0]

    def __call__(self, source, top: int = 3, raw: bool = False) -> list[dict]:
        """The `top` most probable classes of an image (path or open file): [{"class": ..., "probability": ...}].

        Raises
        ------
        DataError
            Not an image, broken, too large, or no ink on a picture of a digit.
        CheckpointError
            The model gives another number of classes than are named.
        """
        probabilities = self.probabilities(self.preprocessing.read(source, raw))
        classes = self.classes or [str(i) for i in range(len(probabilities))]
        if len(classes) != len(probabilities):
            raise CheckpointError(f"the model gives {len(probabilities)} classes, {len(classes)} are named")
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [{"class": classes[i], "probability": float(probabilities[i])} for i in order]


def load_classifier(path, device: str = "cpu", model: str | None = None, metadata=None) -> Classifier:
    """The classifier of a run folder (its best weights) or of a file of weights.

    Parameters
    ----------
    path : of the folder, or of a file that :func:`numbanet.load_weights` reads
    model : str, optional
        Of what network the weights are, where they do not say it themselves. The preprocessing is then the model's usual one.
    metadata : path of a JSON file, optional
        What :func:`read_metadata` reads, in place of what the weights carry.

    Raises
    ------
    CheckpointError
        The weights cannot be read, do not fit the model, or do not say what it is.
    """
    path = Path(path)
    file = path / "weights" / "best.safetensors" if path.is_dir() else path
    if not file.exists():
        what = f"{path} has no weights yet" if path.is_dir() else f"{path} does not exist{_nearest(path)}"
        raise CheckpointError(f"{what}; expected a run folder or a file of weights (.safetensors, .npz, .pt, .pth)")
    arrays, stored = load_weights(file)
    stored = stored | ({} if model is None else {"model": model}) | ({} if metadata is None else read_metadata(metadata))
    if stored.get("task") == "detection":
        raise CheckpointError(f"{file}: the weights are those of a detector, which names objects and where they are: numbanet detect")
    if not isinstance(stored.get("model"), str):
        raise CheckpointError(f"{file}: the weights do not say of which model they are; name it with --model (see 'numbanet models')")
    info = model_info(stored["model"])
    preprocessing = Preprocessing.from_metadata(stored["preprocessing"]) if "preprocessing" in stored else Preprocessing.for_model(info)
    classes, in_chans = stored.get("classes"), stored.get("in_chans", info.input_size[0])
    if classes is not None:
        check_classes(file, classes)
        stored.setdefault("num_classes", len(classes))
    if classes is not None and len(classes) != stored["num_classes"] or in_chans != preprocessing.input_size[0]:
        raise CheckpointError(f"{file}: the weights contradict themselves: {stored.get('num_classes')} classes, named {classes}, "
                              f"{in_chans} channels, input {preprocessing.input_size}")
    stored = stored | {"in_chans": in_chans, "preprocessing": preprocessing.as_metadata()}
    options = stored.get("model_options") or {}
    try:
        made = create_model(stored["model"], weights=(arrays, stored), **options)
    except TypeError as error:
        raise CheckpointError(f"{file}: the options stored with the weights, {options}, are none of {stored['model']} ({error})") from None
    return Classifier(made, classes, preprocessing, device, stored)


def _nearest(path: Path) -> str:
    """A question about the name beside it that looks most like it, if any does."""
    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, 1)
    return f", did you mean {path.parent / close[0]}?" if close else ""


def read_metadata(path) -> dict:
    """``{"classes": [...], "preprocessing": {...}}`` of a JSON file; each may be absent."""
    try:
        found = json.loads(Path(path).read_text())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: expected {{\"classes\": ..., \"preprocessing\": ...}}, received {type(found).__name__}")
    return found


def check_classes(file, classes) -> None:
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{file}: classes expects a list of names, received {type(classes).__name__}")
