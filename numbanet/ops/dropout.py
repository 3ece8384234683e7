"""Dropout (Srivastava et al., 2014), of elements and of whole channels, and alpha dropout (Klambauer et al., 2017)."""

from __future__ import annotations

from numbanet.autograd.in_place import adopt, check_in_place
from numbanet.autograd.operation import Operation
from numbanet.errors import ShapeError, UsageError
from numbanet.random import next_key

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]


class Dropout(Operation):
    """Elements times 0 or 1 / (1 - p), by the numbers of a key; backward draws the same ones again."""

    operation_name = "dropout"

    def forward(self, backend, x, probability, key):
        self.save(probability, key)
        return backend.dropout(x, probability, key)

    def backward(self, backend, grad_y, needs):
        return backend.dropout(grad_y, *self.saved)


class ChannelDropout(Operation):
    """Whole channels times 0 or 1 / (1 - p): one number for each of the leading `rank` dimensions."""

    operation_name = "dropout2d"

    def forward(self, backend, x, probability, key, rank):
        self.save(probability, key, rank)
        return self._scaled(backend, x, probability, key, rank)

    def backward(self, backend, grad_y, needs):
        return self._scaled(backend, grad_y, *self.saved)

    @staticmethod
    def _scaled(backend, x, probability, key, rank):
        ones = backend.full(x.shape[:rank] + (1,) * (len(x.shape) - rank), 1.0, x.dtype)
        return backend.multiply(x, backend.dropout(ones, probability, key))


def _check(operation: str, p) -> float:
    if not 0 <= p <= 1:
        raise UsageError(f"{operation}: p expects a probability from 0 to 1, received {p}")
    return float(p)


def _result(operation: str, x, y, inplace):
    if not inplace or y is x:
        return y
    check_in_place(operation, x)
    x.backend.copy(y.array, out=x.array)
    return adopt(x, y)


def dropout(x, p=0.5, training=True, inplace=False, *, generator=None):
    """Set elements to 0 with probability `p` and scale the others by 1 / (1 - p), while training.

    The mask depends on the generator and on the elements' row-major positions alone: it is the same on every backend.

    Raises
    ------
    UsageError
        `p` is not from 0 to 1.
    """
    p = _check("dropout", p)
    if not training or p == 0:
        return x
    return _result("dropout", x, Dropout.apply(x, p, next_key(generator)), inplace)


def _channels(operation, x, p, training, inplace, generator, batched_rank):
    p = _check(operation, p)
    if x.ndim not in (batched_rank - 1, batched_rank):
        raise ShapeError(f"{operation}: x expects {batched_rank - 1} or {batched_rank} dimensions, received shape "
                         f"{x.shape}")
    if not training or p == 0:
        return x
    rank = 2 if x.ndim == batched_rank else 1
    return _result(operation, x, ChannelDropout.apply(x, p, next_key(generator), rank), inplace)


def dropout1d(x, p=0.5, training=True, inplace=False, *, generator=None):
    """:func:`dropout` of whole channels of (N, C, L) or (C, L)."""
    return _channels("dropout1d", x, p, training, inplace, generator, 3)


def dropout2d(x, p=0.5, training=True, inplace=False, *, generator=None):
    """:func:`dropout` of whole channels of (N, C, H, W) or (C, H, W) (Tompson et al., 2015)."""
    return _channels("dropout2d", x, p, training, inplace, generator, 4)


def dropout3d(x, p=0.5, training=True, inplace=False, *, generator=None):
    """:func:`dropout` of whole channels of (N, C, D, H, W) or (C, D, H, W)."""
    return _channels("dropout3d", x, p, training, inplace, generator, 5)


SELU_NEGATIVE = -1.7580993408473766     # -scale * alpha of SELU: its value at minus infinity


def _alpha(operation, x, p, training, inplace, generator, rank):
    p = _check(operation, p)
    if not training or p == 0:
        return x
    if p == 1:
        return _result(operation, x, x * 0.0, inplace)
    ones = x.detach()[tuple([slice(None)] * rank + [slice(0, 1)] * (x.ndim - rank))] * 0.0 + 1.0
    kept = dropout(ones, p, generator=generator) * (1 - p)                      # 0 or 1
    a = ((1 - p) * (1 + p * SELU_NEGATIVE ** 2)) ** -0.5                        # restores deviation 1
    return _result(operation, x, x * (kept * a) + ((1 - kept) * SELU_NEGATIVE + p * -SELU_NEGATIVE) * a, inplace)


def alpha_dropout(x, p=0.5, training=False, inplace=False, *, generator=None):
    """Set elements to SELU's value at minus infinity, then shift and scale: mean 0 and deviation 1 stay."""
    return _alpha("alpha_dropout", x, p, training, inplace, generator, x.ndim)


def feature_alpha_dropout(x, p=0.5, training=False, inplace=False, *, generator=None):
    """:func:`alpha_dropout` of whole channels of (N, C, ...)."""
    return _alpha("feature_alpha_dropout", x, p, training, inplace, generator, 2)
