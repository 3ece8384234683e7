"""Occlusion: by how much a score falls where a square of the picture is covered (Zeiler and Fergus, ECCV 2014)."""

from __future__ import annotations

import numpy as np

import numbanet
from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.errors import UsageError
from numbanet.nn import Module
from numbanet.vision.cam import scale_to_one
from numbanet.vision.gradients import BATCH, PixelMethod
from numbanet.vision.layers import evaluating


class Occlusion(PixelMethod):
    """The mean fall of the score over all squares that cover a pixel.

    Parameters
    ----------
    window : int, optional
        Side of the square in pixels; by default a sixth of the picture's shorter side.
    stride : int, optional
        Pixels between squares; by default half of the window. Squares reach over the border, so that every pixel is covered as often.
    fill : Tensor or float
        What the square is filled with: a number, or a value for each channel (C, 1, 1).
    """

    def __init__(self, model: Module, window: int | None = None, stride: int | None = None, fill: Tensor | float = 0.0):
        super().__init__(model)
        for name, value in (("window", window), ("stride", stride)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"occlusion: {name} expects an integer of at least 1, received {value!r}")
        if window is not None and stride is not None and stride > window:
            raise UsageError(f"occlusion: a stride of {stride} leaves gaps between squares of {window}; expected at most {window}")
        self.window, self.stride, self.fill = window, stride, fill

    def attribute(self, input_tensor, targets=None):
        """(N, 1, H, W): one value for all channels."""
        targets = self._targets(input_tensor, targets)
        H, W = input_tensor.shape[2:]
        window = self.window or max(1, round(min(H, W) / 6))
        stride = self.stride or max(1, window // 2)
        squares = [(y, x) for y in _starts(H, window, stride) for x in _starts(W, window, stride)]
        falls = np.zeros((len(input_tensor), 1, H, W))
        covered = np.zeros((H, W))
        for y, x in squares:
            covered[max(y, 0):y + window, max(x, 0):x + window] += 1
        with evaluating(self.model), no_grad():
            for i, (image, target) in enumerate(zip(input_tensor.detach().split(1), targets)):
                whole = float(target(self.model(image)[0]).item())
                for first in range(0, len(squares), BATCH):
                    some = squares[first:first + BATCH]
                    masks = np.zeros((len(some), 1, H, W), np.float32)
                    for mask, (y, x) in zip(masks, some):
                        mask[0, max(y, 0):y + window, max(x, 0):x + window] = 1
                    mask = numbanet.tensor(masks, dtype=image.dtype, device=image.device)
                    for (y, x), output in zip(some, self.model(image * (1 - mask) + mask * self.fill)):
                        falls[i, 0, max(y, 0):y + window, max(x, 0):x + window] += whole - float(target(output).item())
        return numbanet.tensor(falls / covered, dtype=input_tensor.dtype, device=input_tensor.device)

    def __call__(self, input_tensor, targets=None):
        """Maps between 0 and 1, float32 (N, H, W); where covering raises the score, 0."""
        return scale_to_one(np.maximum(self.attribute(input_tensor, targets).numpy()[:, 0], 0))


def _starts(n: int, window: int, stride: int) -> range:
    """First pixels of the squares: from one that covers the first pixel only to one that covers the last."""
    return range(1 - window + (window - 1) % stride, n, stride)
