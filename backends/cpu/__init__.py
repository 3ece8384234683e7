"""The CPU backend: Numba kernels, parallel and vectorised in float32; float64 in plain loops or NumPy, to check gradients."""

from __future__ import annotations

import importlib

from numbanet._version import __version__
from numbanet.backends.contract import FAMILIES
from numbanet.backends.cpu import hardware, memory, threads
from numbanet.backends.cpu.prepared import OFFERS, PREPARERS, consuming
from numbanet.backends.cpu.registry import implements
from numbanet.backends.host import HostBackend

threads.prepare_environment()      # before the first kernel module imports Numba

MEMORY_BOUND = 25       # multiply-adds a byte of results


class CPUBackend(HostBackend):
    """Arrays are NumPy's, in memory of the caching allocator."""

    name = "cpu"
    implementations = implements
    empty = staticmethod(memory.empty)
    consuming = staticmethod(consuming)

    def trim(self):
        memory.trim()

    def is_unshared(self, holder, index):
        return memory.is_unshared(holder, index)

    def recovery(self, array, steps, call, operand, known=None):
        from numbanet.backends.cpu.recovery import recovery
        return recovery(array, steps, call, operand, known)

    def candidates(self, primitive, arguments, constant):
        offer = OFFERS.get(primitive)
        return () if offer is None else tuple(offer(arguments, constant))

    def fingerprint(self):
        from numbanet.backends.cpu.kernel_cache import environment_key
        return f"cpu-{environment_key()}-{__version__}"

    def prepare(self, primitive, arguments, constant, choice=None):
        if choice is not None and primitive in OFFERS:
            made = OFFERS[primitive](arguments, constant).get(choice)
            if made is not None:
                return made()
        preparer = PREPARERS.get(primitive)
        return None if preparer is None else preparer(arguments, constant)

    def samples_at_once(self, memory, results, work):
        """As many as the last cache holds, where maps take longer to read and write than to compute.

        MobileNet v2 (11 multiply-adds a byte), batch 16: 70 ms in slices of 4, 80 ms whole. ResNet-50 (93 a byte) gains nothing.
        """
        if work > MEMORY_BOUND * results:
            return super().samples_at_once(memory, results, work)
        return max(1, hardware.cache_sizes().l3 * 3 // 4 // max(1, memory))

    def joined(self, calls, givens, keys=()):
        from numbanet.backends.cpu.program import Given, joined
        return joined(calls, [Given(*given) for given in givens])

    def chains(self, geometries, batch):
        from numbanet.backends.cpu.convolution.chaining import chains
        return chains(geometries, batch)

    def activates(self):
        return True

    def pools(self, geometry, pooling, for_values):
        from numbanet.backends.cpu.convolution.max_pooling import pools
        return pools(geometry, pooling, for_values) is not None

    def room_for_channels(self, shape, dtype):
        from numbanet.backends.cpu.convolution.choose import CROWDED, LINE
        _, C, *size = shape
        return C + (LINE // dtype.itemsize if C * dtype.itemsize % CROWDED == 0 and size != [1, 1] else 0)

    def takes_statistics(self, geometry, batch):
        from numbanet.backends.cpu.convolution import takes_statistics
        return takes_statistics(geometry, batch)

    def preactivates(self, geometry, batch, in_training):
        from numbanet.backends.cpu.preactivation import preactivates
        return preactivates(geometry, batch, in_training)

    def may_share_memory(self, first, second):
        return not memory.are_apart(first, second) and super().may_share_memory(first, second)


def create() -> CPUBackend:
    """The backend, all its primitives registered."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
    return CPUBackend()
