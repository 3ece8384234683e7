"""Losses. `reduction` is everywhere "mean", "sum" or "none"; the formulas stand in `backends/contract/loss.py`."""

from __future__ import annotations

import warnings

from numbanet.autograd.operation import Operation
from numbanet.errors import DTypeError, ShapeError, UsageError
from numbanet.ops.shape import broadcast_tensors
from numbanet.ops.softmax import log_softmax

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "huber_loss", "kl_div",
           "l1_loss", "mse_loss",
           "nll_loss", "smooth_l1_loss"]


class SoftmaxCrossEntropy(Operation):
    """Softmax over axis 1 and the negative log-likelihood of class indices, in one pass each way."""

    operation_name = "cross_entropy"

    def forward(self, backend, logits, target, weight, ignore_index, label_smoothing, reduction):
        loss, log_probabilities, total_weight = backend.softmax_cross_entropy_forward(
            logits, target, weight, ignore_index, label_smoothing, reduction)
        self.save(log_probabilities, target, weight, total_weight, ignore_index, label_smoothing, reduction)
        return loss

    def backward(self, backend, grad_loss, needs):
        grad_logits = backend.softmax_cross_entropy_backward_input(grad_loss, *self.saved)
        return (grad_logits, *[None] * (len(needs) - 1))


class NLLLoss(Operation):
    """Negative log-likelihood of class indices, given logarithms of probabilities."""

    operation_name = "nll_loss"

    def forward(self, backend, log_probabilities, target, weight, ignore_index, reduction):
        loss, total_weight = backend.nll_loss_forward(log_probabilities, target, weight, ignore_index, reduction)
        self.save(target, weight, total_weight, log_probabilities.shape, ignore_index, reduction)
        return loss

    def backward(self, backend, grad_loss, needs):
        return (backend.nll_loss_backward_input(grad_loss, *self.saved), *[None] * (len(needs) - 1))


class ElementwiseLoss(Operation):
    """A loss between two tensors of one shape; `kind` names its formula."""

    def forward(self, backend, x, target, weight, pos_weight, kind, parameter, reduction):
        self.operation_name = f"{kind}_loss"
        self.save(x, target, weight, pos_weight, kind, parameter, reduction)
        return backend.elementwise_loss_forward(x, target, weight, pos_weight, kind, parameter, reduction)

    def backward(self, backend, grad_loss, needs):
        x, target, *rest = self.saved
        grad_x = backend.elementwise_loss_backward_input(grad_loss, x, target, *rest) if needs[0] else None
        # only losses of x - t let a target with a gradient come here: they are even, so that x and t change places
        grad_target = backend.elementwise_loss_backward_input(grad_loss, target, x, *rest) if needs[1] else None
        return (grad_x, grad_target, *[None] * (len(needs) - 2))


def cross_entropy(input, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """Cross-entropy of softmax(input), as in `torch.nn.functional.cross_entropy`.

    Parameters
    ----------
    input : Tensor (N, C, ...) or (C,)
        Logits; the classes are axis 1.
    target : Tensor
        Class indices (N, ...) of int64, or probabilities of input's shape and dtype.
    weight : Tensor (C,), optional
        Weight of each class; the mean is weighted, too.
    ignore_index : int
        Positions with this label count nowhere. Without effect on probabilities.
    reduction : "mean", "sum" or "none"
    label_smoothing : float in [0, 1]
        Share of each target spread evenly over all classes (Szegedy et al., 2016).

    Returns
    -------
    Tensor () or, with "none", (N, ...)

    Raises
    ------
    IndexRangeError
        A label is neither a class nor `ignore_index`.
    ShapeError, DTypeError
        `target` or `weight` do not fit.
    """
    if not 0 <= label_smoothing <= 1:
        raise UsageError(f"cross_entropy: label_smoothing expects a number from 0 to 1, received {label_smoothing}")
    if input.ndim == 1:
        loss = cross_entropy(input.reshape(1, -1), target.reshape(1, *target.shape), weight, ignore_index=ignore_index,
                             reduction=reduction, label_smoothing=label_smoothing)
        return loss.reshape(()) if reduction == "none" else loss
    if target.is_floating_point():
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing)
    return SoftmaxCrossEntropy.apply(input, target, weight, int(ignore_index), float(label_smoothing), reduction)


def _soft_cross_entropy(input, target, weight, reduction, label_smoothing):
    if target.shape != input.shape:
        raise ShapeError(f"cross_entropy: a floating-point target holds probabilities and expects the shape of input "
                         f"{input.shape}, received {target.shape}; class indices are int64 (.long())")
    classes = input.shape[1]
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        target = target * weight.reshape(1, -1, *[1] * (input.ndim - 2))
    return _reduced(-(target * log_softmax(input, 1)).sum(1), reduction, "cross_entropy")


def _reduced(losses, reduction, operation):
    if reduction not in ("none", "mean", "sum"):
        raise UsageError(f"{operation}: reduction expects one of none, mean, sum, received {reduction!r}")
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()


