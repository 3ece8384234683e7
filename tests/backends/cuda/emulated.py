"""A GPU of two halves: plain kernels run in Numba's simulator, tile programs in the 32-lane emulator, over the same memory.

To be installed before the backend "cuda" is asked for, in a process where NUMBA_ENABLE_CUDASIM is 1.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from numbanet.backends.cuda import driver
from numbanet.backends.cuda.tiles import build
from numbanet.backends.cuda.tiles.launch import parameters_of
from tests.backends.cuda.emulator import BASE, GUARD, Emulator, Memory


class EmulatedDevice(driver.SimulatedDevice):
    """Memory at the addresses of the emulator, which has rights for allocated blocks alone."""

    runs_tiles, arch, multiprocessors = True, "sm_90", 4

    def __init__(self, index: int):
        super().__init__(index)
        self.space = Memory(1 << 26)
        self.programs = Counter()               # how often each program ran

    def allocate(self, nbytes: int):
        start = -(-self.space.used // 256) * 256
        if start + nbytes + GUARD > len(self.space.bytes):
            raise driver.OutOfMemory
        self.space.used = start + nbytes + GUARD
        self.space.rights[start:start + nbytes] = 3
        return self.space.bytes[start:start + nbytes]

    def free(self, handle) -> None:
        start = self.address(handle) - BASE
        self.space.rights[start:start + handle.nbytes] = 0          # what is read after it was given back is a fault

    def address(self, handle) -> int:
        return BASE + handle.ctypes.data - self.space.bytes.ctypes.data

    def _host(self, address: int) -> int:
        return address - BASE + self.space.bytes.ctypes.data

    def run_tiles(self, launches) -> None:
        for launch in launches:
            parameters_of(launch)              # which checks their number
            self.submit(lambda stream, launch=launch: self._emulate(launch))

    def _emulate(self, launch) -> None:
        self.programs[launch.program.name] += 1
        machine = Emulator(self.space, launch.threads // 32, launch.shared_bytes)
        with np.errstate(all="ignore"):
            machine.launch(build(launch.program, machine), launch.grid, launch.arguments)


def install() -> None:
    """Make it the device of every CUDA backend that is created from now on."""
    driver.SimulatedDevice = EmulatedDevice
