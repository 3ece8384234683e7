"""What pixels a score depends on, by its gradient.

    saliency               |d score / d x|                                        Simonyan and others, 2013
    smoothgrad             the mean of d score / d x over noisy copies of x       Smilkov and others, 2017
    integrated gradients   (x - b) * integral of d score / d x from b to x        Sundararajan and others, ICML 2017
    guided                 d score / d x, where ReLU passes what is above 0 only  Springenberg and others, 2014

Integrated gradients are complete: their sum is score(x) - score(b).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import numbanet
from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import enable_grad, no_grad
from numbanet.autograd.tape import grad
from numbanet.errors import ShapeError, UsageError
from numbanet.nn import Module
from numbanet.nn.joined import layers_apart
from numbanet.random import Generator
from numbanet.vision.cam import scale_to_one
from numbanet.vision.layers import evaluating
from numbanet.vision.targets import ClassifierOutputTarget, first_classes, total

BATCH = 16      # images that go through the network at once


class PixelMethod:
    """Base: :meth:`attribute` gives a value for every element of the input, the call a map between 0 and 1 for each image."""

    def __init__(self, model: Module):
        self.model = model

    def attribute(self, input_tensor: Tensor, targets=None) -> Tensor:
        """(N, C, H, W), with signs."""
        raise NotImplementedError

    def __call__(self, input_tensor: Tensor, targets=None) -> np.ndarray:
        """Maps between 0 and 1, float32 (N, H, W): the largest magnitude of the channels, the brightest percent clipped."""
        return self.scaled(self.attribute(input_tensor, targets))

    @staticmethod
    def scaled(attributions: Tensor) -> np.ndarray:
        """The maps of attributions."""
        magnitude = np.abs(attributions.numpy()).max(1)
        most = np.percentile(magnitude, 99.5, (1, 2), keepdims=True) if magnitude.size else magnitude
        return scale_to_one(np.minimum(magnitude, np.where(most > 0, most, np.inf)))

    def _targets(self, input_tensor: Tensor, targets):
        """Targets that stay the same whatever happens to the image: by default the class that is the first without changes."""
        if input_tensor.ndim != 4:
            raise ShapeError(f"{type(self).__name__}: expected images (N, C, H, W), received {tuple(input_tensor.shape)}")
        if targets is not None:
            if len(targets) != len(input_tensor):
                raise UsageError(f"targets: expected one for each of {len(input_tensor)} images, received {len(targets)}")
            return targets
        with evaluating(self.model), no_grad():
            return [ClassifierOutputTarget(k) for k in first_classes(self.model(input_tensor))]

    def _gradient(self, x: Tensor, targets) -> Tensor:
        """d total / d x, for a batch."""
        with evaluating(self.model), enable_grad(), layers_apart():
            leaf = x.detach().requires_grad_()
            outputs = self.model(leaf)
            self._prepare(outputs)
            return grad(total(outputs, targets), leaf)[0]

    def _prepare(self, outputs: Tensor) -> None:
        """Called before the sweep."""


class Saliency(PixelMethod):
    """The gradient of the score by the pixels."""

    def attribute(self, input_tensor, targets=None):
        targets = self._targets(input_tensor, targets)
        return self._gradient(input_tensor, targets)


class GuidedBackprop(Saliency):
    """The gradient that passes a ReLU only where it is above 0, as the activation is."""

    def _prepare(self, outputs):
        found, seen, stack = 0, set(), [outputs._record]
        while stack:
            record = stack.pop()
            if record is None or id(record) in seen:
                continue
            seen.add(id(record))
            if record.name in ("relu", "hardtanh"):         # ReLU6 is the latter
                record.hooks = {0: {id(record): lambda g: numbanet.relu(g)}}
                found += 1
            stack.extend(edge[0] for edge in record.edges if type(edge) is tuple)
        if not found:
            raise UsageError(f"guided: expects a network with ReLU, {type(self.model).__name__} runs none; use smoothgrad or "
                             "integrated-gradients")


class SmoothGrad(PixelMethod):
    """The mean gradient over copies of the image with noise.

    Parameters
    ----------
    n_samples : int
    noise : float
        Its standard deviation, as a share of the range of the image's values.
    seed : int
        Of the noise, which is the same on every backend.
    """

    def __init__(self, model: Module, n_samples: int = 32, noise: float = 0.15, seed: int = 0):
        super().__init__(model)
        self.n_samples, self.noise, self.seed = _at_least_one("n_samples", n_samples), noise, seed

    def attribute(self, input_tensor, targets=None):
        targets = self._targets(input_tensor, targets)
        generator, parts = Generator(self.seed), []
        for image, target in zip(input_tensor.detach().split(1), targets):
            deviation = self.noise * (image.max() - image.min()).item()
            total_gradient = numbanet.zeros_like(image)
            for first in range(0, self.n_samples, BATCH):
                count = min(BATCH, self.n_samples - first)
                noise = numbanet.randn(count, *image.shape[1:], generator=generator, device=image.device, dtype=image.dtype)
                total_gradient += self._gradient(image + deviation * noise, [target] * count).sum(0, keepdim=True)
            parts.append(total_gradient / self.n_samples)
        return numbanet.cat(parts) if parts else numbanet.zeros_like(input_tensor)


class IntegratedGradients(PixelMethod):
    """The gradients along the straight way from a baseline to the image, by Gauss-Legendre quadrature.

    Parameters
    ----------
    n_steps : int
        Points on the way.
    baseline : Tensor or float
        What the absence of a picture is; as large as one image, or a number.

    Attributes
    ----------
    delta : array (N,)
        Of the last call: by how much the sum of an image's attributions misses score(x) - score(baseline).
    """

    def __init__(self, model: Module, n_steps: int = 64, baseline: Tensor | float = 0.0):
        super().__init__(model)
        self.n_steps, self.baseline, self.delta = _at_least_one("n_steps", n_steps), baseline, None

    def attribute(self, input_tensor, targets=None):
        targets = self._targets(input_tensor, targets)
        points, weights = np.polynomial.legendre.leggauss(self.n_steps)
        points, weights = (points + 1) / 2, weights / 2
        parts, self.delta = [], np.zeros(len(input_tensor))
        for i, (image, target) in enumerate(zip(input_tensor.detach().split(1), targets)):
            start = numbanet.zeros_like(image) + self.baseline
            way, mean = image - start, numbanet.zeros_like(image)
            for first in range(0, self.n_steps, BATCH):
                at, share = (numbanet.tensor(v[first:first + BATCH].reshape(-1, 1, 1, 1), dtype=image.dtype, device=image.device)
                             for v in (points, weights))
                mean += (self._gradient(start + at * way, [target] * len(at)) * share).sum(0, keepdim=True)
            parts.append(way * mean)
            self.delta[i] = float(parts[-1].numpy().sum(dtype=np.float64)) - self._rise(start, image, target)
        return numbanet.cat(parts) if parts else numbanet.zeros_like(input_tensor)

    def _rise(self, start, image, target: Callable) -> float:
        with evaluating(self.model), no_grad():
            first, last = self.model(numbanet.cat([start, image]))
            return float(target(last).item()) - float(target(first).item())


def _at_least_one(name: str, value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise UsageError(f"{name}: expected an integer of at least 1, received {value!r}")
    return value
