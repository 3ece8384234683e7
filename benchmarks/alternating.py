"""Engines in processes of their own, of which only one works at a time.

Two OpenMP pools that spin against each other measure nothing. A round measures every engine once, in turns; ratios are taken within a
round, so that a machine whose speed drifts does not disturb them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 0.25          # of repeats for each measurement


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def measure(function: Callable[[], object], seconds: float = SECONDS, least: int = 5) -> float:
    """Median milliseconds of one call."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < 2000):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return 1e3 * median(times)


def serve(make: Callable[[str], Callable[[], object]], least: int = 5, warm_up: int = 3) -> None:
    """In the engine's process: make and measure the cases that standard input names; what goes wrong is the answer."""
    current, function, failure = None, None, None
    for line in sys.stdin:
        name = line.rstrip("\n")
        if name != current:
            current, function, failure = name, None, None
            try:
                function = make(name)
                for _ in range(warm_up):            # compile, allocate, warm the caches
                    function()
            except Exception as error:              # a peer that lacks something is left out of this row
                failure = f"{type(error).__name__}: {error}"[:300]
        print(json.dumps({"error": failure} if failure else {"ms": measure(function, least=least)}), flush=True)


class Engines:
    """One process an engine, started by this script's own ``--serve``.

    Parameters
    ----------
    names : the engines
    script : path of the script, called as ``script --serve NAME --threads N [*arguments]``
    """

    def __init__(self, names: Sequence[str], script: str, threads: int, arguments: Sequence[str] = (), environment: dict | None = None):
        self.threads, self.script, self.arguments = threads, script, list(arguments)
        self.environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "NUMBANET_NUM_THREADS": str(threads), **(environment or {})}
        self.processes = {name: self._start(name) for name in names}

    def _start(self, name: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, self.script, "--serve", name, "--threads", str(self.threads), *self.arguments],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                env=self.environment, cwd=ROOT)

    def ask(self, name: str, case: str) -> float | None:
        """Milliseconds, or None where the engine cannot; a process that died is started anew for the next case."""
        self.send(name, case)
        return self.receive(name, case)

    def send(self, name: str, case: str) -> None:
        """Let an engine measure; `receive` says what it found."""
        with contextlib.suppress(BrokenPipeError):
            self.processes[name].stdin.write(case + "\n")
            self.processes[name].stdin.flush()

    def receive(self, name: str, case: str) -> float | None:
        process = self.processes[name]
        answer = process.stdout.readline()
        if not answer:
            process.wait()
            self.processes[name] = self._start(name)
            print(f"{name}: the process that measured {case!r} ended", file=sys.stderr)
            return None
        result = json.loads(answer)
        if "error" in result:
            print(f"{name}, {case}: {result['error']}", file=sys.stderr)
        return result.get("ms")

    def rounds(self, case: str, count: int) -> list[dict[str, float]]:
        """Milliseconds by engine for each round; engines that cannot do the case are absent from all of them."""
        able, found = list(self.processes), []
        for _ in range(count):
            times = {name: self.ask(name, case) for name in able}
            able = [name for name in able if times[name] is not None]
            found.append(times)
        return [{name: times[name] for name in able} for times in found]

    def close(self) -> None:
        for process in self.processes.values():
            process.stdin.close()
            process.wait()


def spread(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile."""
    return (values[0], values[0]) if len(values) == 1 else tuple(quantiles(values, n=4)[::2])


def middle(rounds: list[dict[str, float]], engine: str) -> float:
    return median(times[engine] for times in rounds)


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def cpu_name() -> str:
    """What the operating system calls the processor, and its SIMD width as numbanet sees it."""
    import platform

    from numbanet.backends.cpu.hardware import simd_width
    name = platform.processor() or platform.machine()
    try:
        import llvmlite.binding
        name = f"{platform.machine()} {llvmlite.binding.get_host_cpu_name()}"
    except ImportError:
        pass
    return f"{name}, vectors of {simd_width()}"
