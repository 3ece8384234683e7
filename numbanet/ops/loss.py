"""Losses."""

from __future__ import annotations

from numbanet.autograd.operation import Operation


class SoftmaxCrossEntropy(Operation):
    """Mean of -log softmax(logits)[n, target[n]]."""

    operation_name = "cross_entropy"

    def forward(self, backend, logits, target):
        loss, log_probabilities = backend.softmax_cross_entropy_forward(logits, target)
        self.save(log_probabilities, target)
        return loss

    def backward(self, backend, grad_loss, needs):
        log_probabilities, target = self.saved
        return backend.softmax_cross_entropy_backward_input(grad_loss, log_probabilities, target), None


def cross_entropy(logits, target):
    """Softmax and mean negative log-likelihood of class indices."""
    return SoftmaxCrossEntropy.apply(logits, target)
