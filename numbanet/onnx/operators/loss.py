"""Losses: negative log-likelihood and cross-entropy, with labels for every pixel, weights and an ignored label."""

from __future__ import annotations

from numbanet.errors import UnsupportedOperationError
from numbanet.nn import functional as F
from numbanet.onnx.operators.registry import operator

NO_LABEL = -(1 << 31)               # where nothing is ignored


def _options(node):
    reduction = node.attributes.get("reduction", "mean")
    if reduction not in ("none", "mean", "sum"):
        raise UnsupportedOperationError(f"{node}: reduction expects none, mean or sum, received {reduction!r}")
    return {"ignore_index": node.attributes.get("ignore_index", NO_LABEL), "reduction": reduction}


@operator("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood_loss(node, x, target, weight=None):
    """-weight[t] * x[n, t] for each label t; x (N, C, ...) holds logarithms of probabilities."""
    return F.nll_loss(x, target.long(), weight, **_options(node))


@operator("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy_loss(node, scores, labels, weight=None):
    """Cross-entropy of softmax(scores) with labels, and on request log_softmax(scores)."""
    loss = F.cross_entropy(scores, labels.long(), weight, **_options(node))
    return (loss, F.log_softmax(scores, 1)) if node.wants(1) else loss
