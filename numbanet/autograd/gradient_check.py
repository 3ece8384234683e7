"""Gradients against central finite differences."""

from __future__ import annotations

import numpy as np

from numbanet._tensor import Tensor, tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.autograd.tape import grad
from numbanet.errors import AutogradError, DTypeError


def gradient_check(function, *inputs: Tensor, step: float = 1e-6, tolerance: float = 1e-6, raise_exception: bool = True) -> bool:
    """Whether the gradients of `function` agree with central differences.

    Parameters
    ----------
    function : callable of the inputs, returning a tensor or a tuple of tensors
    inputs : float64 tensors with requires_grad=True, and any others
    step : half the distance between the two points of a difference
    tolerance : of the largest deviation, relative to the largest gradient (at least 1)

    Raises
    ------
    AutogradError
        The gradients differ, unless `raise_exception` is False; the message names input, element and both values.
    """
    checked = [i for i, t in enumerate(inputs) if t.requires_grad]
    for i in checked:
        if inputs[i].dtype != np.float64:
            raise DTypeError(f"gradient_check: input {i} expects float64, received {inputs[i].dtype}; float32 differences are noise")
    outputs = _differentiable(function(*inputs))
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(o.shape) for o in outputs]
    device = inputs[checked[0]].device
    analytic = grad(outputs, [inputs[i] for i in checked], [tensor(w, device=device) for w in weights], allow_unused=True)
    base = [np.array(t.detach().numpy()) for t in inputs]

    def weighted_sum(values):
        with no_grad():
            results = function(*[tensor(v, device=device) for v in values])
        results = results if isinstance(results, tuple) else (results,)
        results = [r for r in results if r.is_floating_point()]
        return sum(float((w * r.detach().numpy()).sum()) for w, r in zip(weights, results))

    for position, i in enumerate(checked):
        received = np.zeros(base[i].shape) if analytic[position] is None else analytic[position].numpy()
        expected = np.empty(base[i].shape)
        for index in np.ndindex(*base[i].shape):
            original = base[i][index]
            base[i][index] = original + step
            above = weighted_sum(base)
            base[i][index] = original - step
            below = weighted_sum(base)
            base[i][index] = original
            expected[index] = (above - below) / (2 * step)
        deviation = np.abs(received - expected)
        if not (deviation <= tolerance * max(1.0, np.abs(expected).max(initial=0))).all():
            if not raise_exception:
                return False
            worst = np.unravel_index(np.argmax(deviation), deviation.shape)
            raise AutogradError(f"gradient_check: input {i}, element {tuple(map(int, worst))}: backward gives {received[worst]:.9g}, "
                                f"differences give {expected[worst]:.9g} (tolerance {tolerance:g})")
    return True


def _differentiable(outputs) -> list[Tensor]:
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    outputs = [o for o in outputs if o.is_floating_point()]
    if not any(o.requires_grad for o in outputs):
        raise AutogradError("gradient_check: no output requires a gradient")
    return outputs
