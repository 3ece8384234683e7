"""The private disk cache: what makes a kernel stale, and what may happen to its files."""
import importlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from numbanet import backends
from numbanet.backends import disk_cache
from numbanet.backends.cpu import compile as compiler
from numbanet.backends.cpu import kernel_cache
from tests.backends.cpu import sample_kernels
from tests.backends.cpu.test_compile import fresh

pytestmark = pytest.mark.skipif(not compiler.JIT, reason="NUMBA_DISABLE_JIT=1")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache for this test; counts start at 0."""
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, "statistics", compiler.Statistics())
    return tmp_path


def run_overwrite():
    """Call the sample kernel as a new process would; return (hits, misses) so far."""
    y = np.zeros(3, np.float32)
    fresh(sample_kernels.overwrite)(y)
    assert (y == 7).all()
    return compiler.statistics.hits, compiler.statistics.misses


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_second_process_loads_what_the_first_compiled(folder):
    assert run_overwrite() == (0, 1)
    assert run_overwrite() == (1, 1)
    assert [path.suffix for path in files_of(folder)] == [".kernel"]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:1000], lambda data: data[:-1] + b"\0",
                                    lambda data: data[:40] + b"#" + data[41:]], ids=["empty", "cut", "last", "middle"])
def test_a_damaged_file_is_compiled_again_and_replaced(folder, damage):
    run_overwrite()
    path, = files_of(folder)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert run_overwrite() == (0, 2)
    assert len(path.read_bytes()) > 1000
    assert run_overwrite() == (1, 2)


def test_a_folder_that_cannot_be_written_costs_a_compilation_only(tmp_path, monkeypatch, folder):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "file"))
    assert run_overwrite() == (0, 1)
    assert run_overwrite() == (0, 2)


def test_a_save_that_fails_leaves_no_temporary_file(folder, monkeypatch):
    def fail(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_cache.os, "replace", fail)
    assert run_overwrite() == (0, 1)
    assert files_of(folder) == []


def test_a_version_that_another_process_drops_meanwhile_is_none_of_its_business(tmp_path, monkeypatch):
    """Processes that compile at once, as under mpiexec, tidy up the same folder."""
    paths = [tmp_path / f"kernel-{i}.kernel" for i in range(disk_cache.KEPT_VERSIONS + 2)]
    for path in paths[:-1]:
        path.write_bytes(b"")
    listed = list(disk_cache.Path.glob(tmp_path, "kernel-*.kernel"))
    paths[0].unlink()
    monkeypatch.setattr(disk_cache.Path, "glob", lambda path, pattern: iter(listed))
    disk_cache.write_checked(paths[-1], b"code")
    assert disk_cache.read_checked(paths[-1]) == b"code"


def test_flags_vector_width_and_versions_are_in_the_key(folder, monkeypatch):
    signature = sample_kernels.overwrite.signatures[np.dtype("float32")][0]
    paths = {kernel_cache.KernelCache("k", sample_kernels.__name__, flags).path(signature)
             for flags in ((True, ("contract",)), (False, ("contract",)), (False, ("contract", "nsz")))}
    assert len(paths) == 3
    for module, name, value in ((kernel_cache.hardware, "simd_width", lambda: 2),
                                (kernel_cache.numba, "__version__", "9"), (kernel_cache.llvmlite, "__version__", "9")):
        before = kernel_cache.environment_key.__wrapped__()
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            assert kernel_cache.environment_key.__wrapped__() != before


def test_old_versions_of_a_kernel_are_removed(folder, monkeypatch):
    for version in range(disk_cache.KEPT_VERSIONS + 3):
        monkeypatch.setattr(kernel_cache, "source_digest", lambda module, version=version: f"source {version}")
        run_overwrite()
    assert len(files_of(folder)) == disk_cache.KEPT_VERSIONS


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Three backend modules: `probe_user` imports `probe_used`, by name and relatively; `probe_other` stands alone."""
    monkeypatch.setattr(backends, "__path__", [*backends.__path__, str(tmp_path)])
    sources = {"probe_used": "VALUE = 1\n", "probe_other": "VALUE = 2\n",
               "probe_between": "from .probe_used import VALUE\n",
               "probe_user": "def lazily():\n    from numbanet.backends import probe_between\n"}

    def write(**changed):
        for name, text in changed.items():
            path = tmp_path / f"{name}.py"
            path.write_text(text)
            os.utime(path, (time.time() - 1000,) * 2)
        importlib.invalidate_caches()
        for cached in (disk_cache._source, disk_cache._imported_backend_modules, disk_cache._is_backend_module):
            cached.cache_clear()

    write(**sources)
    return write


def test_an_edit_is_seen_through_any_number_of_imports(modules):
    user, other = (kernel_cache.source_digest(f"numbanet.backends.{name}") for name in ("probe_user", "probe_other"))
    modules(probe_used="VALUE = 3\n")
    assert kernel_cache.source_digest("numbanet.backends.probe_user") != user
    assert kernel_cache.source_digest("numbanet.backends.probe_other") == other
    modules(probe_used="VALUE = 1\n")
    assert kernel_cache.source_digest("numbanet.backends.probe_user") == user


def test_a_file_edited_while_this_process_runs_is_not_cached(modules, tmp_path):
    path = tmp_path / "probe_used.py"
    os.utime(path, (time.time() + 10,) * 2)
    assert kernel_cache.source_digest("numbanet.backends.probe_user") is None
    assert kernel_cache.KernelCache("k", "numbanet.backends.probe_user", ()).path("void()") is None


def test_two_processes_fill_one_cache_at_once(tmp_path):
    source = ("import numpy as np\nfrom tests.backends.cpu import sample_kernels as k\n"
              "x = np.arange(6, dtype=np.float32).reshape(2, 3); y = x[:, 0].copy(); z = np.zeros((2, 3))\n"
              "k.sum_rows(x, y); assert y.tolist() == [5, 50]\n"
              "k.scale_rows(x.astype('f8'), z, 2.0); assert (z == 2 * x).all()\n"
              "k.scale_rows(x, x, 3.0); assert x[1, 2] == 15\n"
              "from numbanet.backends.cpu.compile import statistics as s; print(s.hits, s.misses)")
    command = [sys.executable, "-c", source]
    environment = os.environ | {"NUMBANET_CACHE_DIR": str(tmp_path)}
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout.split() == ["3", "0"]
    assert not list(tmp_path.rglob("*.tmp"))
