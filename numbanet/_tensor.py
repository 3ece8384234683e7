"""Tensor: an array on a backend, with its storage's version, its gradient and its record on the tape. No mathematics.

Operators and methods are attached by `numbanet.ops`.
"""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict

import numpy as np

from numbanet import dtypes
from numbanet.backends import get_backend
from numbanet.errors import AutogradError, DTypeError, UsageError

_hook_id = itertools.count().__next__
_default_device: str | None = None


class device(str):
    """A device's name, as in PyTorch: ``device("cuda:0")``, with `.type` and `.index`."""

    def __new__(cls, name="cpu", index: int | None = None):
        return super().__new__(cls, name if index is None else f"{name}:{index}")

    @property
    def type(self) -> str:
        return self.partition(":")[0]

    @property
    def index(self) -> int | None:
        index = self.partition(":")[2]
        return int(index) if index else None


def get_default_device() -> device:
    """Where factories put tensors: NUMBANET_DEVICE, else "cpu"."""
    return device(_default_device or os.environ.get("NUMBANET_DEVICE") or "cpu")


def set_default_device(name: str | None) -> None:
    """Set :func:`get_default_device`; None returns to the environment's."""
    global _default_device
    if name is not None:
        get_backend(str(name))
    _default_device = None if name is None else str(name)


def backend_of(name=None):
    """The backend of a device name, a tensor, or of the default device."""
    if isinstance(name, Tensor):
        return name.backend
    return get_backend(str(name) if name is not None else get_default_device())


class Storage:
    """Memory that views share.

    `version` is raised by everything that changes it in place; `recorded` is the version of the last change on the tape.
    """

    __slots__ = ("version", "recorded", "__weakref__")

    def __init__(self):
        self.version = self.recorded = 0


