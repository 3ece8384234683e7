"""Memory with a zone of a known pattern before and behind every array: what a kernel writes outside of its arrays is found.

NUMBANET_CUDA_GUARD=1 switches it on for a process, at the price of two small fills an array; ``numbanet.cuda.check_guards()`` looks at all
arrays, those that have died since among them, and raises where a zone was written to. compute-sanitizer finds reads too, far more slowly.
"""

from __future__ import annotations

import os
import weakref

import numpy as np

from numbanet.backends.cuda.memory import Allocator
from numbanet.errors import BackendError

GUARD, PATTERN = 256, 0xA5


def is_wanted() -> bool:
    """Whether NUMBANET_CUDA_GUARD is 1."""
    return os.environ.get("NUMBANET_CUDA_GUARD") == "1"


class _Lease:
    """Memory in use, between two zones."""

    __slots__ = ("allocator", "handle", "nbytes", "_whole", "__weakref__")

    @property
    def readers(self) -> tuple[int, ...]:
        """As that of the whole memory."""
        return self._whole.readers

    @readers.setter
    def readers(self, readers: tuple[int, ...]) -> None:
        self._whole.readers = readers

    def __init__(self, allocator: GuardedAllocator, whole, nbytes: int):
        self.allocator, self.nbytes, self._whole = allocator, nbytes, whole
        base = whole.handle
        self.handle = base[GUARD:GUARD + nbytes] if isinstance(base, np.ndarray) else base + GUARD

    def damage(self) -> str:
        """Which zone was written to; "" where none was."""
        zone = np.empty(GUARD, np.uint8)
        for where, offset in (("before", 0), ("behind", GUARD + self.nbytes)):
            self.allocator.device.download(zone, self._whole.handle, offset)
            if wrong := int((zone != PATTERN).sum()):
                return f"{wrong} bytes {where} an array of {self.nbytes} bytes"
        return ""

    def __del__(self):
        if self.allocator.device.recording is None and (damage := self.damage()):
            self.allocator.faults.append(damage)


class GuardedAllocator(Allocator):
    """See this module's text."""

    def __init__(self, device, limit: int | None = None):
        super().__init__(device, limit)
        self.faults: list[str] = []             # of arrays that have died
        self._live: weakref.WeakSet = weakref.WeakSet()

    def take(self, nbytes: int) -> _Lease:
        whole = super().take(nbytes + 2 * GUARD)
        for offset in (0, GUARD + nbytes):
            self.device.fill(whole.handle, offset, GUARD, PATTERN)
        made = _Lease(self, whole, nbytes)
        self._live.add(made)
        return made

    def check(self) -> None:
        """Raise a BackendError where something was written outside of an array."""
        found = [*self.faults, *[damage for lease in list(self._live) if (damage := lease.damage())]]
        self.faults.clear()
        if found:
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            raise BackendError(f"cuda:{self.device.index}: written outside of arrays: {'; '.join(found[:5])}{more}. Please report it with "
                               "the output of `numbanet doctor`")
