"""A trained classifier, with all that it needs, from a run or a file of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import numbanet
from numbanet.errors import CheckpointError
from numbanet.train.preprocessing import Preprocessing
from numbanet.weights import load_weights
from numbanet.zoo import create_model


class Classifier:
    """Names what is on a picture."""

    def __init__(self, model, classes, preprocessing: Preprocessing, device: str = "cpu"):
        self.model, self.classes, self.preprocessing, self.device = model.to(device).eval(), classes, preprocessing, device
        self._transform = preprocessing.batch_transform()

    def __call__(self, source, top: int = 3, raw: bool = False) -> list[dict]:
        """The `top` most probable classes of an image (path or open file): [{"class": ..., "probability": ...}].

        Raises
        ------
        DataError
            Not an image, broken, too large, or no ink on a picture of a digit.
        """
        pixels = self.preprocessing.read(source, raw)
        with numbanet.no_grad():
            logits = self.model(numbanet.tensor(self._transform(pixels[None]), device=self.device))
            probabilities = numbanet.softmax(logits, 1).numpy()[0]
        order = np.argsort(-probabilities, kind="stable")[:top]
        return [{"class": self.classes[i], "probability": float(probabilities[i])} for i in order]


def load_classifier(path, device: str = "cpu") -> Classifier:
    """The classifier of a run folder (its best weights) or of a .safetensors file that `numbanet train` wrote."""
    path = Path(path)
    file = path / "weights" / "best.safetensors" if path.is_dir() else path
    if not file.exists():
        what = f"{path} has no weights yet" if path.is_dir() else f"{path} does not exist"
        raise CheckpointError(f"{what}; expected a run folder or a .safetensors file written by 'numbanet train'")
    arrays, metadata = load_weights(file)
    missing = [k for k in ("model", "num_classes", "in_chans", "classes", "preprocessing") if k not in metadata]
    if missing:
        raise CheckpointError(f"{file}: the weights do not say their {', '.join(missing)}; expected a file written by 'numbanet train'")
    preprocessing = Preprocessing.from_metadata(metadata["preprocessing"])
    classes, num_classes, in_chans = metadata["classes"], metadata["num_classes"], metadata["in_chans"]
    if not isinstance(classes, list) or len(classes) != num_classes or in_chans != preprocessing.input_size[0]:
        raise CheckpointError(f"{file}: the weights contradict themselves: {num_classes} classes, named {classes}, {in_chans} channels, "
                              f"input {preprocessing.input_size}; expected a file written by 'numbanet train'")
    model = create_model(metadata["model"], num_classes=num_classes, in_chans=in_chans)
    model.load_state_dict(arrays)
    return Classifier(model, classes, preprocessing, device)
