"""MixUp (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019): batches of mixed samples, with torchvision's names.

Each sample is mixed with its neighbour in the batch, by a share lam ~ Beta(alpha, alpha) that is drawn once a batch. Targets become
probabilities of classes. What is drawn comes from numbanet's default generator.
"""

from __future__ import annotations

import numpy as np

from numbanet._tensor import Tensor, tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.data.randomness import generator_of
from numbanet.errors import DTypeError, IndexRangeError, ShapeError, UsageError
from numbanet.random import default_generator


def class_probabilities(target, num_classes: int | None, label_smoothing: float = 0.0) -> Tensor:
    """(N,) class indices as float32 (N, num_classes); probabilities stay. Smoothing spreads a share evenly over all classes."""
    target = target if isinstance(target, Tensor) else tensor(np.asarray(target))
    values = target.detach().numpy()
    if values.dtype.kind == "f":
        made = values
    else:
        if num_classes is None:
            raise UsageError("mixing and label smoothing need to know the number of classes; pass num_classes=")
        if values.ndim != 1:
            raise ShapeError(f"mixing and label smoothing expect targets (N,), received {values.shape}")
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise IndexRangeError(f"target: expected classes from 0 to {num_classes - 1}, received {values.min()} to {values.max()}")
        made = np.zeros((len(values), num_classes), np.float32)
        made[np.arange(len(values)), values] = 1.0
    if label_smoothing:
        made = made * np.float32(1 - label_smoothing) + np.float32(label_smoothing / made.shape[1])
    return tensor(made, device=target.device)


class _Mixing:
    def __init__(self, *, alpha: float = 1.0, num_classes: int | None = None):
        if not 0 < alpha < float("inf"):
            raise UsageError(f"{type(self).__name__}: alpha expects a number above 0, received {alpha}")
        self.alpha, self.num_classes = alpha, num_classes

    def __call__(self, x: Tensor, target: Tensor, generator: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Mixed inputs and probabilities of classes, in memory of their own."""
        if not x.is_floating_point():
            raise DTypeError(f"{type(self).__name__}: expected floating-point inputs, received {x.dtype}")
        generator = generator_of(default_generator()) if generator is None else generator
        probabilities = class_probabilities(target, self.num_classes)
        with no_grad():
            mixed, lam = self.mix(x, float(generator.beta(self.alpha, self.alpha)), generator)
            return mixed, probabilities * lam + probabilities.roll(1, 0) * (1 - lam)

    def mix(self, x: Tensor, lam: float, generator) -> tuple[Tensor, float]:
        """The mixed inputs, and the share of each sample itself."""
        raise NotImplementedError

    def __repr__(self):
        return f"{type(self).__name__}(alpha={self.alpha}, num_classes={self.num_classes})"


class MixUp(_Mixing):
    """lam * x + (1 - lam) * neighbour.

    Parameters
    ----------
    alpha : float
        Of the Beta distribution: small ones mix little.
    num_classes : int
        Where targets are class indices; inside of a Trainer the model's.
    """

    def mix(self, x, lam, generator):
        return x * lam + x.roll(1, 0) * (1 - lam), lam


class CutMix(_Mixing):
    """A box of the neighbour, of the share 1 - lam of the area, is pasted; what lies outside of the picture is cut off.

    Parameters are those of :class:`MixUp`.
    """

    def mix(self, x, lam, generator):
        if x.ndim != 4:
            raise ShapeError(f"CutMix: expected images (N, C, H, W), received shape {tuple(x.shape)}")
        height, width = x.shape[2:]
        row, column = int(generator.integers(height)), int(generator.integers(width))
        half = 0.5 * (1 - lam) ** 0.5
        top, bottom = max(row - int(half * height), 0), min(row + int(half * height), height)
        left, right = max(column - int(half * width), 0), min(column + int(half * width), width)
        mixed = x.clone()
        if top < bottom and left < right:
            mixed[:, :, top:bottom, left:right] = x.roll(1, 0)[:, :, top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / (height * width)
