"""`@kernel` and `@worker`: dtypes, layouts, twins, errors, and the functions that doctor and warmup call."""
import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from numbanet.backends.cpu import compile as compiler
from numbanet.backends.cpu import threads
from numbanet.errors import BackendError, DTypeError
from tests.backends.cpu import sample_kernels

pytestmark = pytest.mark.skipif(not compiler.JIT, reason="NUMBA_DISABLE_JIT=1")


def fresh(kernel):
    """The same kernel as a new process would see it: nothing compiled."""
    return type(kernel)(kernel.function, kernel.texts, [dtype.name for dtype in kernel.dtypes], kernel.fastmath)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kernel_takes_any_strides_of_each_of_its_dtypes(dtype, rng):
    x = rng.standard_normal((10, 12)).astype(dtype)
    for view in (x, x.T, x[::2, ::-3], x[:0]):
        y = np.full(view.shape, np.nan, dtype)
        sample_kernels.scale_rows(view, y.T.copy().T, 2)
        sample_kernels.scale_rows(view, y, 2)
        assert np.array_equal(y, 2 * view)


def test_const_takes_read_only_arrays_and_others_do_not():
    x, y = np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)
    x.setflags(write=False)
    sample_kernels.scale_rows(x, y, 3.0)
    assert (y == 3).all()
    with pytest.raises(TypeError):
        sample_kernels.overwrite(x[0])
    assert (x == 1).all()


def test_an_unknown_dtype_names_the_kernel_and_what_it_takes():
    x = np.ones((2, 3), np.int16)
    with pytest.raises(DTypeError, match=r"scale_rows: expected float32 or float64, received int16"):
        sample_kernels.scale_rows(x, x.copy(), 1)


def test_the_serial_twin_gives_the_same_bits(rng):
    x = rng.standard_normal((37, 129)).astype(np.float32)
    parallel, serial = np.full((2, 37), np.nan, np.float32)
    sample_kernels.sum_rows(x, parallel)
    with threads.serial_region():
        sample_kernels.sum_rows(x, serial)
    assert np.array_equal(parallel, serial)
    assert np.allclose(serial, (x.astype(np.float64) ** 2).sum(1), rtol=1e-5)
    assert len(sample_kernels.sum_rows._serial) == 1


def test_an_exception_in_a_worker_reaches_python_with_its_arguments():
    y = np.zeros(2, np.float32)
    with pytest.raises(ValueError) as caught:
        sample_kernels.raising(np.array([1, -1], np.float32), y)
    assert caught.value.args == ("negative", 3)


def test_a_worker_can_be_called_from_python_after_a_kernel_compiled_it():
    y = np.zeros((1, 1), np.float32)
    sample_kernels.scale_rows(y, y, 1.0)
    assert sample_kernels.scaled(np.float32(3), np.float32(2)) == 6


def test_a_kernel_that_does_not_compile_names_itself_the_machine_and_the_remedy():
    def untypable(x):
        x.no_such_method()

    broken = compiler.Kernel(untypable, ["void(T[:])"], ["float32"], compiler.CONTRACT)
    with pytest.raises(BackendError) as caught:
        broken(np.zeros(1, np.float32))
    for part in ("untypable", "float32", "numba", "llvmlite", "Python", "no_such_method", "doctor", "reference"):
        assert part in str(caught.value)


def test_a_name_is_given_once():
    def overwrite(y):
        y[:] = 8

    overwrite.__module__, overwrite.__qualname__ = sample_kernels.__name__, "overwrite"
    with pytest.raises(BackendError, match="the name is taken"):
        compiler.kernel("void(T[:])")(overwrite)
    assert sample_kernels.overwrite in compiler.registered_kernels()


def test_a_signature_needs_an_array_that_selects_the_dtype():
    with pytest.raises(BackendError, match="at least one array of T"):
        compiler.Kernel(test_a_name_is_given_once, ["void(f4[:], T)"], ["float32"], compiler.CONTRACT)


def test_warmup_compiles_or_loads_and_is_counted(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, "statistics", compiler.Statistics(seconds=1.0))
    first, second = (fresh(sample_kernels.overwrite) for _ in range(2))
    assert not first.is_cached("float32")
    with caplog.at_level(logging.INFO, "numbanet.compile"):
        counted = compiler.warmup([first])
    assert (counted.hits, counted.misses) == (0, 1) and counted.seconds > 1.0
    assert first.is_cached("float32") and second.is_cached("float32")
    assert [str(tmp_path) in message for message in caplog.messages] == [True]
    compiler.warmup([second])
    assert (counted.hits, counted.misses) == (1, 1)
    y = np.zeros(3, np.float32)
    second(y)
    assert (y == 7).all()


def test_without_the_jit_kernels_are_plain_functions():
    source = ("import types, numpy as np\nfrom tests.backends.cpu import sample_kernels as k\n"
              "assert isinstance(k.sum_rows, types.FunctionType) and isinstance(k.scaled, types.FunctionType)\n"
              "x = np.arange(6, dtype=np.float32).reshape(2, 3); y = x[:, 0].copy()\n"
              "k.sum_rows(x, y); assert y.tolist() == [5, 50]")
    subprocess.run([sys.executable, "-c", source], env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, check=True)
