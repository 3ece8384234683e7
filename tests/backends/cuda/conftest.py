"""Numba's simulator has to be chosen before Numba is imported: its tests run in processes of their own, beside the others, and so does some
of what is executed, for the second core.

They are started when collection has ended, one after the other, and waited for by the test that reports on them.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from numbanet.backends.cuda import hardware
from tests.backends.cuda.fake_driver import FakeDriver

ROOT = Path(__file__).parents[3]
# By the module that waits, in the order in which they do: the file, and the module that runs it.
RUNS = {"test_networks": ("networks.py", "tests.backends.cuda.executed"), "test_simulator": ("simulated.py", "pytest"),
        "test_tiles_backend": ("tiled.py", "pytest")}
_pool, _started = ThreadPoolExecutor(1), {}


def _run(file: str, module: str, folder: str, full: bool) -> SimpleNamespace:
    launches = Path(folder) / f"{file}.json"
    environment = {**os.environ, "NUMBANET_TEST_LAUNCHES": str(launches)}
    if module == "pytest":
        environment["NUMBA_ENABLE_CUDASIM"] = "1"
    command = [sys.executable, "-m", module, "-q", "-p", "no:cacheprovider", *(["-m", "full or not full"] if full else []),
               f"tests/backends/cuda/{file}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800 if full else 900)
    return SimpleNamespace(returncode=done.returncode, text=done.stdout[-8000:] + done.stderr[-2000:], launches=launches)


def pytest_collection_modifyitems(items):
    """What waits comes last."""
    items.sort(key=lambda item: Path(item.path).stem in RUNS)


def pytest_collection_finish(session):
    wanted = {Path(item.path).stem for item in session.items} & set(RUNS)
    if not wanted or importlib.util.find_spec("numba_cuda") is None or session.config.option.collectonly:
        return
    folder = tempfile.TemporaryDirectory()
    session.config.add_cleanup(folder.cleanup)
    full = "full" in (session.config.option.markexpr or "").replace("not full", "")
    for waiting, (file, module) in RUNS.items():
        if waiting in wanted:
            _started[file] = _pool.submit(_run, file, module, folder.name, full)


def pytest_sessionfinish(session):
    _pool.shutdown(wait=False, cancel_futures=True)


@pytest.fixture(scope="session")
def beside():
    """A function: the finished run of one of the files in `RUNS`."""
    def result(file: str) -> SimpleNamespace:
        pytest.importorskip("numba_cuda")
        return _started[file].result()
    return result


@pytest.fixture(scope="module")
def executing():
    """The backend "cuda", of a device that executes the PTX of all kernels; "cuda:1" is another."""
    pytest.importorskip("numba_cuda")
    from tests.backends.cuda.executed.device import installed
    with installed() as backend:
        yield backend


@pytest.fixture
def fake(monkeypatch):
    """The driver's API over host memory, in place of the driver."""
    made = FakeDriver()
    try:
        import cuda.core
        import numba.cuda.cudadrv.driver  # noqa: F401  both with the real driver's names, before they are replaced
        bindings = cuda.bindings
    except ImportError:
        bindings = ModuleType("cuda.bindings")
        monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
        monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr(bindings, "driver", made, raising=False)
    monkeypatch.setattr(hardware, "gpus", lambda: [hardware.GPU("fake", (8, 0), made.total, 4)])
    return made
