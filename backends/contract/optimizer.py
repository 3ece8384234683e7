"""Optimiser updates: one pass over a parameter p, its gradient g and its state, in place.

    SGD       g += weight_decay * p;  m = momentum * m + (1 - dampening) * g
              p -= lr * (g + momentum * m if nesterov else m)
    RMSprop   g += weight_decay * p;  v = alpha * v + (1 - alpha) * g^2
              a += (1 - alpha) * (g - a) where centered, else a = 0
              m = momentum * m + g / (sqrt(v - a^2) + eps);  p -= lr * m
    Adam      g += weight_decay * p, or, decoupled (AdamW), p *= 1 - lr * weight_decay
              m += (1 - beta1) * (g - m);  v = beta2 * v + (1 - beta2) * g^2
              h = max(h, v) with amsgrad, else v
              p -= lr / (1 - beta1^step) * m / (sqrt(h) / sqrt(1 - beta2^step) + eps)

Buffers start as zeros. The gradient is multiplied by `scale` first: -1 maximises.

Sources: Sutskever et al. 2013 (momentum), Hinton's lecture 6e (RMSprop), Graves 2013 (centered), Kingma and Ba 2015
(Adam), Loshchilov and Hutter 2019 (AdamW), Reddi et al. 2018 (AMSGrad).
"""

from __future__ import annotations

from numbanet.backends.contract.checks import check_float, check_shape
from numbanet.backends.interface import Array, primitive


def _check(operation: str, **arrays) -> None:
    """All of the parameter's shape and dtype. The common case is quick: steps are many, and their arrays small."""
    parameter, *others = arrays.values()
    shape, dtype = parameter.shape, parameter.dtype
    for x in others:
        if x is not None and (x.shape != shape or x.dtype != dtype):
            break
    else:
        if dtype.char in "fd":
            return
    check_float(operation, **arrays)
    for name, x in arrays.items():
        check_shape(operation, name, x, shape)


@primitive(mutates=("parameter", "momentum_buffer"))
def sgd_update(parameter: Array, grad: Array, momentum_buffer: Array | None, lr: float, momentum: float,
               dampening: float, weight_decay: float, nesterov: bool, scale: float) -> None:
    """Stochastic gradient descent; without a momentum buffer p -= lr * g. A first step has dampening 0."""
    _check("sgd_update", parameter=parameter, grad=grad, momentum_buffer=momentum_buffer)


@primitive(mutates=("parameter", "square_avg", "grad_avg", "momentum_buffer"))
def rmsprop_update(parameter: Array, grad: Array, square_avg: Array, grad_avg: Array | None,
                   momentum_buffer: Array | None, lr: float, alpha: float, eps: float, weight_decay: float,
                   momentum: float, scale: float) -> None:
    """RMSprop, centered where `grad_avg` is given, with momentum where `momentum_buffer` is."""
    _check("rmsprop_update", parameter=parameter, grad=grad, square_avg=square_avg, grad_avg=grad_avg,
           momentum_buffer=momentum_buffer)


@primitive(mutates=("parameter", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"))
def adam_update(parameter: Array, grad: Array, exp_avg: Array, exp_avg_sq: Array, max_exp_avg_sq: Array | None,
                lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool, step: int,
                scale: float) -> None:
    """Adam, or AdamW where `decoupled`; AMSGrad where `max_exp_avg_sq` is given. `step` counts from 1."""
    _check("adam_update", parameter=parameter, grad=grad, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq,
           max_exp_avg_sq=max_exp_avg_sq)
