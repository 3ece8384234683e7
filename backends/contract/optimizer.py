"""Optimiser updates: one pass over each parameter p, its gradient g and its state, in place.

    SGD       g += weight_decay * p;  m = momentum * m + (1 - dampening) * g
              p -= lr * (g + momentum * m if nesterov else m)
    RMSprop   g += weight_decay * p;  v = alpha * v + (1 - alpha) * g^2
              a += (1 - alpha) * (g - a) where centered, else a = 0
              m = momentum * m + g / (sqrt(v - a^2) + eps);  p -= lr * m
    Adam      g += weight_decay * p, or, decoupled (AdamW), p *= 1 - lr * weight_decay
              m += (1 - beta1) * (g - m);  v = beta2 * v + (1 - beta2) * g^2
              h = max(h, v) with amsgrad, else v
              p -= lr / (1 - beta1^step) * m / (sqrt(h) / sqrt(1 - beta2^step) + eps)

Buffers start as zeros. The gradient is multiplied by `scale` first: -1 maximises. One call updates any number of parameters
of one dtype, which share all numbers: with many small ones, calls would cost more than arithmetic. Each operand is a list with
one array per parameter, or an empty one where there is no such state.

Sources: Sutskever et al. 2013 (momentum), Hinton's lecture 6e (RMSprop), Graves 2013 (centered), Kingma and Ba 2015
(Adam), Loshchilov and Hutter 2019 (AdamW), Reddi et al. 2018 (AMSGrad).
"""

from __future__ import annotations

from numbanet.backends.contract.checks import check_float, check_shape
from numbanet.backends.interface import Arrays, primitive
from numbanet.errors import ShapeError


def _check(operation: str, parameters: Arrays, /, **others: Arrays) -> None:
    """Each list as long as that of the parameters or empty, all arrays of their parameter's shape and one floating dtype."""
    dtype = parameters[0].dtype if parameters else None
    quick = not parameters or dtype.char in "fd"
    shapes = [x.shape for x in parameters]
    for name, arrays in others.items():
        if len(arrays) != len(parameters) and (arrays or name == "grads"):
            raise ShapeError(f"{operation}: {name} expects {len(parameters)} arrays, one per parameter, received {len(arrays)}")
        # The common case is quick: steps are many, and their arrays small.
        quick = quick and all([x.dtype is dtype for x in arrays]) and (not arrays or [x.shape for x in arrays] == shapes)
    if quick and all([x.dtype is dtype for x in parameters]):
        return
    for position, parameter in enumerate(parameters):
        of_one = {name: arrays[position] for name, arrays in others.items() if arrays}
        check_float(operation, first_parameter=parameters[0], parameter=parameter, **of_one)
        for name, x in of_one.items():
            check_shape(operation, name, x, parameter.shape)


@primitive(mutates=("parameters", "momentum_buffers"))
def sgd_update(parameters: Arrays, grads: Arrays, momentum_buffers: Arrays, lr: float, momentum: float, dampening: float,
               weight_decay: float, nesterov: bool, scale: float) -> None:
    """Stochastic gradient descent; without momentum buffers p -= lr * g. A first step has dampening 0."""
    _check("sgd_update", parameters, grads=grads, momentum_buffers=momentum_buffers)


@primitive(mutates=("parameters", "square_avgs", "grad_avgs", "momentum_buffers"))
def rmsprop_update(parameters: Arrays, grads: Arrays, square_avgs: Arrays, grad_avgs: Arrays, momentum_buffers: Arrays, lr: float,
                   alpha: float, eps: float, weight_decay: float, momentum: float, scale: float) -> None:
    """RMSprop, centered where `grad_avgs` are given, with momentum where `momentum_buffers` are."""
    _check("rmsprop_update", parameters, grads=grads, square_avgs=square_avgs, grad_avgs=grad_avgs, momentum_buffers=momentum_buffers)


@primitive(mutates=("parameters", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs"))
def adam_update(parameters: Arrays, grads: Arrays, exp_avgs: Arrays, exp_avg_sqs: Arrays, max_exp_avg_sqs: Arrays, lr: float,
                beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool, step: int, scale: float) -> None:
    """Adam, or AdamW where `decoupled`; AMSGrad where `max_exp_avg_sqs` are given. `step` counts from 1."""
    _check("adam_update", parameters, grads=grads, exp_avgs=exp_avgs, exp_avg_sqs=exp_avg_sqs, max_exp_avg_sqs=max_exp_avg_sqs)
