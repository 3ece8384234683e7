"""Stochastic gradient descent."""

from __future__ import annotations

from numbanet.errors import UsageError
from numbanet.optim.optimizer import Optimizer, alike, arrays, zeros_like


class SGD(Optimizer):
    """Stochastic gradient descent with momentum (Sutskever et al., 2013); see `backends/contract/optimizer.py`.

    Parameters
    ----------
    params : iterable of parameters or groups
    lr : float
        Learning rate.
    momentum : float
        Share of the last step that is kept.
    dampening : float
        Share of the gradient that does not enter the momentum; 0 for Nesterov.
    weight_decay : float
        Times the parameter, added to its gradient.
    nesterov : bool
        Look ahead along the momentum.
    maximize : bool
        Climb instead of descend.
    """

    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, *,
                 maximize=False):
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                                  "nesterov": nesterov, "maximize": maximize})

    def _check_options(self, group):
        super()._check_options(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise UsageError(f"SGD: nesterov expects a momentum above 0 and dampening 0, received "
                             f"{group['momentum']} and {group['dampening']}")

    def update_all(self, parameters, grads, states, group):
        momentum, buffers = group["momentum"], []
        first = [False] * len(states)
        if momentum:
            first = ["momentum_buffer" not in state for state in states]
            for parameter, state, new in zip(parameters, states, first):
                if new:
                    state["momentum_buffer"] = zeros_like(parameter)
            buffers = [state["momentum_buffer"].array for state in states]
        scale = -1.0 if group["maximize"] else 1.0
        for new, some, of_some, their_buffers in alike(first, arrays(parameters), grads, buffers):
            dampening = 0.0 if new else group["dampening"]              # the first gradient enters whole
            parameters[0].backend.sgd_update(some, of_some, their_buffers, group["lr"], momentum, dampening, group["weight_decay"],
                                             group["nesterov"], scale)
