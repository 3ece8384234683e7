"""Losses."""

from __future__ import annotations

import numpy as np

from numbanet.backends.reference.registry import implements


@implements
def softmax_cross_entropy_forward(logits, target, out):
    loss, log_probabilities = out
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities[...] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss[...] = -log_probabilities[np.arange(len(target)), target].mean()


@implements
def softmax_cross_entropy_backward_input(grad_loss, log_probabilities, target, out):
    np.exp(log_probabilities, out=out)
    out[np.arange(len(target)), target] -= 1
    out *= grad_loss / len(target)
