"""Number of threads, threading layers, and where a parallel region is forbidden."""
import os
import subprocess
import sys
import threading

import pytest

from numbanet.backends.cpu import compile as compiler
from numbanet.backends.cpu import threads
from numbanet.errors import BackendError

needs_jit = pytest.mark.skipif(not compiler.JIT, reason="NUMBA_DISABLE_JIT=1")


@pytest.fixture
def clean(monkeypatch):
    """An environment that says nothing about threads."""
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads.hardware, "available_cores", lambda: 8)
    monkeypatch.setattr(threads, "cgroup_quota", lambda: None)
    return monkeypatch


@pytest.mark.parametrize("variables, count", [
    ({"NUMBANET_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "5", "OMP_NUM_THREADS": "6"}, 3),
    ({"NUMBA_NUM_THREADS": "5", "OMP_NUM_THREADS": "6"}, 5), ({"OMP_NUM_THREADS": "6,2"}, 6),
    ({"OMP_NUM_THREADS": "many"}, 8), ({}, 8)])
def test_the_first_variable_that_says_so_decides(clean, variables, count):
    for name, value in variables.items():
        clean.setenv(name, value)
    resolved = threads.resolved.__wrapped__()
    assert resolved.count == count
    assert (next(iter(variables), "affinity") if count != 8 else "affinity") in resolved.reason


@pytest.mark.parametrize("quota, count", [(2.5, 3), (0.5, 1), (16.0, 8)])
def test_a_cgroup_quota_limits_the_cores(clean, quota, count):
    clean.setattr(threads, "cgroup_quota", lambda: quota)
    resolved = threads.resolved.__wrapped__()
    assert resolved.count == count and ("quota" in resolved.reason) == (count < 8)


@pytest.mark.parametrize("text", ["0", "-1", "two"])
def test_our_own_variable_must_be_a_positive_integer(clean, text):
    clean.setenv("NUMBANET_NUM_THREADS", text)
    with pytest.raises(BackendError, match="NUMBANET_NUM_THREADS: expected a positive integer"):
        threads.resolved.__wrapped__()


def test_quotas_of_both_cgroup_versions_are_read(tmp_path):
    membership = tmp_path / "cgroup"
    membership.write_text("0::/outer/inner\n")
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    assert threads.cgroup_quota(tmp_path, membership) is None
    (inner / "cpu.max").write_text("max 100000\n")
    assert threads.cgroup_quota(tmp_path, membership) is None
    (tmp_path / "outer" / "cpu.max").write_text("150000 100000\n")
    assert threads.cgroup_quota(tmp_path, membership) == 1.5
    old = tmp_path / "cpu"
    old.mkdir()
    (old / "cpu.cfs_quota_us").write_text("-1\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    assert threads.cgroup_quota(tmp_path, tmp_path / "absent") is None
    (old / "cpu.cfs_quota_us").write_text("200000\n")
    assert threads.cgroup_quota(tmp_path, tmp_path / "absent") == 2


@pytest.mark.parametrize("count", [0, -1, 10**6, 1.0, True, "2"])
def test_a_thread_count_out_of_range_is_refused(count):
    before = threads.get_num_threads()
    with pytest.raises(BackendError, match="set_num_threads: expected an integer from 1 to"):
        threads.set_num_threads(count)
    assert threads.get_num_threads() == before


@needs_jit
def test_a_serial_region_belongs_to_its_python_thread_and_nests():
    seen = []
    with threads.serial_region():
        with threads.serial_region():
            assert threads.launch_mode() == threads.SERIAL
        assert threads.launch_mode() == threads.SERIAL
        other = threading.Thread(target=lambda: seen.append(threads.launch_mode()))
        other.start()
        other.join()
    assert seen == [threads.launch_mode()] and seen != [threads.SERIAL]


@needs_jit
def test_every_python_thread_uses_the_set_number_of_threads():
    import numba

    before, seen = threads.get_num_threads(), []

    def look():
        threads.launch_mode()
        seen.append(numba.get_num_threads())

    try:
        threads.set_num_threads(1)
        for _ in range(2):
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
        look()
    finally:
        threads.set_num_threads(before)
    look()
    assert seen == [1, 1, 1, before]


PROLOGUE = """
import os, threading
import numpy as np
from numbanet.backends.cpu import threads
from tests.backends.cpu.sample_kernels import sum_rows
x = np.random.default_rng(0).standard_normal((64, 1001)).astype(np.float32)
def result():
    y = np.full(64, np.nan, np.float32)
    sum_rows(x, y)
    return y
"""


def run_python(source, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in threads.VARIABLES} | variables
    command = [sys.executable, "-c", PROLOGUE + source]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@needs_jit
def test_same_bits_at_every_thread_count_and_in_a_forked_child():
    output = run_python("""
first = result()
for count in (1, 2, 4):
    threads.set_num_threads(count)
    assert np.array_equal(result(), first)
child = os.fork()
if not child:
    assert threads.layer() != "omp" or threads.launch_mode() == threads.SERIAL
    os._exit(not np.array_equal(result(), first))
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(result(), first)
print(threads.layer(), threads.get_num_threads(), threads.maximum(), os.environ["GOMP_SPINCOUNT"])
""", NUMBANET_NUM_THREADS="4")
    assert output[1:] == ["4", "4", os.environ.get("GOMP_SPINCOUNT", threads.SPIN_COUNT)]


@needs_jit
def test_a_child_forked_before_any_parallel_region_may_be_parallel():
    run_python("""
child = os.fork()
if not child:
    result()
    os._exit(threads.launch_mode() == threads.SERIAL)
assert os.waitpid(child, 0)[1] == 0
""")


@needs_jit
@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_many_python_threads_at_once(layer):
    try:
        output = run_python("""
first, bad = result(), []
def work():
    for _ in range(200):
        if not np.array_equal(result(), first):
            bad.append(1)
many = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in many]; [t.join() for t in many]
print(threads.layer(), len(bad))
""", NUMBA_THREADING_LAYER=layer, NUMBANET_NUM_THREADS="2")
    except AssertionError as error:
        if "No threading layer could be loaded" in str(error):
            pytest.skip(f"{layer} is not installed")
        raise
    assert output == [layer, "0"]


def test_nothing_is_imported_or_started_by_the_import():
    source = ("import sys\nfrom numbanet.backends.cpu import hardware, memory, threads\n"
              "assert 'numba' not in sys.modules")
    subprocess.run([sys.executable, "-c", source], check=True)
