"""DLPack: arrays of a GPU to and from PyTorch, CuPy, JAX without a copy.

The structures are those of the DLPack specification, version 0.8, the one that every library reads. In the simulator arrays are the host's.
"""

from __future__ import annotations

import ctypes

import numpy as np

from numbanet.backends.cuda.memory import Allocator, DeviceArray
from numbanet.errors import BackendError

CPU, CUDA, MANAGED = 1, 2, 13
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_KINDS = {0: "i", 1: "u", 2: "f", 6: "b"}
BFLOAT = 4
_NAME = b"dltensor"


class _Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_api = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(("PyCapsule_New", _api))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))
_is_unused = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer_of_dying = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_USED = ctypes.create_string_buffer(b"used_dltensor")

_exported: dict[int, tuple] = {}          # address of the structure -> all that must live until its deleter is called


@_Deleter
def _forget(managed):
    _exported.pop(ctypes.addressof(managed.contents), None)


@_Destructor
def _destroy(capsule):
    if _is_unused(capsule, _NAME):                      # nobody took it
        _exported.pop(_pointer_of_dying(capsule, _NAME), None)


def device_of(x: DeviceArray) -> tuple[int, int]:
    """(kind, number) as DLPack counts devices."""
    return (CPU, 0) if isinstance(x.lease.handle, np.ndarray) else (CUDA, x.device.index)


def export(x: DeviceArray):
    """A capsule over x's memory, whose contents are complete."""
    x.device.synchronize()
    shape, strides = ((ctypes.c_int64 * max(x.ndim, 1))(*values) for values in (x.shape, x.steps))
    code = BFLOAT if x.dtype.name == "bfloat16" else _CODES[x.dtype.kind]
    address = x.lease.handle.ctypes.data + x.offset if isinstance(x.lease.handle, np.ndarray) else x.pointer
    managed = _Managed(_Tensor(address, *device_of(x), x.ndim, code, 8 * x.itemsize, 1, shape, strides, 0), None, _forget)
    _exported[ctypes.addressof(managed)] = managed, shape, strides, x
    return _new(ctypes.addressof(managed), _NAME, _destroy)


class ForeignLease:
    """Memory that another library owns, until the last view of it dies."""

    def __init__(self, allocator: Allocator, handle, nbytes: int, managed):
        self.allocator, self.handle, self.nbytes, self._managed = allocator, handle, nbytes, managed

    def __del__(self):
        if self._managed.deleter:
            self._managed.deleter(ctypes.pointer(self._managed))


def take(capsule, allocator: Allocator) -> DeviceArray:
    """An array over the memory in a capsule; the capsule cannot be used again.

    Raises
    ------
    BackendError
        It was used, or holds what arrays here cannot be: negative strides, vector lanes, another kind of memory.
    """
    if not _is_valid(capsule, _NAME):
        raise BackendError("from_dlpack: the capsule was used before, or is of another version of DLPack")
    managed = _Managed.from_address(_pointer(capsule, _NAME))
    tensor = managed.tensor
    shape = tuple(tensor.shape[:tensor.ndim])
    dtype = _dtype(tensor)
    strides = [1] * tensor.ndim
    for axis in range(tensor.ndim - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    strides = tuple(tensor.strides[:tensor.ndim]) if tensor.strides else tuple(strides)
    if min(strides, default=0) < 0:
        raise BackendError(f"from_dlpack: expected strides that are not negative, received {strides}")
    nbytes = (1 + sum((n - 1) * s for n, s in zip(shape, strides))) * dtype.itemsize if 0 not in shape else 0
    address = (tensor.data or 0) + tensor.byte_offset
    handle = address
    if tensor.device_type == CPU:
        handle = np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), np.uint8) if nbytes else np.empty(0, np.uint8)
    _rename(capsule, ctypes.cast(_USED, ctypes.c_char_p))
    lease = ForeignLease(allocator, handle, nbytes, managed)
    return DeviceArray(lease, 0, shape, tuple([s * dtype.itemsize for s in strides]), dtype)


def _dtype(tensor: _Tensor) -> np.dtype:
    if tensor.lanes != 1 or tensor.code not in (*_KINDS, BFLOAT):
        raise BackendError(f"from_dlpack: elements of code {tensor.code}, {tensor.bits} bits and {tensor.lanes} lanes have no dtype here")
    if tensor.code == BFLOAT:
        from numbanet.dtypes import as_dtype
        return as_dtype("bfloat16")
    return np.dtype(f"{_KINDS[tensor.code]}{tensor.bits // 8}")