class Tensor:
    """An n-dimensional array that operations can record.

    Make one with :func:`numbanet.tensor`, :func:`numbanet.zeros`, ... Attributes: `array` (the backend's), `backend`,
    `requires_grad`, `grad` (a Tensor or None), `shape`, `dtype`, `device`.
    """

    __slots__ = ("array", "backend", "storage", "requires_grad", "grad", "_record", "_index", "_seen", "_hooks", "_post_hooks",
                 "__weakref__", "__dict__")
    __array_priority__ = 1000          # NumPy defers to our reflected operators

    def __init__(self, data, dtype=None, device=None, requires_grad: bool = False):
        made = tensor(data, dtype=dtype, device=device)
        self._set(made.array, made.backend, made.storage, requires_grad)

    def _set(self, array, backend, storage, requires_grad=False):
        self.array, self.backend, self.storage = array, backend, storage
        self._seen = storage.version            # at which the tensor's record is the truth
        self.requires_grad, self.grad = requires_grad, None
        self._record, self._index, self._hooks, self._post_hooks = None, 0, None, None

    @classmethod
    def _wrap(cls, array, backend, storage=None, requires_grad: bool = False) -> Tensor:
        """A tensor around a backend's array; `storage` is given where it shares memory with another tensor."""
        made = cls.__new__(cls)
        made.array, made.backend, made.storage = array, backend, Storage() if storage is None else storage
        made._seen = made.storage.version
        made.requires_grad, made.grad = requires_grad, None
        made._record, made._index, made._hooks, made._post_hooks = None, 0, None, None
        return made

    # What it is
    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def size(self, dim: int | None = None):
        """The shape, or the length of one dimension."""
        return self.array.shape if dim is None else self.array.shape[dim]

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def device(self) -> device:
        return device(self.backend.name)

    @property
    def ndim(self) -> int:
        return len(self.array.shape)

    def dim(self) -> int:
        return len(self.array.shape)

    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for n in self.array.shape:
            count *= n
        return count

    nelement, ndimension = numel, dim

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def element_size(self) -> int:
        return self.array.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.numel() * self.array.dtype.itemsize

    def stride(self, dim: int | None = None):
        """Distance in elements between neighbours along each dimension, or along one."""
        strides = tuple(s // self.array.dtype.itemsize for s in self.array.strides)
        return strides if dim is None else strides[dim]

    def is_floating_point(self) -> bool:
        return dtypes.is_floating_point(self.array.dtype)

    @property
    def _version(self) -> int:
        return self.storage.version

    def __len__(self) -> int:
        if not self.array.shape:
            raise TypeError("len() of a tensor without dimensions")
        return self.array.shape[0]

    def __hash__(self):
        return id(self)

    # Values
    def numpy(self) -> np.ndarray:
        """The values as a read-only NumPy view (a copy where the device's memory is not the host's)."""
        if self.requires_grad:
            raise AutogradError("numpy: the tensor requires a gradient, which NumPy would lose; use .detach().numpy()")
        view = self.backend.to_numpy(self.array).view()
        view.flags.writeable = False
        return view

    def __array__(self, dtype=None, copy=None):
        values = self.detach().numpy()
        if dtype is not None and values.dtype != dtype:
            return values.astype(dtype)
        return values.copy() if copy or copy is None else values

    def item(self):
        """The only element as a Python number."""
        if self.numel() != 1:
            raise UsageError(f"item: expected a tensor of one element, received shape {self.shape}")
        return self.backend.to_numpy(self.array).item()

    def tolist(self):
        """Nested lists of Python numbers."""
        return self.backend.to_numpy(self.array).tolist()

    # Autograd
    @property
    def is_leaf(self) -> bool:
        return self._record is None

    @property
    def grad_fn(self):
        """The record of the operation that made the tensor; None for leaves."""
        return self._record

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for a gradient (in place)."""
        if requires_grad and not self.is_floating_point():
            raise DTypeError(f"requires_grad_: only floating-point tensors have gradients, received {self.dtype}")
        if not requires_grad and self._record is not None:
            raise AutogradError("requires_grad_: only leaves can be switched off; use .detach()")
        self.requires_grad = requires_grad
        return self

    def detach(self) -> Tensor:
        """The same memory without the tape."""
        return Tensor._wrap(self.array, self.backend, self.storage)

    def detach_(self) -> Tensor:
        """Cut the tape here, in place."""
        self.requires_grad, self._record = False, None
        return self

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if value.backend is not self.backend or value.shape != self.shape:
            self.array, self.backend, self.storage = value.array, value.backend, value.storage
        else:
            self.array, self.storage = value.array, value.storage
        self._seen = self.storage.version

    def backward(self, gradient=None, retain_graph: bool = False, create_graph: bool = False, inputs=None) -> None:
        """Gradients of this tensor, added to `.grad` of all leaves behind it. See :func:`numbanet.autograd.backward`."""
        from numbanet.autograd.tape import backward
        backward([self], None if gradient is None else [gradient], retain_graph, create_graph, inputs)

    def retain_grad(self) -> None:
        """Keep `.grad` of a tensor that is not a leaf."""
        if self._record is not None:
            import weakref
            if self._record.retained is None:
                self._record.retained = {}
            self._record.retained[self._index] = weakref.ref(self)

    def register_hook(self, hook):
        """Call `hook(grad)` when this tensor's gradient is computed; a returned tensor replaces it. Returns a handle."""
        if not self.requires_grad:
            raise AutogradError("register_hook: the tensor does not require a gradient")
        if self._record is None:
            self._hooks = self._hooks if self._hooks is not None else OrderedDict()
            return RemovableHandle(self._hooks, hook)
        if self._record.hooks is None:
            self._record.hooks = {}
        return RemovableHandle(self._record.hooks.setdefault(self._index, OrderedDict()), hook)

    def register_post_accumulate_grad_hook(self, hook):
        """Call `hook(tensor)` after a leaf's `.grad` was updated. Returns a handle."""
        if self._record is not None:
            raise AutogradError("register_post_accumulate_grad_hook: expected a leaf")
        self._post_hooks = self._post_hooks if self._post_hooks is not None else OrderedDict()
        return RemovableHandle(self._post_hooks, hook)


class RemovableHandle:
    """Takes a hook out again: ``handle.remove()``, or leaving a with block."""

    def __init__(self, hooks: dict, hook, prepend: bool = False):
        self.hooks, self.key = hooks, _hook_id()
        hooks[self.key] = hook
        if prepend:
            hooks.move_to_end(self.key, last=False)

    def remove(self) -> None:
        self.hooks.pop(self.key, None)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.remove()


def tensor(data, dtype=None, device=None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of `data`: numbers, nested lists, NumPy arrays, tensors.

    Python floats give the default dtype (float32), integers int64, NumPy arrays their own dtype.
    """
    backend = backend_of(device if device is not None else data if isinstance(data, Tensor) else None)
    values = _host_values(data)
    wanted = dtypes.as_dtype(dtype) if dtype is not None else _dtype_of(data, values)
    array = backend.from_numpy(np.array(values, dtype=wanted, order="C", copy=True))
    made = Tensor._wrap(array, backend)
    return made.requires_grad_() if requires_grad else made


def as_tensor(data, dtype=None, device=None) -> Tensor:
    """`data` as a tensor, without a copy where nothing has to change."""
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)
    if isinstance(data, np.ndarray) and dtype is None:
        return from_numpy(data, device)
    return tensor(data, dtype, device)


def is_tensor(value) -> bool:
    """Whether `value` is a tensor."""
    return isinstance(value, Tensor)


def numel(x: Tensor) -> int:
    """Number of elements."""
    return x.numel()


def is_floating_point(x: Tensor) -> bool:
    """True for float16, bfloat16, float32, float64."""
    return x.is_floating_point()


def from_numpy(array: np.ndarray, device=None) -> Tensor:
    """A tensor over the memory of a NumPy array where the device can share it, else a copy."""
    if not isinstance(array, np.ndarray):
        raise DTypeError(f"from_numpy: expected a numpy.ndarray, received {type(array).__name__}; use numbanet.tensor")
    backend = backend_of(device)
    return Tensor._wrap(backend.from_numpy(_supported(array)), backend)


def _supported(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "fiub" and values.dtype.name != "bfloat16":
        raise DTypeError(f"tensor: values of dtype {values.dtype} are not supported; expected numbers or booleans")
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _host_values(data) -> np.ndarray:
    if isinstance(data, Tensor):
        return data.detach().numpy()
    if isinstance(data, (list, tuple)) and any(isinstance(v, Tensor) for v in data):
        data = [v.detach().numpy() if isinstance(v, Tensor) else v for v in data]
    try:
        return _supported(np.asarray(data))
    except ValueError as error:
        raise UsageError(f"tensor: the nested lists are ragged or hold no numbers ({error})") from None


def _dtype_of(data, values: np.ndarray) -> np.dtype:
    if isinstance(data, (np.ndarray, np.generic, Tensor)) or hasattr(data, "__array_interface__"):
        return values.dtype
    return dtypes.get_default_dtype() if values.dtype.kind == "f" else values.dtype
