"""What a pickle of PyTorch may mention: storages, tensors over them, and the plain values beside them.

Nothing here holds data: a :class:`TensorView` says which elements of a :class:`Storage` make up a tensor, and becomes an array when
the file's bytes are at hand. The functions take the arguments of their namesakes in `torch/_utils.py` and check them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from numbanet import dtypes
from numbanet.errors import CheckpointError
from numbanet.weights.mapping import checked_size

_STORAGES = {"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
             "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
             "BoolStorage": "bool"}
STORAGE_OF = {dtype: name for name, dtype in _STORAGES.items()}
_DTYPES = ("float64", "double", "float32", "float", "float16", "half", "bfloat16", "int64", "long", "int32", "int", "int16", "short",
           "int8", "uint8", "bool")
FREE_OVERLAP = 64 << 20         # bytes of tensors that share elements
MAX_OVERLAP = 8


class StorageType(str):
    """A class of storages; the text is the dtype's name."""


class Storage:
    """A flat run of elements in the file."""

    __slots__ = ("key", "dtype", "count", "values")

    def __init__(self, key: str, dtype: np.dtype, count: int):
        self.key, self.dtype, self.count = key, dtype, count
        self.values: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


class TensorView:
    """A tensor as offset, shape and strides, in elements of its storage."""

    __slots__ = ("storage", "offset", "shape", "strides")

    def __init__(self, storage: Storage, offset: int, shape: tuple, strides: tuple):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    @property
    def nbytes(self) -> int:
        return checked_size("a tensor", self.shape, self.storage.dtype)

    def array(self) -> np.ndarray:
        """A view of the storage's values."""
        values, step = self.storage.values, self.storage.dtype.itemsize
        if not self.nbytes:
            return np.empty(self.shape, self.storage.dtype)
        return np.lib.stride_tricks.as_strided(values[self.offset:], self.shape, [s * step for s in self.strides])


class Storages:
    """The storages that a pickle mentions, by key; :meth:`find` serves its persistent ids."""

    def __init__(self, prepare: Callable[[Storage], None] = lambda storage: None):
        self.by_key: dict[str, Storage] = {}
        self._prepare = prepare

    def find(self, description) -> Storage:
        """From ('storage', type, key, location, count), in the legacy format also a sixth, the storage that it is a part of."""
        if type(description) is not tuple or len(description) not in (5, 6) or description[0] != "storage":
            raise CheckpointError("a persistent id that describes no storage")
        _, kind, key, location, count = description[:5]
        if not isinstance(kind, StorageType) or type(key) is not str or type(location) is not str or type(count) is not int or count < 0:
            raise CheckpointError("a storage that is described in another way than PyTorch does")
        if len(description) == 6 and description[5] is not None:
            raise CheckpointError("storages that are parts of others, as PyTorch wrote before version 0.4; load it there and save it again")
        dtype = dtypes.as_dtype(str(kind))
        known = self.by_key.get(key)
        if known is None:
            checked_size(f"storage {key!r:.40}", (count,), dtype)
            known = self.by_key[key] = Storage(key, dtype, count)
            self._prepare(known)
        elif (known.dtype, known.count) != (dtype, count):
            raise CheckpointError(f"storage {key!r:.40} is described in two ways")
        return known


def rebuild_tensor(storage, offset, shape, strides) -> TensorView:
    """torch._utils._rebuild_tensor: every element must lie in the storage."""
    if not isinstance(storage, Storage) or any(type(n) is not tuple for n in (shape, strides)) or len(shape) != len(strides):
        raise CheckpointError("a tensor that is described in another way than PyTorch does")
    if any(type(n) is not int or n < 0 for n in (offset, *shape, *strides)):
        raise CheckpointError("a tensor whose offset, shape and strides are not all numbers from 0")      # their repr might be endless
    checked_size("a tensor", shape, storage.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides)) if 0 not in shape else offset - 1
    if last >= storage.count:
        raise CheckpointError(f"a tensor of shape {shape} and strides {strides} from element {offset} ends beyond its storage of "
                              f"{storage.count}")
    return TensorView(storage, offset, shape, strides)


def rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, backward_hooks, metadata=None) -> TensorView:
    """torch._utils._rebuild_tensor_v2."""
    made = rebuild_tensor(storage, offset, shape, strides)
    if type(requires_grad) is not bool or requires_grad and not dtypes.is_floating_point(made.storage.dtype):
        raise CheckpointError("a tensor whose requires_grad is not plain")
    if not (backward_hooks is None or isinstance(backward_hooks, dict)) or metadata:
        raise CheckpointError("a tensor with hooks or metadata")
    return made


def rebuild_parameter(data, requires_grad, backward_hooks) -> TensorView:
    """torch._utils._rebuild_parameter: numbanet's own parameters say whether they are trained."""
    if not isinstance(data, TensorView) or type(requires_grad) is not bool:
        raise CheckpointError("a parameter that is described in another way than PyTorch does")
    return data


def _ordered_dict() -> OrderedDict:
    return OrderedDict()


def _size(numbers=()) -> tuple:
    if type(numbers) is not tuple:
        raise CheckpointError("a torch.Size that is no tuple")
    return numbers


def _device(kind, index=0) -> str:
    """Where a tensor was; it comes to the host in any case."""
    return kind


FUNCTIONS = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    **{("torch", name): StorageType(dtype) for name, dtype in _STORAGES.items()},
    **{("torch", name): name for name in _DTYPES},
}


def materialise(views: dict[str, TensorView], file_size: int) -> dict[str, np.ndarray]:
    """The arrays of tensors whose storages have their values.

    Tensors may share elements (tied weights, expanded ones), but not to the point where a small file stands for endless arrays.
    """
    total = sum(view.nbytes for view in views.values())
    if total > max(FREE_OVERLAP, MAX_OVERLAP * file_size):
        raise CheckpointError(f"tensors of {total} bytes over {file_size} bytes of data: they share their elements; save .clone() of each")
    return {name: view.array() for name, view in views.items()}
