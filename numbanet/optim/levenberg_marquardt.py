"""Stochastic diagonal Levenberg-Marquardt: each weight learns at a rate of its own, by the curvature of the loss along it."""

from __future__ import annotations

import math

import numpy as np

from numbanet._tensor import Tensor, tensor
from numbanet.autograd import grad
from numbanet.errors import UsageError
from numbanet.optim.optimizer import Optimizer, arrays


class DiagonalLevenbergMarquardt(Optimizer):
    """Stochastic gradient descent at the rates lr / (eps + h), h the curvature of the loss along a weight (LeCun et al. 1998, appendix C).

    Where the loss is steep and bends much, as for a kernel that a whole map shares, steps are small; where it is flat they are up to
    lr / eps. The curvatures are given, and given anew as the weights move (in the paper before each pass), by :meth:`set_curvature`;
    :func:`gauss_newton_diagonal` estimates them.

    Parameters
    ----------
    params : iterable of parameters or groups
    lr : float
        Global rate. In the paper 0.0005 and less for single samples; for the mean of a batch of N samples up to N times that.
    eps : float
        The paper's mu, which keeps rates finite where the loss is flat.
    weight_decay : float
        Times the parameter, added to its gradient.
    """

    def __init__(self, params, lr=5e-3, eps=0.02, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "eps": eps, "weight_decay": weight_decay})

    def _check_options(self, group):
        super()._check_options(group)
        if not group["eps"] > 0:
            raise UsageError(f"DiagonalLevenbergMarquardt: eps expects a number above 0, received {group['eps']}")

    def set_curvature(self, curvatures) -> None:
        """Take these from now on.

        Parameters
        ----------
        curvatures : iterable of (parameter, array of its shape)
            Second derivatives, none of them negative.
        """
        eps = {id(p): group["eps"] for group in self.param_groups for p in group["params"]}
        for parameter, curvature in curvatures:
            curvature = np.asarray(curvature, np.float64)
            if id(parameter) not in eps:
                raise UsageError(f"DiagonalLevenbergMarquardt: the curvature of a tensor of shape {parameter.shape} that is none of its "
                                 "parameters")
            if curvature.shape != parameter.shape or not (curvature >= 0).all():
                raise UsageError(f"DiagonalLevenbergMarquardt: a curvature expects numbers of at least 0 of shape {parameter.shape}, "
                                 f"received shape {curvature.shape}" + ("" if (curvature >= 0).all() else " with others among them"))
            self.state[parameter]["rates"] = tensor(1 / (eps[id(parameter)] + curvature), dtype=parameter.dtype, device=parameter.device)

    def update_all(self, parameters, grads, states, group):
        for parameter, state in zip(parameters, states):
            if "rates" not in state:
                raise UsageError(f"DiagonalLevenbergMarquardt: no curvature was given for a parameter of shape {parameter.shape}; call "
                                 "set_curvature(zip(parameters, gauss_newton_diagonal(...))) before the first step")
        backend, decay = parameters[0].backend, group["weight_decay"]
        if decay:
            grads = [backend.add(g, backend.multiply(p, np.float32(decay))) for g, p in zip(grads, arrays(parameters))]
        scaled = [backend.multiply(g, state["rates"].array) for g, state in zip(grads, states)]
        backend.sgd_update(arrays(parameters), scaled, [], group["lr"], 0.0, 0.0, 0.0, False, 1.0)


def gauss_newton_diagonal(probe, parameters: list[Tensor], inputs: Tensor, generator: np.random.Generator) -> list[np.ndarray]:
    """The diagonal of the loss's Gauss-Newton matrix, the part of its second derivative that is never negative: a mean over samples.

    Parameters
    ----------
    probe : callable (x, generator) -> Tensor
        Of one sample (1, ...), a random number whose gradient g in the parameters has that diagonal as the mean of g * g: for a loss that
        is the squared distance of outputs from their target, sqrt(2) times their sum with random signs; see :func:`probe_logits` for
        cross-entropy.
    parameters : list of Tensor
    inputs : Tensor (N, ...)
        Samples, looked at one by one; the paper takes 500.
    generator : numpy.random.Generator

    Returns
    -------
    list of float64 arrays of the parameters' shapes
    """
    if not len(inputs):
        raise UsageError("gauss_newton_diagonal: expected at least one sample, received none")
    sums = [np.zeros(p.shape) for p in parameters]
    for i in range(len(inputs)):
        for total, gradient in zip(sums, grad(probe(inputs[i:i + 1], generator), parameters, allow_unused=True)):
            if gradient is not None:
                total += np.square(gradient.numpy(), dtype=np.float64)
    return [total / len(inputs) for total in sums]


def probe_logits(logits: Tensor, generator: np.random.Generator) -> Tensor:
    """A probe of cross-entropy: its value for a class drawn by the probabilities of `logits` (1, K).

    The mean square of its gradient is the diagonal of Fisher's information, which for cross-entropy is Gauss and Newton's
    (Martens 2014, arXiv:1412.1193, section 9).
    """
    if logits.ndim != 2 or len(logits) != 1:
        raise UsageError(f"DiagonalLevenbergMarquardt: curvatures by themselves are those of a classifier, whose logits are (1, classes); "
                         f"received {tuple(logits.shape)}; give the model a method curvature_probe(x, generator), or take another one")
    values = logits.detach().numpy()[0].astype(np.float64)
    weights = np.exp(values - values.max())
    drawn = int(generator.choice(len(weights), p=weights / weights.sum()))
    return logits.logsumexp(1).sum() - logits[0, drawn]


def probe_units(units: Tensor, generator: np.random.Generator) -> Tensor:
    """A probe of the squared distance of `units` (1, K) from any target: sqrt(2) times their sum with random signs."""
    signs = generator.choice(np.array([-math.sqrt(2), math.sqrt(2)]), units.shape)
    return (units * tensor(signs, dtype=units.dtype, device=units.device)).sum()
