"""What a launch passes is what its kernel declares; the driver's calls, with a stand-in for the driver."""

from __future__ import annotations

import ctypes
import re
import sys
from types import SimpleNamespace

import pytest

from numbanet.backends.cuda import cubin
from numbanet.backends.cuda.tiles import launch as launching
from numbanet.backends.cuda.tiles.arguments import View, conv_backward_weight, conv_forward, gemm
from numbanet.backends.cuda.tiles.catalog import argument_types
from numbanet.backends.cuda.tiles.choose import TILES
from numbanet.backends.cuda.tiles.launch import Prepared, flat_arguments
from numbanet.backends.cuda.tiles.reduce import StatisticsMerge
from numbanet.errors import BackendError
from numbanet.geometry import conv_geometry

TILE = TILES["tf32"][-1]
LARGE = TILES["tf32"][0]


def launches(splits=1):
    view = View(1 << 20, (1, 64, 64), (4096, 64, 1))
    yield from gemm(LARGE, view, view, view, splits=splits, workspace=1 << 21)
    geometry = conv_geometry(32, 64, (8, 8), (3, 3), 2, 1)
    x, y = View(1 << 20, (2, 32, 8, 8), (2048, 1, 256, 32)), View(1 << 21, (2, 64, 4, 4), (1024, 1, 256, 64))
    weight = View(1 << 22, (64, 32, 3, 3), (288, 1, 96, 32))
    yield from conv_forward(TILE, x, weight, y, geometry, splits=splits, workspace=1 << 23)
    yield from conv_backward_weight(TILE, y, x, weight, geometry, splits=splits, workspace=1 << 23)


@pytest.mark.parametrize("splits", [1, 3])
def test_arguments_have_the_declared_lengths(splits):
    for launch in launches(splits):
        lengths = [int(text.partition("x")[2] or 1) for text in argument_types(launch.program)]
        assert [len(argument) for argument in launch.arguments] == lengths
        assert len(flat_arguments(launch)) == sum(lengths)


def test_parameters_of_the_machine_code_are_the_flat_arguments():
    """Tuples arrive one number after the other, in the order of the types."""
    if cubin.can_compile():
        pytest.skip(cubin.can_compile())
    from numbanet.backends.cuda import ptx
    from numbanet.backends.cuda.tiles import build
    program = StatisticsMerge()
    text = cubin.compile_ptx(program.name, build(program, ptx), argument_types(program))
    letters = re.findall(r"\.param \.([usbf]\d+) \w+_param_\d+", text)
    sizes = {"int64": "64", "int32": "32"}
    wanted = [sizes[base] for base, _, count in (t.partition("x") for t in argument_types(program)) for _ in range(int(count))]
    assert [letter[1:] for letter in letters] == wanted


class Driver:
    """Answers as `cuda.bindings.driver` does, and notes what it was asked."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=0)
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared")

    def __init__(self, fails=()):
        self.calls, self.fails = [], fails

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, *arguments))
            if name == "cuGetErrorString":
                return 0, b"it failed"
            if name == "cuLaunchKernel":
                pointers = ctypes.cast(arguments[9], ctypes.POINTER(ctypes.c_void_p))
                self.first = ctypes.cast(pointers[0], ctypes.POINTER(ctypes.c_int64))[0]
            return (1, None) if name in self.fails else (0, 7)
        return call


@pytest.fixture
def driver(monkeypatch):
    made = Driver()
    bindings = SimpleNamespace(driver=made)
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(bindings=bindings))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr(launching, "cubin_of", lambda program, arch: SimpleNamespace(code=b"", name=program.name))
    launching._function.cache_clear()
    yield made
    launching._function.cache_clear()


def test_a_prepared_launch_loads_once_and_asks_for_its_shared_memory(driver):
    launch, = gemm(LARGE, *[View(1 << 20, (1, 64, 64), (4096, 64, 1))] * 3)
    prepared = Prepared(launch, "sm_90")
    Prepared(launch, "sm_90")(stream=5)
    prepared(stream=5)
    names = [call[0] for call in driver.calls]
    assert names.count("cuModuleLoadData") == 1 and names.count("cuLaunchKernel") == 2
    assert ("cuFuncSetAttribute", 7, "shared", LARGE.shared_bytes) in driver.calls and LARGE.shared_bytes > 48 * 1024
    call = driver.calls[-1]
    assert call[1:10] == (7, *launch.grid, LARGE.threads, 1, 1, LARGE.shared_bytes, 5)
    assert driver.first == 1 << 20


def test_errors_of_the_driver_are_errors(driver):
    launch, = gemm(LARGE, *[View(1 << 20, (1, 64, 64), (4096, 64, 1))] * 3)
    driver.fails = ("cuModuleLoadData",)
    with pytest.raises(BackendError, match="CUDA: it failed"):
        Prepared(launch, "sm_90")
