"""``NUMBANET_DEBUG=1``: each replay of a plan logs what every step took, and how near to the machine's limit that is.

A step's limit is the larger of two times: its multiply-adds at the rate of a large matrix product, and its operands and results at the
rate of a copy that leaves the caches; both are measured once, on the plan's backend. Algorithms with fewer multiplications (Winograd),
and maps that are still in a cache, come out above 100%.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from typing import NamedTuple

import numpy as np

from numbanet.backends import Backend
from numbanet.graph.cost import multiply_adds
from numbanet.graph.graph import Node

logger = logging.getLogger("numbanet.plan")


def is_wanted() -> bool:
    """Whether the environment asks for it; then the logger speaks, on standard error unless the program has handlers."""
    if os.environ.get("NUMBANET_DEBUG", "") in ("", "0"):
        return False
    logger.setLevel(logging.DEBUG)
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())
    return True


class TimedStep(NamedTuple):
    """A step that ran, and when, in seconds of `time.perf_counter`; `node` is None where it belongs to none (a callback)."""

    node: Node | None
    kernel: str
    begin: float
    end: float


def timed(steps: list[tuple], nodes: list[Node | None], backend: Backend) -> list[TimedStep]:
    """Run the (function, arguments) pairs of a plan, each waited for."""
    found = []
    for (function, arguments), node in zip(steps, nodes, strict=True):
        begin = time.perf_counter()
        function(*arguments)
        backend.synchronize()
        found.append(TimedStep(node, getattr(function, "kernel", node.primitive if node else ""), begin, time.perf_counter()))
    return found


def log_steps(steps: list[tuple], nodes: list[Node | None], backend: Backend) -> None:
    """Run the steps and log a line for each that belongs to a node: layer, kernel, ms, rates, shares."""
    found = timed(steps, nodes, backend)
    flops, bandwidth, total = *limits(backend), sum(step.end - step.begin for step in found)
    for node, kernel, begin, end in found:
        if node is not None:
            work, moved, took = 2 * multiply_adds(node), bytes_moved(node), end - begin
            logger.debug("%-32s %-24s %9.3f ms %8.1f GFLOP/s %7.1f GB/s %4.0f%% of the limit %5.1f%% of the time", node.path or "-",
                         kernel, 1e3 * took, work / took / 1e9, moved / took / 1e9,
                         100 * max(work / flops, moved / bandwidth) / took, 100 * took / total)
    logger.debug("%d steps in %.3f ms; limits %.0f GFLOP/s, %.1f GB/s", len(found), 1e3 * total, flops / 1e9, bandwidth / 1e9)


def bytes_moved(node: Node) -> int:
    """Of all operands and results."""
    return sum(v.nbytes for v in (*node.operands(), *(node.writes_into or node.outputs)) if v is not None)


@functools.cache
def limits(backend: Backend) -> tuple[float, float]:
    """FLOP/s of a product of 768 x 768 matrices, and bytes/s read and written by a copy of 64 MB."""
    n, single = 768, np.dtype(np.float32)
    a, x, y = (backend.from_numpy(np.ones(shape, single)) for shape in ((n, n), 1 << 24, 1 << 24))
    product = backend.matmul(a, a)
    return (2 * n ** 3 / _fastest(lambda: backend.matmul(a, a, out=product), backend),
            2 * x.nbytes / _fastest(lambda: backend.copy(x, out=y), backend))


def _fastest(function, backend: Backend) -> float:
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        function()
        backend.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times)
