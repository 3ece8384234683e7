"""What of a network's output is explained; names and call shape are pytorch-grad-cam's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from numbanet._tensor import Tensor
from numbanet.errors import ShapeError, UsageError
from numbanet.ops.softmax import softmax


class ClassifierOutputTarget:
    """The score of one class, before the softmax."""

    def __init__(self, category: int):
        self.category = category

    def __call__(self, model_output):
        return _score(model_output, self.category)


class ClassifierOutputSoftmaxTarget:
    """The probability of one class."""

    def __init__(self, category: int):
        self.category = category

    def __call__(self, model_output):
        return softmax(_score_of(model_output), -1)[..., _checked(model_output, self.category)]


def _score_of(output):
    if not isinstance(output, Tensor) or output.ndim not in (1, 2):
        received = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ShapeError(f"target: expects a classifier's output (N, classes), received {received}; "
                         "pass targets that make a number of it")
    return output


def _checked(output, category: int) -> int:
    classes = output.shape[-1]
    if not 0 <= category < classes:
        raise UsageError(f"target: expects a class from 0 to {classes - 1}, received {category}")
    return category


def _score(output, category: int):
    return _score_of(output)[..., _checked(_score_of(output), category)]


def first_classes(outputs: Tensor) -> list[int]:
    """The most probable class of each image."""
    return [int(k) for k in _score_of(outputs).detach().argmax(-1).numpy().reshape(-1)]


def total(outputs: Tensor, targets: Sequence[Callable] | None) -> Tensor:
    """The sum over the batch of each image's target, of which the gradient is taken; by default its most probable class."""
    if targets is None:
        targets = [ClassifierOutputTarget(k) for k in first_classes(outputs)]
    if len(targets) != len(outputs):
        raise UsageError(f"targets: expected one for each of {len(outputs)} images, received {len(targets)}")
    if not targets:                             # an empty batch: 0, whose gradients are empty
        return outputs.sum()
    result = None
    for target, output in zip(targets, outputs):
        value = target(output)
        result = value if result is None else result + value
    return result
