"""Tensors among other Python objects: numbers, iteration, copies, pickles, DLPack."""

from __future__ import annotations

import copy
import operator

import numpy as np

from numbanet._tensor import Tensor, backend_of, from_numpy, tensor
from numbanet.errors import AutogradError, BackendError, DTypeError, UsageError
from numbanet.ops.rearrange import unbind

__all__ = ["from_dlpack"]

CPU_DEVICE = (1, 0)         # DLPack's kDLCPU
CUDA_DEVICES = (2, 13)      # kDLCUDA, kDLCUDAManaged


# --- numbers --------------------------------------------------------------------------------------------------------

def _bool(x) -> bool:
    if x.numel() != 1:
        raise UsageError(f"bool: the truth of a tensor of shape {x.shape} is ambiguous; use .any() or .all()")
    return bool(x.item())


def _index(x) -> int:
    if x.dtype.kind not in "iub" or x.numel() != 1:
        raise DTypeError(f"index: only integer tensors of one element can be an index, received shape {x.shape} of "
                         f"{x.dtype}")
    return operator.index(int(x.item()))


def _iterate(x):
    if x.ndim == 0:
        raise TypeError("iteration over a tensor without dimensions")
    return iter(unbind(x, 0))


def _contains(x, element) -> bool:
    element = element.detach().numpy() if isinstance(element, Tensor) else element
    return bool((x.detach().numpy() == element).any())


Tensor.__bool__ = _bool
Tensor.__int__ = lambda x: int(x.item())
Tensor.__float__ = lambda x: float(x.item())
Tensor.__index__ = _index
Tensor.__iter__ = _iterate
Tensor.__contains__ = _contains


# --- copies and pickles ---------------------------------------------------------------------------------------------

def _deepcopy(x, memo):
    """A copy of a leaf, with its gradient and attributes."""
    if id(x) in memo:
        return memo[id(x)]
    if x._record is not None:
        raise AutogradError("deepcopy: only leaves can be copied, this tensor was computed; use .detach() or .clone()")
    made = memo[id(x)] = type(x)._wrap(x.backend.copy(x.array), x.backend, requires_grad=x.requires_grad)
    made.grad = None if x.grad is None else _deepcopy(x.grad, memo)
    for name, value in _attributes(x).items():
        setattr(made, name, copy.deepcopy(value, memo))
    return made


def _attributes(x) -> dict:
    """What users and subclasses have added to the tensor."""
    kinds = [kind for kind in type(x).__mro__ if kind is not Tensor and issubclass(kind, Tensor)]
    slots = [name for kind in kinds for name in kind.__dict__.get("__slots__", ())]
    return {name: getattr(x, name) for name in slots} | x.__dict__


def _reduce(x, protocol):
    if x._record is not None:
        raise AutogradError("pickle: only leaves can be stored, this tensor was computed; use .detach()")
    return _rebuild, (type(x), np.array(x.backend.to_numpy(x.array)), x.backend.name, x.requires_grad, _attributes(x))


def _rebuild(kind, values, device, requires_grad, attributes):
    made = tensor(values, device=device)
    made = kind._wrap(made.array, made.backend, requires_grad=requires_grad)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


Tensor.__deepcopy__ = _deepcopy
Tensor.__reduce_ex__ = _reduce


# --- DLPack ---------------------------------------------------------------------------------------------------------

def _dlpack(x, **options):
    """A capsule over the same memory (`__dlpack__`), for torch.from_dlpack, numpy.from_dlpack, ..."""
    if x.requires_grad:
        raise AutogradError("dlpack: the tensor requires a gradient, which would be lost; use .detach()")
    return _exchangeable(x).__dlpack__(**options)


def _dlpack_device(x) -> tuple[int, int]:
    return _exchangeable(x).__dlpack_device__()


def _exchangeable(x):
    if not hasattr(x.array, "__dlpack__"):
        raise BackendError(f"dlpack: arrays of device {x.device} cannot be exchanged; copy with .to('cpu')")
    return x.array


def _cuda_array_interface(x) -> dict:
    """What CuPy, Numba and PyTorch read of a tensor on a GPU; an AttributeError elsewhere, as that protocol wants it."""
    described = x.array.__cuda_array_interface__
    if x.requires_grad:
        raise AutogradError("__cuda_array_interface__: the tensor requires a gradient, which would be lost; use .detach()")
    return described


def from_dlpack(source) -> Tensor:
    """A tensor over the memory of any object with `__dlpack__`, such as a PyTorch or JAX array: on the CPU, or on the object's GPU.

    Raises
    ------
    BackendError
        The memory is neither the host's nor that of a GPU that numbanet can use.
    """
    kind, number = source.__dlpack_device__() if hasattr(source, "__dlpack_device__") else CPU_DEVICE
    if kind in CUDA_DEVICES:
        backend = backend_of(f"cuda:{number}")
        return Tensor._wrap(backend.from_dlpack(source), backend)
    try:
        array = np.from_dlpack(source)
    except (BufferError, RuntimeError) as error:
        raise BackendError(f"from_dlpack: the memory cannot be shared ({error})") from error
    return from_numpy(array, backend_of("cpu").name)


Tensor.__dlpack__, Tensor.__dlpack_device__ = _dlpack, _dlpack_device
Tensor.__cuda_array_interface__ = property(_cuda_array_interface)


# --- devices and kinds ----------------------------------------------------------------------------------------------

def cpu(x):
    """x on the CPU."""
    return x.to(device="cpu")


def cuda(x, device=None):
    """x on a GPU; an error where no backend for it exists."""
    return x.to(device="cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)


def type_as(x, other):
    """x in the dtype of `other`."""
    return x.to(dtype=other.dtype)


Tensor.cpu, Tensor.cuda, Tensor.type_as = cpu, cuda, type_as
