"""What excites a unit: a picture that climbs the gradient of its activation (Erhan and others, 2009; Olah and others, 2017)."""

from __future__ import annotations

import numpy as np

import numbanet
from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import enable_grad
from numbanet.autograd.tape import grad
from numbanet.errors import UsageError
from numbanet.nn import Module
from numbanet.nn import functional as F
from numbanet.random import Generator
from numbanet.vision.layers import evaluating, find_layer, hooks, only

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def maximise(model: Module, shape, unit: int, layer: str | None = None, low: Tensor | float = -2.0, high: Tensor | float = 2.0,
             steps: int = 128, lr: float = 0.08, blur_every: int = 4, jitter: int | None = None, seed: int = 0,
             device=None) -> tuple[Tensor, list[float]]:
    """A picture that a class, or a channel of a layer, answers to strongly.

    Every step shifts the picture by a few pixels, walks along the gradient, whose length is made 1 pixel by pixel on average, and every
    `blur_every` steps the picture is smoothed: without both, only noise comes out.

    Parameters
    ----------
    shape : (C, H, W) of the picture
    unit : int
        Class, or channel of `layer` (the mean over its map).
    low, high : Tensor (C, 1, 1) or float
        The values of black and white.

    Returns
    -------
    (Tensor (1, C, H, W), the activation before every step and at the end)
    """
    if steps < 1:
        raise UsageError(f"maximise: steps expects at least 1, received {steps}")
    if layer is not None:
        find_layer(model, layer)
    generator = Generator(seed)
    x = numbanet.rand(1, *shape, generator=generator, device=device)
    low, high = (numbanet.zeros(1, shape[0], 1, 1, device=device) + v for v in (low, high))
    span = high - low
    x = _smooth(_smooth(low + x * span))        # not flat: there ReLU may let no gradient through
    jitter = max(1, min(shape[1:]) // 28) if jitter is None else jitter
    shifts = np.random.Generator(np.random.PCG64(seed)).integers(-jitter, jitter + 1, (steps, 2))
    values = []
    with evaluating(model):
        for step in range(steps + 1):
            shift = tuple(int(s) for s in shifts[step]) if step < steps else (0, 0)
            leaf = numbanet.roll(x, shift, (2, 3)).detach().requires_grad_()
            with enable_grad():
                score = _activation(model, leaf, layer, unit)
                values.append(float(score.item()))
                if step == steps:
                    break
                gradient, = grad(score, leaf)
            length = float(gradient.square().mean().sqrt().item())
            moved = leaf.detach() + lr * span * gradient / (length or 1.0)
            if step % blur_every == blur_every - 1 and step < steps - blur_every:
                moved = _smooth(moved)
            x = numbanet.roll(numbanet.minimum(numbanet.maximum(moved, low), high), (-shift[0], -shift[1]), (2, 3))
    return x, values


def _activation(model, x, layer, unit: int):
    if layer is None:
        output = model(x)
    else:
        kept = []
        with hooks(model, lambda _path, _module, _inputs, output: kept.append(only(output)), paths={layer}):
            model(x)
        output = kept[-1]
    units = output.shape[1]
    if not 0 <= unit < units:
        what = "class" if layer is None else f"channel of {layer}"
        raise UsageError(f"maximise: expected a {what} from 0 to {units - 1}, received {unit}")
    return output[0, unit].mean()


def _smooth(x: Tensor) -> Tensor:
    """A little blur, borders repeated."""
    kernel = numbanet.tensor(np.outer(_BINOMIAL, _BINOMIAL)[None, None].repeat(x.shape[1], 0), dtype=x.dtype, device=x.device)
    return 0.5 * x + 0.5 * F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), kernel, groups=x.shape[1])
