"""Losses. See `contract/loss.py` for the formulas."""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.loss import label_error, probability_error
from numbanet.backends.reference.registry import implements


def _labels(operation, target, classes, ignore_index):
    """(labels with 0 for ignored ones, which are not ignored), both with an axis for the classes."""
    valid = target != ignore_index
    wrong = np.argwhere(valid & ((target < 0) | (target >= classes)))
    if len(wrong):
        raise label_error(operation, tuple(wrong[0]), int(target[tuple(wrong[0])]), classes, ignore_index)
    return np.expand_dims(np.where(valid, target, 0).astype(np.int64), 1), np.expand_dims(valid, 1)


def _class_weights(class_weight, x):
    """Of rank x.ndim, along axis 1."""
    weights = np.ones(x.shape[1], x.dtype) if class_weight is None else class_weight
    return weights.reshape(1, -1, *[1] * (x.ndim - 2))


def _reduce(losses, divisor, reduction, out):
    out[...] = losses if reduction == "none" else losses.sum() if reduction == "sum" else np.divide(losses.sum(),
                                                                                                    divisor)


def _classification_forward(operation, log_p, target, class_weight, ignore_index, label_smoothing, reduction, loss,
                            total_weight):
    label, valid = _labels(operation, target, log_p.shape[1], ignore_index)
    weights = _class_weights(class_weight, log_p)
    weight = np.take_along_axis(np.broadcast_to(weights, log_p.shape), label, 1)
    losses = -(1 - label_smoothing) * weight * np.take_along_axis(log_p, label, 1)
    if label_smoothing:
        losses -= label_smoothing / log_p.shape[1] * (weights * log_p).sum(1, keepdims=True)
    total_weight[...] = np.where(valid, weight, 0).sum()
    _reduce(np.where(valid, losses, 0)[:, 0], total_weight, reduction, loss)


def _scaled(grad_loss, total_weight, reduction):
    if reduction == "none":
        return np.expand_dims(grad_loss, 1)
    return grad_loss / total_weight if reduction == "mean" else grad_loss


def _q(like, target, class_weight, ignore_index, label_smoothing):
    """q of the contract, and where it is not ignored."""
    label, valid = _labels("nll_loss", target, like.shape[1], ignore_index)
    classes = np.arange(like.shape[1]).reshape(1, -1, *[1] * (like.ndim - 2))
    weights = np.broadcast_to(_class_weights(class_weight, like), like.shape)
    q = (1 - label_smoothing) * np.take_along_axis(weights, label, 1) * (classes == label)
    return q + label_smoothing / like.shape[1] * weights, valid


@implements
@np.errstate(all="ignore")
def softmax_cross_entropy_forward(logits, target, class_weight, ignore_index, label_smoothing, reduction, out):
    loss, log_probabilities, total_weight = out
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities[...] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    _classification_forward("cross_entropy", log_probabilities, target, class_weight, ignore_index, label_smoothing,
                            reduction, loss, total_weight)


@implements
@np.errstate(all="ignore")
def softmax_cross_entropy_backward_input(grad_loss, log_probabilities, target, class_weight, total_weight, ignore_index,
                                         label_smoothing, reduction, out):
    q, valid = _q(log_probabilities, target, class_weight, ignore_index, label_smoothing)
    gradient = _scaled(grad_loss, total_weight, reduction) * (np.exp(log_probabilities) * q.sum(1, keepdims=True) - q)
    out[...] = np.where(valid, gradient, 0)


@implements
@np.errstate(all="ignore")
def nll_loss_forward(log_probabilities, target, class_weight, ignore_index, reduction, out):
    loss, total_weight = out
    _classification_forward("nll_loss", log_probabilities, target, class_weight, ignore_index, 0.0, reduction, loss,
                            total_weight)


@implements
@np.errstate(all="ignore")
def nll_loss_backward_input(grad_loss, target, class_weight, total_weight, shape, ignore_index, reduction, out):
    q, valid = _q(out, target, class_weight, ignore_index, 0.0)
    out[...] = np.where(valid & (q != 0), -q * _scaled(grad_loss, total_weight, reduction), 0)


def _log(x):
    return np.maximum(np.log(x), -100)


def _softplus(x):
    """log(1 + exp(x)), without overflow."""
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def _smooth_l1(d, p):
    return np.where(np.abs(d) < p, 0.5 * d * d / p, np.abs(d) - 0.5 * p)


# kind -> (loss, its derivative with respect to x), functions of x, t, p and pos_weight w
_FORMULAS = {
    "mse": (lambda x, t, p, w: (x - t) ** 2,
            lambda x, t, p, w: 2 * (x - t)),
    "l1": (lambda x, t, p, w: np.abs(x - t),
           lambda x, t, p, w: np.sign(x - t)),
    "smooth_l1": (lambda x, t, p, w: _smooth_l1(x - t, p) if p else np.abs(x - t),
                  lambda x, t, p, w: np.clip((x - t) / p, -1, 1) if p else np.sign(x - t)),
    "huber": (lambda x, t, p, w: p * _smooth_l1(x - t, p),
              lambda x, t, p, w: np.clip(x - t, -p, p)),
    "bce": (lambda x, t, p, w: -(t * _log(x) + (1 - t) * _log(1 - x)),
            lambda x, t, p, w: (x - t) / np.maximum((1 - x) * x, 1e-12)),
    "bce_with_logits": (lambda x, t, p, w: (1 - t) * x + (1 + (w - 1) * t) * _softplus(-x),
                        lambda x, t, p, w: (1 - t) - (1 + (w - 1) * t) / (1 + np.exp(x))),
    "kl_div": (lambda x, t, p, w: np.where(t > 0, t * np.log(t), np.where(t == 0, 0, np.nan)) - t * x,
               lambda x, t, p, w: -t),
    "kl_div_log": (lambda x, t, p, w: np.exp(t) * (t - x),
                   lambda x, t, p, w: -np.exp(t)),
}


@implements
@np.errstate(all="ignore")
def elementwise_loss_forward(x, target, weight, pos_weight, kind, parameter, reduction, out):
    if kind == "bce" and (wrong := (x < 0) | (x > 1)).any():
        raise probability_error(x[wrong][0])
    losses = _FORMULAS[kind][0](x, target, parameter, 1 if pos_weight is None else pos_weight)
    _reduce(losses if weight is None else losses * weight, x.size, reduction, out)


@implements
@np.errstate(all="ignore")
def elementwise_loss_backward_input(grad_loss, x, target, weight, pos_weight, kind, parameter, reduction, out):
    derivative = _FORMULAS[kind][1](x, target, parameter, 1 if pos_weight is None else pos_weight)
    scale = grad_loss / max(x.size, 1) if reduction == "mean" else grad_loss
    out[...] = scale * (derivative if weight is None else derivative * weight)