def nll_loss(input, target, weight=None, *, ignore_index=-100, reduction="mean"):
    """Negative log-likelihood: -weight[t] * input[n, t] for each label t, as in `torch.nn.functional.nll_loss`.

    Parameters
    ----------
    input : Tensor (N, C, ...) or (C,)
        Logarithms of probabilities, as `log_softmax` gives them.
    target, weight, ignore_index, reduction
        As in :func:`cross_entropy`, class indices only.
    """
    if input.ndim == 1:
        loss = nll_loss(input.reshape(1, -1), target.reshape(1, *target.shape), weight, ignore_index=ignore_index,
                        reduction=reduction)
        return loss.reshape(()) if reduction == "none" else loss
    return NLLLoss.apply(input, target, weight, int(ignore_index), reduction)


def _elementwise(kind, input, target, reduction, weight=None, pos_weight=None, parameter=0.0):
    if input.dtype != target.dtype:
        raise DTypeError(f"{kind}_loss: target expects {input.dtype} like input, received {target.dtype}; "
                         "convert it with .to()")
    if input.shape != target.shape:
        if kind.startswith("bce"):
            raise ShapeError(f"{kind}: target expects the shape of input {input.shape}, received {target.shape}")
        warnings.warn(f"{kind}_loss: target of shape {target.shape} is broadcast against input of shape {input.shape}; "
                      "this is rarely meant, give both the same shape", UserWarning, stacklevel=3)
        input, target = broadcast_tensors(input, target)
    return ElementwiseLoss.apply(input, target, weight, pos_weight, kind, float(parameter), reduction)


def mse_loss(input, target, *, reduction="mean", weight=None):
    """Squared difference, as in `torch.nn.functional.mse_loss`."""
    return _weighted("mse", input, target, reduction, weight)


def l1_loss(input, target, *, reduction="mean", weight=None):
    """Absolute difference, as in `torch.nn.functional.l1_loss`; its gradient is 0 where the two are equal."""
    return _weighted("l1", input, target, reduction, weight)


def _weighted(kind, input, target, reduction, weight):
    """With element weights, whose sum divides the mean."""
    if weight is None or reduction != "mean":
        return _elementwise(kind, input, target, reduction, weight)
    return _elementwise(kind, input, target, "sum", weight) / weight.sum()


def smooth_l1_loss(input, target, *, reduction="mean", beta=1.0):
    """Squared difference / (2 beta) below beta, absolute difference - beta / 2 above (Girshick, 2015)."""
    if beta < 0:
        raise UsageError(f"smooth_l1_loss: beta expects a number of at least 0, received {beta}")
    return _elementwise("smooth_l1", input, target, reduction, parameter=beta)


def huber_loss(input, target, reduction="mean", delta=1.0, weight=None):
    """delta times the smooth L1 loss with beta = delta (Huber, 1964); the mean divides by the number of elements."""
    if delta <= 0:
        raise UsageError(f"huber_loss: delta expects a number above 0, received {delta}")
    return _elementwise("huber", input, target, reduction, weight, parameter=delta)


def binary_cross_entropy(input, target, weight=None, *, reduction="mean"):
    """Cross-entropy of probabilities `input` with `target` in [0, 1], as in `torch.nn.functional.binary_cross_entropy`.

    Logarithms are bounded by -100. `weight` broadcasts; the mean divides by the number of elements.

    Raises
    ------
    UsageError
        An input is outside of [0, 1].
    """
    if target.requires_grad:
        losses = -(target * input.log().clamp(min=-100) + (1 - target) * (1 - input).log().clamp(min=-100))
        return _reduced(losses if weight is None else losses * weight, reduction, "binary_cross_entropy")
    return _elementwise("bce", input, target, reduction, weight)


def binary_cross_entropy_with_logits(input, target, weight=None, *, reduction="mean", pos_weight=None):
    """:func:`binary_cross_entropy` of sigmoid(input), computed without overflow.

    Parameters
    ----------
    input, target : Tensors of one shape
    weight : Tensor that broadcasts to it, optional
        Weight of each element's loss.
    pos_weight : Tensor that broadcasts to it, optional
        Weight of the part of each loss that comes with `target`: above 1 it raises the recall.
    """
    if target.requires_grad:
        softplus = (-input.abs()).exp().log1p() + (-input).clamp(min=0)            # log(1 + exp(-input))
        positive = 1 if pos_weight is None else (pos_weight - 1) * target + 1
        losses = (1 - target) * input + softplus * positive
        return _reduced(losses if weight is None else losses * weight, reduction, "binary_cross_entropy_with_logits")
    return _elementwise("bce_with_logits", input, target, reduction, weight, pos_weight)


def kl_div(input, target, *, reduction="mean", log_target=False):
    """target * (log target - input), as in `torch.nn.functional.kl_div`: `input` holds logarithms, `target`
    probabilities.

    Parameters
    ----------
    log_target : bool
        Whether `target` holds logarithms, too.
    reduction : "mean" (over all elements), "batchmean" (the sum over the batch size: the divergence), "sum" or "none"
    """
    if target.requires_grad:
        losses = target.exp() * (target - input) if log_target else target * (target.log() - input)
        if reduction == "batchmean":
            return losses.sum() / input.shape[0]
        return _reduced(losses, reduction, "kl_div")
    kind = "kl_div_log" if log_target else "kl_div"
    if reduction == "batchmean":
        return _elementwise(kind, input, target, "sum") / input.shape[0]
    return _elementwise(kind, input, target, reduction)
