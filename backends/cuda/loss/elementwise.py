"""Elementwise losses: a thread an element, then a sum in a fixed order. The formulas are functions of x, t, p (the loss's parameter) and
w (`pos_weight`, else 1); see `contract/loss.py`."""

from __future__ import annotations

import math

import numpy as np

from numbanet.backends.contract.loss import probability_error
from numbanet.backends.cuda.compile import Sizes, device, kernel, lanewise
from numbanet.backends.cuda.elementwise import divide_of
from numbanet.backends.cuda.index import grid_stride, offset
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.layout import broadcast_steps, merged
from numbanet.backends.cuda.limits import NAN
from numbanet.backends.cuda.mathematics import larger, smaller
from numbanet.backends.cuda.memory import DeviceArray
from numbanet.backends.cuda.pointwise import new_like, on_host
from numbanet.backends.cuda.reduction import sum_of
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import pieces


@device
def mse(x, t, p, w):
    return (x - t) * (x - t)


@device
def mse_slope(x, t, p, w):
    return 2.0 * (x - t)


@device
def l1(x, t, p, w):
    return abs(x - t)


@device
def sign(d):
    """-1, 0 or 1; NaN of NaN."""
    return 1.0 if d > 0.0 else -1.0 if d < 0.0 else d


@device
def l1_slope(x, t, p, w):
    return sign(x - t)


@device
def smooth_l1(x, t, p, w):
    d = abs(x - t)
    return 0.5 * d * d / p if d < p else d - 0.5 * p


@device
def smooth_l1_slope(x, t, p, w):
    return smaller(larger((x - t) / p, -1.0), 1.0) if p > 0.0 else sign(x - t)


@device
def huber(x, t, p, w):
    return p * smooth_l1(x, t, p, w)


@device
def huber_slope(x, t, p, w):
    return smaller(larger(x - t, -p), p)


@device
def bce(x, t, p, w):
    return -(t * larger(math.log(x), -100.0) + (1.0 - t) * larger(math.log(1.0 - x), -100.0))


@device
def bce_slope(x, t, p, w):
    return (x - t) / larger((1.0 - x) * x, 1e-12)


@device
def bce_with_logits(x, t, p, w):
    softplus = math.log1p(math.exp(-abs(x))) + larger(-x, 0.0)         # log(1 + exp(-x)), without overflow
    return (1.0 - t) * x + (1.0 + (w - 1.0) * t) * softplus


@device
def bce_with_logits_slope(x, t, p, w):
    return 1.0 - t - (1.0 + (w - 1.0) * t) / (1.0 + math.exp(x))


@device
def kl_div(x, t, p, w):
    return t * math.log(t) - t * x if t > 0.0 else -t * x if t == 0.0 else NAN


@device
def kl_div_slope(x, t, p, w):
    return -t


@device
def kl_div_log(x, t, p, w):
    return math.exp(t) * (t - x)


@device
def kl_div_log_slope(x, t, p, w):
    return -math.exp(t)


class Loss:
    """The kernels of one kind."""

    def __init__(self, value, slope):
        value, slope = lanewise(value), lanewise(slope)

        @kernel
        def elementwise_loss(x, target, weight, pos_weight, out, parameter, total, shape: Sizes, x_steps, target_steps, weight_steps,
                             pos_steps, out_steps, has_weight, has_pos):
            for i in grid_stride(total):
                w = pos_weight[offset(i, shape, pos_steps)] if has_pos else 1.0
                loss = value(x[offset(i, shape, x_steps)], target[offset(i, shape, target_steps)], parameter, w)
                if has_weight:
                    loss *= weight[offset(i, shape, weight_steps)]
                out[offset(i, shape, out_steps)] = loss

        @kernel
        def elementwise_loss_backward(x, target, weight, pos_weight, out, parameter, grad_loss, divisor, total, shape: Sizes, x_steps,
                                      target_steps, weight_steps, pos_steps, grad_steps, out_steps, has_weight, has_pos):
            for i in grid_stride(total):
                w = pos_weight[offset(i, shape, pos_steps)] if has_pos else 1.0
                grad = slope(x[offset(i, shape, x_steps)], target[offset(i, shape, target_steps)], parameter, w)
                if has_weight:
                    grad *= weight[offset(i, shape, weight_steps)]
                out[offset(i, shape, out_steps)] = grad_loss[offset(i, shape, grad_steps)] / divisor * grad

        self.forward, self.backward = elementwise_loss, elementwise_loss_backward


LOSSES = {"mse": Loss(mse, mse_slope), "l1": Loss(l1, l1_slope), "smooth_l1": Loss(smooth_l1, smooth_l1_slope),
          "huber": Loss(huber, huber_slope), "bce": Loss(bce, bce_slope), "bce_with_logits": Loss(bce_with_logits, bce_with_logits_slope),
          "kl_div": Loss(kl_div, kl_div_slope), "kl_div_log": Loss(kl_div_log, kl_div_log_slope)}


@kernel
def improbable(x, found, total, shape: Sizes, steps):
    """Whether there is an element outside of 0 ... 1."""
    for i in grid_stride(total):
        p = x[offset(i, shape, steps)]
        if p < 0.0 or p > 1.0:
            found[0] = 1


def _check_probabilities(x: DeviceArray) -> None:
    """Raise unless all elements are probabilities, waiting for the answer."""
    found = x.lease.allocator.zeros(1, np.dtype(np.uint8))
    shape, steps = merged(x.shape, x.steps)
    launch(improbable, x.size, x, found, x.size, shape, steps)

    def question():
        if x.lease.allocator.to_numpy(found)[0]:
            values = on_host(x)
            raise probability_error(values[(values < 0) | (values > 1)][0])
    x.device.check(question)


def _operands(x, target, weight, pos_weight) -> tuple:
    """(the four arrays, x in place of one that is missing, their steps, whether the last two are there)."""
    given = [x if a is None else a for a in (x, target, weight, pos_weight)]
    steps = [broadcast_steps(a, x.shape) for a in given]
    return given, steps, (int(weight is not None), int(pos_weight is not None))


@implements
def elementwise_loss_forward(x, target, weight, pos_weight, kind, parameter, reduction, out):
    if kind == "bce":
        _check_probabilities(x)
    losses = out if reduction == "none" else new_like(x)
    arrays, steps, there = _operands(x, target, weight, pos_weight)
    total, (shape, out_steps, *steps), (written, *arrays) = pieces(merged(x.shape, losses.steps, *steps), losses, *arrays)
    launch(LOSSES[kind].forward, total, *arrays, written, number(parameter, x.dtype), total, shape, *steps, out_steps, *there)
    if reduction != "none":
        sum_of(losses, tuple(range(x.ndim)), 0, out)
    if reduction == "mean":
        divide_of(out, float(x.size), out)


@implements
def elementwise_loss_backward_input(grad_loss, x, target, weight, pos_weight, kind, parameter, reduction, out):
    arrays, steps, there = _operands(x, target, weight, pos_weight)
    places = merged(x.shape, out.steps, *steps, broadcast_steps(grad_loss, x.shape))
    parameter, divisor = number(parameter, x.dtype), number(x.size if reduction == "mean" else 1, x.dtype)
    total, (shape, out_steps, *steps), (out, *arrays, grad_loss) = pieces(places, out, *arrays, grad_loss)
    launch(LOSSES[kind].backward, total, *arrays, out, parameter, grad_loss, divisor, total, shape, *steps, out_steps, *there)
