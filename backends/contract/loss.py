"""Losses that are one pass over the logits."""

from __future__ import annotations

from numbanet.backends.contract.checks import check_float, check_rank, check_shape
from numbanet.backends.interface import Array, ArraySpec, like, primitive
from numbanet.errors import DTypeError


@primitive
def softmax_cross_entropy_forward(logits: Array, target: Array):
    """Mean over the batch of -log softmax(logits)[n, target[n]]: (loss (), log_probabilities (N, C))."""
    check_float("cross_entropy", logits=logits)
    check_rank("cross_entropy", "logits", logits, 2, "(N, C)")
    if target.dtype.kind != "i":
        raise DTypeError(f"cross_entropy: target expects int64 class indices, received {target.dtype}")
    check_shape("cross_entropy", "target", target, logits.shape[:1])
    return ArraySpec((), logits.dtype), like(logits)


@primitive
def softmax_cross_entropy_backward_input(grad_loss: Array, log_probabilities: Array, target: Array):
    """(softmax - one_hot(target)) * grad_loss / N."""
    check_float("softmax_cross_entropy_backward_input", grad_loss=grad_loss, log_probabilities=log_probabilities)
    return like(log_probabilities)
