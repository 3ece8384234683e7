"""Threads of the CPU backend: how many, which threading layer, and when a kernel must not enter a parallel region.

Three dangers are handled here, so that kernels need not know them:

- GNU OpenMP kills a forked child at its first parallel region, when the parent had one: such a child runs serial
  twins.
- Numba's workqueue layer aborts when two Python threads enter parallel regions: the second runs its serial twin.
- Numba keeps the thread count per Python thread: each thread is given the current count before its first region.

Nothing happens at import: no thread pool, no Numba.
"""
import contextlib
import ctypes
import functools
import importlib.metadata
import logging
import math
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from numbanet.backends.cpu import hardware
from numbanet.errors import BackendError

logger = logging.getLogger("numbanet.threads")

VARIABLES = ("NUMBANET_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS")

# GNU OpenMP's default of spinning 7.5 ms after each region starves every other thread; this keeps back-to-back regions
# at 1.3 us and spins for 0.3 ms.
SPIN_COUNT = "20000"

PARALLEL, SERIAL, GUARDED = "parallel", "serial", "guarded"


class ThreadCount(NamedTuple):
    """A number of threads and where it comes from, for reports."""

    count: int
    reason: str


class _PerThread(threading.local):
    ready = None             # the generation whose thread count this Python thread has
    serial_depth = 0         # nesting of serial_region


_local = _PerThread()
_generation = object()       # replaced whenever all threads must look again
_count: int | None = None    # in force; None before the first question
_forked = False              # this process is a child that must not enter a parallel region
_start_lock = threading.Lock()
_launch_lock = threading.Lock()


# --- how many -------------------------------------------------------------------------------------------------------

@functools.cache
def resolved() -> ThreadCount:
    """The default number of threads: first the environment, otherwise the cores this process may use."""
    for name in VARIABLES:
        text = os.environ.get(name, "").split(",")[0].strip()        # OMP_NUM_THREADS may be a list, one a level
        if text.isdecimal() and int(text) > 0:
            return ThreadCount(int(text), f"{name}={os.environ[name]}")
        if text and name == VARIABLES[0]:
            raise BackendError(f"{name}: expected a positive integer, received {text!r}; unset it to use every core")
    cores, quota = hardware.available_cores(), cgroup_quota()
    if quota is not None and quota < cores:
        return ThreadCount(max(1, math.ceil(quota)), f"cgroup quota of {quota:g} of {cores} available cores")
    return ThreadCount(cores, f"{cores} available cores (affinity)")


def cgroup_quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """CPUs that the control group grants, version 2 or 1; None where it sets no limit."""
    folders = [root]
    try:
        for line in membership.read_text().splitlines():
            if line.startswith("0::"):
                group = root / line[3:].lstrip("/")
                folders = [group, *(parent for parent in group.parents if parent.is_relative_to(root))]
    except OSError:
        pass
    quotas = [quota for folder in folders if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _quota(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)                              # "max" is a ValueError: no limit
    with contextlib.suppress(OSError, ValueError):
        quota = int((folder / "cpu" / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu" / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    return None


def get_num_threads() -> int:
    """Number of threads that a parallel kernel uses, in every Python thread."""
    global _count
    if _count is None:
        _count = min(resolved().count, maximum())
    return _count


def set_num_threads(count: int) -> None:
    """Let parallel kernels use `count` threads, in every Python thread. Results do not depend on it.

    Raises
    ------
    BackendError
        Unless 1 <= `count` <= `maximum()`.
    """
    global _count, _generation
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= maximum():
        raise BackendError(f"set_num_threads: expected an integer from 1 to {maximum()}, received {count!r}; "
                           f"start the process with NUMBANET_NUM_THREADS set to have more")
    _count, _generation = count, object()


def maximum() -> int:
    """The largest thread count of this process, fixed when Numba is first imported."""
    prepare_environment()
    import numba

    return numba.config.NUMBA_NUM_THREADS


# --- the threading layer --------------------------------------------------------------------------------------------

def prepare_environment() -> None:
    """Set what Numba and GNU OpenMP read from the environment when they load. What the user set stays."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    if "numba" not in sys.modules and resolved().count > hardware.available_cores():     # more than Numba would launch
        os.environ.setdefault("NUMBA_NUM_THREADS", str(resolved().count))


def start() -> str:
    """Launch the threading layer if it is not yet running, and return its name: omp, tbb or workqueue."""
    prepare_environment()
    from numba.core import config
    from numba.np.ufunc import parallel

    with _start_lock:
        if not parallel._is_initialized:
            asked = str(config.THREADING_LAYER).lower()
            if asked == "default":
                config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
            if asked not in ("omp", "workqueue") and (asked != "default" or not _loads_openmp()):
                _preload_tbb()
            parallel._launch_threads()
            logger.debug("threading layer %s, at most %d threads", parallel.threading_layer(), parallel.NUM_THREADS)
        return parallel.threading_layer()


def layer() -> str | None:
    """Name of the running threading layer, or None before the first parallel kernel."""
    from numba.np.ufunc import parallel

    return parallel.threading_layer() if parallel._is_initialized else None


def _loads_openmp() -> bool:
    try:
        from numba.np.ufunc import omppool  # noqa: F401
    except ImportError:
        return False
    return True


def _preload_tbb() -> None:
    """Load TBB's library from its wheel: Numba looks for it by name only, and does not find it there."""
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name in ("libtbb.so.12", "libtbb.12.dylib", "tbb12.dll"):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)


# --- may this thread enter a parallel region? -----------------------------------------------------------------------

@contextlib.contextmanager
def serial_region() -> Iterator[None]:
    """Let every kernel called from this Python thread run on this thread alone (data-loading workers do)."""
    _local.serial_depth += 1
    _local.ready = None
    try:
        yield
    finally:
        _local.serial_depth -= 1


def launch_mode() -> str:
    """How this thread may run a parallel kernel now.

    Returns
    -------
    str
        ``PARALLEL``; ``SERIAL``: only the serial twin; ``GUARDED``: parallel while holding `launch_lock()`, otherwise
        serial.
    """
    if _local.ready is _generation:
        return PARALLEL
    if _local.serial_depth or _forked:
        return SERIAL
    name = start()
    import numba

    generation = _generation                                         # read first: a change meanwhile is seen next time
    numba.set_num_threads(get_num_threads())
    if name == "workqueue":
        return GUARDED
    _local.ready = generation
    return PARALLEL


def launch_lock() -> threading.Lock:
    """The lock that admits one thread at a time to a layer that is not thread-safe."""
    return _launch_lock


def _after_fork_in_child() -> None:
    global _forked, _generation, _start_lock, _launch_lock
    _start_lock, _launch_lock = threading.Lock(), threading.Lock()   # another thread may have held them
    _generation = object()
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    if parallel is not None and parallel._is_initialized and parallel.threading_layer() == "omp":
        _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
