"""Losses. See `backends/contract/loss.py` for the formulas."""

from __future__ import annotations

import numpy as np

from numbanet.errors import UnsupportedOperationError
from numbanet.onnx.export.registry import translates


def _int64(b, target) -> str:
    return b.cast(target, np.dtype(np.int64))


@translates("softmax_cross_entropy_forward")
def softmax_cross_entropy(b, logits, target, class_weight, ignore_index, label_smoothing, reduction):
    if label_smoothing:
        raise UnsupportedOperationError("ONNX's cross entropy has no label smoothing; export the model without its loss")
    loss = b.node("SoftmaxCrossEntropyLoss", logits, _int64(b, target), class_weight, reduction=reduction, ignore_index=ignore_index)
    return loss, b.node("LogSoftmax", logits, axis=1) if b.wanted[1] else None, None


@translates("nll_loss_forward")
def nll_loss(b, log_probabilities, target, class_weight, ignore_index, reduction):
    loss = b.node("NegativeLogLikelihoodLoss", log_probabilities, _int64(b, target), class_weight, reduction=reduction,
                  ignore_index=ignore_index)
    return loss, None


@translates("elementwise_loss_forward")
def elementwise_loss(b, x, target, weight, pos_weight, kind, parameter, reduction):
    losses = _FORMULAS[kind](b, x, target, lambda value: np.asarray(value, x.dtype), parameter, pos_weight)
    losses = losses if weight is None else b.node("Mul", losses, weight)
    return losses if reduction == "none" else b.node("ReduceMean" if reduction == "mean" else "ReduceSum", losses, keepdims=0)


def _mse(b, x, t, of, p, w):
    d = b.node("Sub", x, t)
    return b.node("Mul", d, d)


def _l1(b, x, t, of, p, w):
    return b.node("Abs", b.node("Sub", x, t))


def _smooth_l1(b, x, t, of, p, w):
    distance = _l1(b, x, t, of, p, w)
    if not p:
        return distance
    squared = b.node("Mul", b.node("Mul", distance, distance), of(0.5 / p))
    return b.node("Where", b.node("Less", distance, of(p)), squared, b.node("Sub", distance, of(p / 2)))


def _huber(b, x, t, of, p, w):
    return b.node("Mul", _smooth_l1(b, x, t, of, p, w), of(p))


def _bce(b, x, t, of, p, w):
    one = of(1)
    positive, negative = (b.node("Max", b.node("Log", v), of(-100)) for v in (x, b.node("Sub", one, x)))
    return b.node("Neg", b.node("Add", b.node("Mul", t, positive), b.node("Mul", b.node("Sub", one, t), negative)))


def _bce_with_logits(b, x, t, of, p, w):
    """(1 - t) x + (1 + (w - 1) t) log(1 + exp(-x))."""
    one = of(1)
    factor = one if w is None else b.node("Add", one, b.node("Mul", b.node("Sub", w, one), t))
    return b.node("Add", b.node("Mul", b.node("Sub", one, t), x), b.node("Mul", factor, b.node("Softplus", b.node("Neg", x))))


def _kl_div(b, x, t, of, p, w):
    entropy = b.node("Mul", t, b.node("Log", t))
    return b.node("Sub", b.node("Where", b.node("Equal", t, of(0)), t, entropy), b.node("Mul", t, x))


def _kl_div_log(b, x, t, of, p, w):
    return b.node("Mul", b.node("Exp", t), b.node("Sub", t, x))


_FORMULAS = {"mse": _mse, "l1": _l1, "smooth_l1": _smooth_l1, "huber": _huber, "bce": _bce, "bce_with_logits": _bce_with_logits,
             "kl_div": _kl_div, "kl_div_log": _kl_div_log}
