"""From a list of samples to a batch of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from numbanet.data.dataset import CollatedBatch, TensorRows
from numbanet.errors import DataError


def default_collate(samples: Sequence[Any]) -> Any:
    """Stack samples along a new first axis, inside of tuples, lists and dicts, and make tensors.

    Arrays and tensors keep their dtype; Python integers become int64, floats float64 and bools bool; strings stay a
    list.

    Raises
    ------
    DataError
        Samples that do not fit each other, or of a type that cannot be stacked (a PIL image).
    """
    if isinstance(samples, CollatedBatch):
        return [_as_tensor(part) for part in samples]
    if isinstance(samples, TensorRows):
        return [_as_tensor(column) for column in samples.columns()]
    return _collate(list(samples), "sample")


def _collate(values: list[Any], where: str) -> Any:
    first = values[0]
    if isinstance(first, str | bytes):
        return values
    if isinstance(first, Mapping):
        _expect_equal(values, lambda v: sorted(v, key=str), "keys", where)
        return {key: _collate([v[key] for v in values], f"{where}[{key!r}]") for key in first}
    if isinstance(first, tuple | list):
        _expect_equal(values, len, "lengths", where)
        columns = [_collate(list(column), f"{where}[{i}]") for i, column in enumerate(zip(*values))]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    return _stack(values, where)


def _stack(values: list[Any], where: str) -> Any:
    import numbanet

    first = values[0]
    if isinstance(first, bool | int | float):
        return numbanet.from_numpy(np.asarray(values, np.result_type(*{type(v) for v in values})))
    if isinstance(first, np.ndarray | np.generic):
        _expect_equal(values, np.shape, "shapes", where)
        same = isinstance(first, np.ndarray) and first.dtype.kind in "biuf" and all(v.dtype == first.dtype for v in values)
        return numbanet.from_numpy(np.stack(values, out=empty_batch((len(values), *first.shape), first.dtype) if same else None))
    if isinstance(first, numbanet.Tensor):
        _expect_equal(values, lambda v: tuple(v.shape), "shapes", where)
        return numbanet.stack(values)
    hint = "add transforms.ToTensor()" if hasattr(first, "getbands") else "convert it in the dataset or pass collate_fn"
    raise DataError(f"default_collate: {where} is of type {type(first).__name__}, expected arrays, tensors, numbers, "
                    f"strings, or tuples, lists and dicts of these; {hint}")


def empty_batch(shape: Sequence[int], dtype: np.dtype | type = np.uint8) -> np.ndarray:
    """An uninitialised array in memory that goes from batch to batch: fresh pages of the system cost as much as a quarter of decoding."""
    from numbanet.backends import get_backend

    return get_backend("cpu").empty(tuple(shape), np.dtype(dtype))


def _as_tensor(part: Any) -> Any:
    import numbanet

    return numbanet.from_numpy(part) if isinstance(part, np.ndarray) else part


def _expect_equal(values: list[Any], measure: Any, what: str, where: str) -> None:
    expected = measure(values[0])
    for position, value in enumerate(values):
        if type(value) is not type(values[0]) or measure(value) != expected:
            received = measure(value) if isinstance(value, type(values[0])) else type(value).__name__
            error = DataError(f"default_collate: expected equal {what} of {where} in a batch, received {expected} first "
                              f"and {received} at position {position}; resize or pad in a transform, or pass collate_fn")
            error.position = position       # the loader knows which sample that is
            raise error
