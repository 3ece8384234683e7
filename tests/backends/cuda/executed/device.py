"""A GPU that executes the PTX of every launch, in place of one: the backend "cuda" of a process without Numba's simulator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np

import numbanet.backends as backends
from numbanet.backends.cuda import CUDABackend, load_families
from numbanet.backends.cuda.cubin import ptx_of
from numbanet.backends.cuda.driver import OutOfMemory, SimulatedDevice
from numbanet.backends.cuda.dry import DryDevice
from numbanet.backends.cuda.launch import compiled, source_of
from numbanet.backends.cuda.tiles import catalog
from numbanet.backends.cuda.tiles.launch import parameters_of
from tests.backends.cuda.executed.code import Program
from tests.backends.cuda.executed.machine import Machine, Memory
from tests.backends.cuda.executed.source import parse

# Kernels whose threads may read what others write in the same launch, and why that changes nothing.
RACING = {"boxes_decide": "a decision that is seen in the round that makes it is the one that the next round would make"}


@cache
def program_of(text: str) -> Program:
    """A kernel's PTX, ready to run."""
    return Program(parse(text))


class ExecutingDevice(DryDevice):
    """See :mod:`~tests.backends.cuda.executed.machine`. There are few multiprocessors, so that loops over the grid take turns."""

    def __init__(self, index: int = 0):
        super().__init__("sm_90", multiprocessors=4)
        self.index, self.space = index, Memory()
        self.machine = Machine(self.space, set(RACING))
        self.launched = Counter()                       # how often, by name

    def load_kernel(self, kernel, types: tuple[str, ...]) -> Program:
        return program_of(ptx_of(source_of(kernel, types)))

    def launch(self, function: Program, grid, threads: int, parameters, shared: int = 0) -> None:
        """Execute a kernel."""
        def run(stream):
            self.launched[function.name] += 1
            self.machine.launch(function, grid, threads, parameters, shared)
        self.submit(run)

    def run_tiles(self, launches) -> None:
        """Execute programs."""
        for one in launches:
            program = program_of(ptx_of(catalog.source_of(one.program)))
            self.launch(program, one.grid, one.threads, parameters_of(one), one.shared_bytes)

    def allocate(self, nbytes: int) -> int:
        """An address in the machine's memory."""
        address = self.space.allocate(nbytes)
        if address is None:
            raise OutOfMemory
        return address

    def free(self, handle: int) -> None:
        """What is read after it was given back is a fault."""
        self.space.free(handle)

    def upload(self, handle: int, offset: int, host: np.ndarray) -> None:
        self.refuse_recording("an upload")
        self.space.write(handle + offset, host)

    def download(self, host: np.ndarray, handle: int, offset: int) -> None:
        self.refuse_recording("a value that is read back")
        host[...] = self.space.read(handle + offset, host.nbytes)

    def fill(self, handle: int, offset: int, nbytes: int, value: int) -> None:
        self.submit(lambda stream: self.space.write(handle + offset, np.full(nbytes, value, np.uint8)))

    def copy(self, source: int, target: int, nbytes: int) -> None:
        self.submit(lambda stream: self.space.copy(source, target, nbytes))

    capture = SimulatedDevice.capture

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes."""
        return len(self.space.bytes) - self.space.used, len(self.space.bytes)


@contextmanager
def installed(count: int = 2) -> Iterator[CUDABackend]:
    """So many devices "cuda:0", "cuda:1", ... in this process, the first being "cuda"."""
    load_families()
    before = {name: backend for name, backend in backends._instances.items() if name.startswith("cuda")}
    made = [CUDABackend(i, ExecutingDevice(i), f"cuda:{i}") for i in range(count)]
    names = {"cuda": made[0], **{backend.name: backend for backend in made}}
    backends._instances.update(names)
    try:
        yield made[0]
    finally:
        for name in names:
            del backends._instances[name]
        backends._instances.update(before)
        for key in [key for key in compiled if key[-1] in [backend.device for backend in made]]:
            del compiled[key]
