"""Every error that numbanet raises on purpose. They say operation, layer path, expected, received and remedy."""

from __future__ import annotations


class NumbanetError(Exception):
    """Base of all errors of this package.

    A module that lets the error pass adds its name, so that the message begins with the layer's path:
    ``features.3 conv2d: weight expects 64 input channels, x has 32``.
    """

    def __init__(self, message: str = ""):
        super().__init__(message)
        self.message = message
        self.path: list[str] = []          # innermost module first
        self.modules: list[object] = []    # the modules the error has passed through, innermost first

    def __str__(self) -> str:
        return f"{'.'.join(reversed(self.path))} {self.message}" if self.path else self.message

    def __reduce__(self):
        return _rebuild, (type(self), self.message, self.path)


def _rebuild(kind, message, path):
    error = kind(message)
    error.path = list(path)
    return error


class ShapeError(NumbanetError, ValueError):
    """Shapes, ranks, channels or sizes that do not fit."""


class DTypeError(NumbanetError, TypeError):
    """A dtype that an operation does not take."""


class IndexRangeError(NumbanetError, IndexError):
    """An index or label outside of its range."""


class BackendError(NumbanetError, RuntimeError):
    """A backend is missing, mixed with another one, lacks a primitive, or failed to compile a kernel."""


class AutogradError(NumbanetError, RuntimeError):
    """A gradient that cannot be computed: second backward, saved tensor changed in place, no scalar."""


class MemoryLimitError(NumbanetError, MemoryError):
    """A plan that does not fit into the memory there is, or into the limit it was given."""


class CheckpointError(NumbanetError, RuntimeError):
    """Weights or checkpoints that cannot be read, written or matched with a model."""


class DataError(NumbanetError, ValueError):
    """A data file or folder that is missing, truncated, broken or of another format than it says."""


class OnnxError(NumbanetError, ValueError):
    """An ONNX model that is damaged, contradicts itself or reaches outside of its folder."""


class UsageError(NumbanetError, ValueError):
    """A request that cannot be fulfilled as it was put: unknown model, option out of range, existing folder."""


class UnsupportedOperationError(NumbanetError, NotImplementedError):
    """Something that numbanet does not do; the message says what to use instead."""


class TrainingError(NumbanetError, RuntimeError):
    """Training that cannot go on: the loss is no longer a number."""
