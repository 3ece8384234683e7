"""Adam and AdamW."""

from __future__ import annotations

from numbanet.errors import UsageError
from numbanet.optim.optimizer import Optimizer, alike, arrays, zeros_like


class Adam(Optimizer):
    """Steps scaled by running moments of the gradient (Kingma and Ba, 2015).

    Parameters
    ----------
    params : iterable of parameters or groups
    lr : float
        Learning rate.
    betas : pair of floats
        Shares of the first and second moment that are kept at each step.
    eps : float
        Added to the root of the second moment.
    weight_decay : float
        Times the parameter, added to its gradient; or, decoupled, times `lr` subtracted from the parameter itself.
    amsgrad : bool
        Divide by the largest second moment so far (Reddi et al., 2018).
    maximize : bool
        Climb instead of descend.
    decoupled_weight_decay : bool
        As :class:`AdamW`.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, *,
                 maximize=False, decoupled_weight_decay=False):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
                                  "amsgrad": amsgrad, "maximize": maximize, "decoupled_weight_decay": decoupled_weight_decay})

    def _check_options(self, group):
        super()._check_options(group)
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise UsageError(f"{type(self).__name__}: betas expects two numbers, at least 0 and below 1, received "
                             f"{group['betas']}")

    def update_all(self, parameters, grads, states, group):
        amsgrad = group["amsgrad"]
        for parameter, state in zip(parameters, states):
            if not state:
                state["step"] = 0
                state["exp_avg"], state["exp_avg_sq"] = zeros_like(parameter), zeros_like(parameter)
                if amsgrad:
                    state["max_exp_avg_sq"] = zeros_like(parameter)
            state["step"] += 1
        beta1, beta2 = group["betas"]
        scale = -1.0 if group["maximize"] else 1.0
        for step, some, of_some, their in alike([state["step"] for state in states], arrays(parameters), grads, states):
            parameters[0].backend.adam_update(
                some, of_some, [s["exp_avg"].array for s in their], [s["exp_avg_sq"].array for s in their],
                [s["max_exp_avg_sq"].array for s in their] if amsgrad else [], group["lr"], beta1, beta2, group["eps"],
                group["weight_decay"], group["decoupled_weight_decay"], step, scale)


class AdamW(Adam):
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter, 2019). See :class:`Adam`."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, amsgrad=False, *,
                 maximize=False):
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)
