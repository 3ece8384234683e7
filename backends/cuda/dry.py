"""A GPU that is not there: whole models run on it without computing anything, and it remembers which kernels they would have launched.

That is how kernels are compiled ahead for another machine (`numbanet warmup resnet50 --device cuda --arch sm_90`), with the types, tiles
and choices of that architecture, whatever the model. Memory is addresses alone; what is read back is zeros.
"""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from numbanet.backends.cuda.cubin import Cubin, architecture
from numbanet.backends.cuda.driver import HostEvent, Queue

ALIGNED = 256


class Wanted(NamedTuple):
    """A kernel to be compiled: one of `@kernel` with the types of its arguments, or a tile program without."""

    kernel: object          # the name of a kernel, or a program
    types: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.kernel if isinstance(self.kernel, str) else self.kernel.name

    def compiled(self, arch: str) -> Cubin:
        """Its machine code, from the cache or compiled."""
        if not isinstance(self.kernel, str):
            from numbanet.backends.cuda.tiles.catalog import cubin_of
            return cubin_of(self.kernel, arch)
        from numbanet.backends.cuda import load_families
        from numbanet.backends.cuda.compile import KERNELS
        from numbanet.backends.cuda.launch import machine_code
        load_families()
        return machine_code(KERNELS[self.kernel], self.types, arch)


class DryDevice(Queue):
    """See this module's text.

    Attributes
    ----------
    wanted : dict of Wanted -> how often it was launched
    """

    runs_tiles, stream = True, 0

    def __init__(self, arch: str, multiprocessors: int = 132):
        architecture(arch)
        super().__init__(0)
        self.arch, self.multiprocessors, self.wanted, self._end = arch, multiprocessors, {}, 1 << 40

    def _want(self, wanted: Wanted) -> None:
        self.wanted[wanted] = self.wanted.get(wanted, 0) + 1

    def load_kernel(self, kernel, types: tuple[str, ...]) -> Wanted:
        return Wanted(kernel.name, types)

    def launch(self, function: Wanted, grid, threads: int, parameters, shared: int = 0) -> None:
        """Remember the kernel."""
        self._want(function)
        self.submit(_nothing)

    def run_tiles(self, launches) -> None:
        """Remember the programs."""
        for launch in launches:
            self._want(Wanted(launch.program))
            self.submit(_nothing)

    def copy(self, source: int, target: int, nbytes: int) -> None:
        self.submit(_nothing)

    def event(self) -> HostEvent:
        return HostEvent(self)

    def capture(self, calls):
        return _nothing

    def activate(self) -> None:
        """Nothing to do."""

    def allocate(self, nbytes: int) -> int:
        """An address."""
        start, self._end = self._end, self._end + -(-nbytes // ALIGNED) * ALIGNED
        return start

    def free(self, handle: int) -> None:
        """Nothing to do."""

    def address(self, handle: int) -> int:
        return handle

    def upload(self, handle: int, offset: int, host: np.ndarray) -> None:
        self.refuse_recording("an upload")

    def download(self, host: np.ndarray, handle: int, offset: int) -> None:
        self.refuse_recording("a value that is read back")
        host[...] = 0

    def fill(self, handle: int, offset: int, nbytes: int, value: int) -> None:
        self.submit(_nothing)

    default_stream = 0

    def new_stream(self) -> int:
        return 0

    def wait_for(self, first: int, second: int) -> None:
        """There is one stream."""

    def is_idle(self, stream: int) -> bool:
        return True

    def upload_ahead(self, handle: int, offset: int, host: np.ndarray):
        self.upload(handle, offset, host)
        return lambda: None

    def memory(self) -> tuple[int, int]:
        return 1 << 40, 1 << 40

    def synchronize(self) -> None:
        self.refuse_recording("a wait")


def compile_all(wanted, arch: str, processes: int):
    """(wanted, machine code) of each, in order, compiled by so many processes, which share the cache of cubins."""
    wanted = list(wanted)
    if processes > 1 and len(wanted) > 3:
        with ThreadPoolExecutor(processes) as pool:
            own = threading.local()
            workers: list[subprocess.Popen] = []

            def compiled(one: Wanted) -> None:
                if not hasattr(own, "worker"):
                    own.worker = subprocess.Popen([sys.executable, "-c", f"from {__name__} import serve; serve()"], text=True,
                                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                    workers.append(own.worker)
                with contextlib.suppress(OSError):       # the worker is gone: the kernel is compiled below, with its error if it has one
                    own.worker.stdin.write(f"{base64.b64encode(pickle.dumps((one, arch))).decode()}\n")
                    own.worker.stdin.flush()
                    own.worker.stdout.readline()

            try:
                for one, _ in zip(wanted, pool.map(compiled, wanted)):
                    yield one, one.compiled(arch)
            finally:
                for worker in workers:
                    worker.stdin.close()
                    worker.wait()
                    worker.stdout.close()
    else:
        yield from ((one, one.compiled(arch)) for one in wanted)


def serve() -> None:
    """Compile what standard input names, line by line: a process of `compile_all`. What fails there is tried again by who asked."""
    for line in sys.stdin:
        one, arch = pickle.loads(base64.b64decode(line))
        with contextlib.suppress(Exception):
            one.compiled(arch)
        sys.stdout.write("\n")
        sys.stdout.flush()


def plain_launches() -> list[Wanted]:
    """The kernels of `@kernel`, each with types of float32 that the simulator has launched it with (`launches.json`)."""
    found = json.loads(Path(__file__).with_name("launches.json").read_text())
    return [Wanted(name, tuple(types)) for name, launches in found.items() for types in launches]


def _nothing(stream: int) -> None:
    return None
