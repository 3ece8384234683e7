"""Losses: each is one pass over its input, forward and backward.

Classification, over logits (N, C, ...) and class indices (N, ...), log p = log softmax(logits) along the classes::

    loss[n] = -sum over c of q[n, c] * log p[n, c]
    q[n, c] = (1 - label_smoothing) * class_weight[target[n]] * (c == target[n]) + label_smoothing / C * class_weight[c]

and q[n] = 0 where target[n] is `ignore_index`. The mean divides by total_weight, the sum of class_weight[target[n]]
over what is not ignored. `nll_loss` takes log p instead of logits.

Elementwise, x and target of one shape: `ELEMENTWISE_LOSSES` names the formulas; the mean divides by the number of
elements.
"""

from __future__ import annotations

from numbanet.backends.contract.checks import check_float, check_shape
from numbanet.backends.contract.elementwise import broadcast_shape
from numbanet.backends.interface import Array, ArraySpec, like, primitive
from numbanet.errors import DTypeError, IndexRangeError, ShapeError, UsageError

REDUCTIONS = ("none", "mean", "sum")

# x against target t; d = x - t; p is the loss's parameter
ELEMENTWISE_LOSSES = (
    "mse",              # d^2
    "l1",               # |d|
    "smooth_l1",        # d^2 / (2 p) where |d| < p, else |d| - p / 2
    "huber",            # p times smooth_l1
    "bce",              # -(t log x + (1 - t) log(1 - x)), logarithms not below -100
    "bce_with_logits",  # the same of sigmoid(x), computed from x
    "kl_div",           # t (log t - x), 0 where t = 0
    "kl_div_log",       # exp(t) (t - x)
)


def check_reduction(operation: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise UsageError(f"{operation}: reduction expects one of {', '.join(REDUCTIONS)}, received {reduction!r}")


def label_error(operation: str, position: tuple[int, ...], label: int, classes: int,
                ignore_index: int) -> IndexRangeError:
    """The error for a label that is no class; every backend raises it before it returns a result."""
    where = ", ".join(str(int(p)) for p in position)
    return IndexRangeError(f"{operation}: target[{where}] is {label}, expected a class from 0 to {classes - 1} "
                           f"(or {ignore_index}, which is ignored); check the number of classes, and that labels "
                           "start at 0")


def probability_error(value: float) -> UsageError:
    """The error for an input of "bce" that is no probability; every backend raises it before it returns a result."""
    return UsageError(f"binary_cross_entropy: input expects probabilities from 0 to 1, received {value:g}; "
                      "apply sigmoid first, or use binary_cross_entropy_with_logits")


def _check_classification(operation, x, target, class_weight, reduction) -> ArraySpec:
    """Checks; the specification of the loss."""
    check_float(operation, input=x, class_weight=class_weight)
    if len(x.shape) < 2 or x.shape[1] == 0:
        raise ShapeError(f"{operation}: input expects (N, C, ...) with at least one class, received {x.shape}")
    if target.dtype.kind not in "iu":
        raise DTypeError(f"{operation}: target expects int64 class indices, received {target.dtype}; "
                         "convert it with .long()")
    expected = (x.shape[0], *x.shape[2:])
    check_shape(operation, "target", target, expected)
    check_shape(operation, "weight", class_weight, x.shape[1:2])
    check_reduction(operation, reduction)
    return ArraySpec(expected if reduction == "none" else (), x.dtype)


def _check_classification_backward(operation, grad_loss, shape, target, reduction) -> None:
    expected = (shape[0], *shape[2:])
    check_shape(operation, "target", target, expected)
    check_shape(operation, "grad_loss", grad_loss, expected if reduction == "none" else ())


@primitive
def softmax_cross_entropy_forward(logits: Array, target: Array, class_weight: Array | None, ignore_index: int,
                                  label_smoothing: float, reduction: str):
    """(loss, log_probabilities (N, C, ...), total_weight ()); loss is () or, with reduction "none", (N, ...)."""
    loss = _check_classification("cross_entropy", logits, target, class_weight, reduction)
    return loss, like(logits), ArraySpec((), logits.dtype)


@primitive
def softmax_cross_entropy_backward_input(grad_loss: Array, log_probabilities: Array, target: Array,
                                         class_weight: Array | None, total_weight: Array, ignore_index: int,
                                         label_smoothing: float, reduction: str):
    """Gradient with respect to the logits: grad_loss[n] * (p[n, c] * (sum over c of q[n, c]) - q[n, c])."""
    check_float("softmax_cross_entropy_backward_input", grad_loss=grad_loss, log_probabilities=log_probabilities)
    _check_classification_backward("softmax_cross_entropy_backward_input", grad_loss, log_probabilities.shape, target,
                                   reduction)
    return like(log_probabilities)


@primitive
def nll_loss_forward(log_probabilities: Array, target: Array, class_weight: Array | None, ignore_index: int,
                     reduction: str):
    """(loss, total_weight ()), as `softmax_cross_entropy_forward` without the softmax and without smoothing."""
    loss = _check_classification("nll_loss", log_probabilities, target, class_weight, reduction)
    return loss, ArraySpec((), log_probabilities.dtype)


@primitive
def nll_loss_backward_input(grad_loss: Array, target: Array, class_weight: Array | None, total_weight: Array,
                            shape: tuple[int, ...], ignore_index: int, reduction: str):
    """Gradient with respect to log_probabilities, of the given shape: -q, times grad_loss."""
    check_float("nll_loss_backward_input", grad_loss=grad_loss, class_weight=class_weight)
    _check_classification_backward("nll_loss_backward_input", grad_loss, shape, target, reduction)
    return ArraySpec(shape, grad_loss.dtype)


def _check_elementwise(operation, x, target, weight, pos_weight, kind, reduction) -> ArraySpec:
    if kind not in ELEMENTWISE_LOSSES:
        raise UsageError(f"{operation}: kind expects one of {', '.join(ELEMENTWISE_LOSSES)}, received {kind!r}")
    check_float(f"{kind}_loss", input=x, target=target, weight=weight, pos_weight=pos_weight)
    check_shape(f"{kind}_loss", "target", target, x.shape)
    check_reduction(f"{kind}_loss", reduction)
    for name, w in (("weight", weight), ("pos_weight", pos_weight)):
        if w is not None and broadcast_shape(f"{kind}_loss {name}", x.shape, w.shape) != x.shape:
            raise ShapeError(f"{kind}_loss: {name} expects a shape that broadcasts to {x.shape}, received {w.shape}")
    return like(x) if reduction == "none" else ArraySpec((), x.dtype)


@primitive
def elementwise_loss_forward(x: Array, target: Array, weight: Array | None, pos_weight: Array | None, kind: str,
                             parameter: float, reduction: str):
    """The loss of `kind` between x and target: of x's shape (reduction "none") or ().

    `weight` multiplies each element's loss; `pos_weight`, of "bce_with_logits" only, the part with t.
    """
    return _check_elementwise("elementwise_loss_forward", x, target, weight, pos_weight, kind, reduction)


@primitive
def elementwise_loss_backward_input(grad_loss: Array, x: Array, target: Array, weight: Array | None,
                                    pos_weight: Array | None, kind: str, parameter: float, reduction: str):
    """Gradient with respect to x; at the kink of l1 it is 0."""
    loss = _check_elementwise("elementwise_loss_backward_input", x, target, weight, pos_weight, kind, reduction)
    check_float("elementwise_loss_backward_input", x=x, grad_loss=grad_loss)
    check_shape("elementwise_loss_backward_input", "grad_loss", grad_loss, loss.shape)
    return like(x)
