"""RMSprop."""

from __future__ import annotations

from numbanet.optim.optimizer import Optimizer, arrays, zeros_like


class RMSprop(Optimizer):
    """Gradients divided by the root of their mean square (Hinton, lecture 6e; centered: Graves, 2013).

    Parameters
    ----------
    params : iterable of parameters or groups
    lr : float
        Learning rate.
    alpha : float
        Share of the mean square that is kept at each step.
    eps : float
        Added to the root.
    weight_decay : float
        Times the parameter, added to its gradient.
    momentum : float
    centered : bool
        Divide by the standard deviation instead.
    maximize : bool
        Climb instead of descend.
    """

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False, *,
                 maximize=False):
        super().__init__(params, {"lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
                                  "weight_decay": weight_decay, "maximize": maximize})

    def update_all(self, parameters, grads, states, group):
        momentum, centered = group["momentum"], group["centered"]
        for parameter, state in zip(parameters, states):
            if "square_avg" not in state:
                state["step"] = 0
                state["square_avg"] = zeros_like(parameter)
                if momentum:
                    state["momentum_buffer"] = zeros_like(parameter)
                if centered:
                    state["grad_avg"] = zeros_like(parameter)
            state["step"] += 1
        parameters[0].backend.rmsprop_update(
            arrays(parameters), grads, [s["square_avg"].array for s in states],
            [s["grad_avg"].array for s in states] if centered else [], [s["momentum_buffer"].array for s in states] if momentum else [],
            group["lr"], group["alpha"], group["eps"], group["weight_decay"], momentum, -1.0 if group["maximize"] else 1.0)
