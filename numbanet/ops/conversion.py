"""Other dtypes and devices, and filling and copying in place."""

from __future__ import annotations

import builtins

import numpy as np

from numbanet import dtypes
from numbanet._tensor import Tensor, backend_of, tensor
from numbanet.autograd.in_place import apply_in_place
from numbanet.autograd.operation import Operation
from numbanet.errors import DTypeError, ShapeError
from numbanet.ops.elementwise import reduce_to


class Cast(Operation):
    """The same values in another dtype."""

    operation_name = "to"

    def forward(self, backend, x, dtype):
        self.save(x.dtype)
        return backend.cast(x, dtype)

    def backward(self, backend, grad_y, needs):
        dtype, = self.saved
        return backend.cast(grad_y, dtype)


class Transfer(Operation):
    """The same values on another device, by way of the host; the result is an array of the other backend."""

    operation_name = "to"

    def forward(self, backend, x, destination):
        self.save(destination)
        return destination.from_numpy(np.array(backend.to_numpy(x), order="K"))

    def backward(self, backend, grad_y, needs):
        destination, = self.saved
        return backend.from_numpy(np.array(destination.to_numpy(grad_y), order="K"))


class Fill(Operation):
    """Every element one number, or the element of a tensor without dimensions."""

    operation_name = "fill"

    @classmethod
    def keeps_input(cls, *arguments):
        return False

    def forward(self, backend, x, value):
        self.save(x.shape, x.dtype, hasattr(value, "shape"))
        value = backend.expand(backend.cast(value, x.dtype), x.shape) if hasattr(value, "shape") else backend.full(
            x.shape, value, x.dtype)
        return value if self.out is None else backend.copy(value, out=self.out)

    def backward(self, backend, grad_y, needs):
        shape, dtype, of_tensor = self.saved
        grad_x = backend.full(shape, 0.0, dtype) if needs[0] else None
        return (grad_x, reduce_to(backend, grad_y, ()) if needs[1] else None) if of_tensor else grad_x


class CopyFrom(Operation):
    """The values of another tensor, broadcast and in x's dtype."""

    operation_name = "copy"

    @classmethod
    def keeps_input(cls, *arguments):
        return False

    def forward(self, backend, x, source):
        self.save(x.shape, x.dtype, source.shape, source.dtype)
        values = source if source.dtype == x.dtype else backend.cast(source, x.dtype)
        return backend.copy(backend.expand(values, x.shape), out=self.out)

    def backward(self, backend, grad_y, needs):
        shape, dtype, source_shape, source_dtype = self.saved
        return (backend.full(shape, 0.0, dtype) if needs[0] else None,
                reduce_to(backend, grad_y, source_shape, source_dtype) if needs[1] else None)


def to(x, *args, dtype=None, device=None, other=None, copy=False, non_blocking=False, memory_format=None):
    """x in another dtype and on another device: ``to(float64)``, ``to("cpu")``, ``to("cpu", float64)``, ``to(other)``.

    Parameters
    ----------
    copy : whether to copy where nothing changes
    non_blocking, memory_format : accepted for PyTorch's sake; feature maps are channels-last in any case
    """
    for argument in args:
        if isinstance(argument, Tensor):
            other = argument
        elif argument is None or isinstance(argument, builtins.bool):
            continue
        elif isinstance(argument, str) and not _names_dtype(argument):
            device = argument
        else:
            dtype = argument
    if other is not None:
        dtype, device = other.dtype, other.device
    wanted = x.dtype if dtype is None else dtypes.as_dtype(dtype)
    backend = x.backend if device is None or str(device) == x.backend.name else backend_of(device)
    if backend is x.backend and wanted == x.dtype:
        return x.clone() if copy else x
    if wanted != x.dtype:
        x = Cast.apply(x, wanted)
    return x if backend is x.backend else _transferred(x, backend)


def _names_dtype(text: str) -> bool:
    return text.rpartition(".")[2] in ("bfloat16", "bool", "double", "float", "float16", "float32", "float64", "half", "int", "int32",
                                       "int64", "long", "uint8")


def _transferred(x, backend) -> Tensor:
    y = Transfer.apply(x, backend)
    y.backend = backend
    return y


def type(x, dtype=None):
    """x in another dtype, or the name of its own."""
    return f"numbanet.{x.dtype}" if dtype is None else to(x, dtypes.as_dtype(dtype))


def float(x, memory_format=None):
    """x as float32."""
    return to(x, dtypes.float32)


def double(x, memory_format=None):
    """x as float64."""
    return to(x, dtypes.float64)


def half(x, memory_format=None):
    """x as float16."""
    return to(x, dtypes.float16)


def bfloat16(x, memory_format=None):
    """x as bfloat16."""
    return to(x, "bfloat16")


def long(x, memory_format=None):
    """x as int64."""
    return to(x, dtypes.int64)


def int(x, memory_format=None):
    """x as int32."""
    return to(x, dtypes.int32)


def bool(x, memory_format=None):
    """x as booleans: whether it is not 0."""
    return to(x, dtypes.bool)


def byte(x, memory_format=None):
    """x as uint8."""
    return to(x, dtypes.uint8)


def fill_(x, value):
    """Set every element to a number or to a tensor without dimensions."""
    if isinstance(value, Tensor) and value.ndim:
        raise ShapeError(f"fill_: value expects a number or a tensor without dimensions, received shape {value.shape}")
    return apply_in_place(Fill, x, value)


def zero_(x):
    """Set every element to 0."""
    return apply_in_place(Fill, x, 0)


def copy_(x, source, non_blocking=False):
    """Set the elements to those of `source` (a tensor or array), broadcast, converted to x's dtype and device."""
    if not isinstance(source, Tensor):
        source = tensor(source, device=x.device)
    if x.dtype.kind != "f" and source.requires_grad:
        raise DTypeError(f"copy_: x of {x.dtype} cannot take a gradient to source; use source.detach()")
    return apply_in_place(CopyFrom, x, source if source.backend is x.backend else _transferred(source, x.backend))
