"""The CUDA backend: Numba kernels on NVIDIA's GPUs. Its kernels and Numba's CUDA are imported when a device "cuda" is asked for."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.util import find_spec

import numpy as np

from numbanet.backends.contract import FAMILIES
from numbanet.backends.cuda import hardware
from numbanet.backends.cuda.registry import implements
from numbanet.backends.interface import Backend, dense_strides
from numbanet.errors import BackendError

TESTED = "checked by Numba's simulator, by the compiler, and by executing its PTX on the CPU; it has not run on a GPU"      # until it has
FURTHER = ("extremum", "scan", "sorting")       # of the family "reduction": files of their own


class CUDABackend(Backend):
    """Arrays are :class:`~numbanet.backends.cuda.memory.DeviceArray` of one GPU."""

    implementations = implements
    computes_16_bit = joins_draws = True

    def __init__(self, index: int, device=None, name: str | None = None):
        from numbanet.backends.cuda import driver, guarded, memory
        self.index, self.name = index, name or f"cuda:{index}"
        self.device = device or (driver.SimulatedDevice if hardware.is_simulated() else driver.Device)(index)
        make = guarded.GuardedAllocator if guarded.is_wanted() else memory.Allocator
        self.allocator = make(self.device, memory.limit_of_environment())
        self.empty = self.allocator.empty

    def carve(self, block, offset, shape, dtype, order=None):
        from numbanet.backends.cuda.memory import DeviceArray
        return DeviceArray(block.lease, block.offset + offset, tuple(shape), dense_strides(shape, dtype, order), dtype)

    def from_numpy(self, array):
        return self.allocator.from_numpy(array)

    def from_numpy_ahead(self, array):
        """(a copy on the device, made beside the work that is asked for from now on; what lets this thread's later work wait for it)."""
        return self.allocator.from_numpy_ahead(array)

    def to_numpy(self, array):
        from numbanet.backends.cuda.pointwise import on_host
        return on_host(array)

    def mirror(self, array):
        """In pinned memory; the simulator and other stand-ins for a GPU have none."""
        from numbanet.backends.cuda.driver import Device
        if not isinstance(self.device, Device):
            return super().mirror(array)
        from numbanet.backends.cuda.pinned import PinnedMirror
        return PinnedMirror(self, array)

    def prepare(self, primitive, arguments, constant, choice=None):
        from numbanet.backends.cuda.prepared import prepare
        return prepare(primitive, arguments, constant)

    def joined(self, calls, givens, keys=()):
        from numbanet.backends.cuda.recording import joined
        return joined(self, calls, givens, keys)

    def from_dlpack(self, source):
        """An array over the memory of an object of this GPU with `__dlpack__`."""
        from numbanet.backends.cuda.dlpack import CPU, take
        if source.__dlpack_device__()[0] == CPU:
            return take(source.__dlpack__(), self.allocator)
        return take(source.__dlpack__(stream=self.device.stream), self.allocator)

    def may_share_memory(self, first, second):
        if type(first) is not type(second):             # a transfer's operand or gradient lives in another memory
            return False
        if first.lease is not second.lease or not first.size or not second.size:
            return False
        (a, b), (c, d) = _bytes_of(first), _bytes_of(second)
        return a < d and c < b

    joins_small_calls = True            # a launch takes a microsecond or two, however little it does

    def takes_statistics(self, geometry, batch):
        """For float32 maps; what 16-bit ones take may be split otherwise, and reads its result again then, as without."""
        from numbanet.backends.cuda import choose
        return choose.takes_statistics(geometry, batch, np.dtype(np.float32), self.device)

    def synchronize(self):
        self.device.synchronize()


def _bytes_of(x) -> tuple[int, int]:
    return x.offset, x.offset + sum((n - 1) * s for n, s in zip(x.shape, x.strides)) + x.itemsize


def index_of(name: str) -> int:
    """The number in "cuda:1"; 0 for "cuda"."""
    number = name.partition(":")[2] if ":" in name else "0"
    if not number.isdigit():
        raise BackendError(f"device {name!r}: expected 'cuda' or 'cuda:' and the number of a GPU, as in 'cuda:0'")
    return int(number)


def create(name: str = "cuda") -> CUDABackend:
    """The backend of the GPU that `name` names, all its primitives registered."""
    index = index_of(name)
    hardware.require(name, index)
    load_families()
    return _of(index)


def create_dry(arch: str, name: str | None = None) -> CUDABackend:
    """A backend that computes nothing and remembers which kernels it would have launched on this architecture; see `dry.py`."""
    load_families()
    from numbanet.backends.cuda.dry import DryDevice
    return CUDABackend(0, DryDevice(arch), name or f"dry-{arch}")


def load_families() -> None:
    """Import all modules of kernels."""
    for family in (*FAMILIES, *FURTHER):
        if find_spec(f"{__name__}.{family}"):           # families are added one by one
            importlib.import_module(f"{__name__}.{family}")


@cache
def _of(index: int) -> CUDABackend:
    return CUDABackend(index)
