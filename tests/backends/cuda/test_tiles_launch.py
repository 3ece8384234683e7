"""What a launch passes is what its kernel declares; the driver's calls, with a stand-in for the driver."""

from __future__ import annotations

import ctypes
import re
from types import SimpleNamespace

import pytest

from numbanet.backends.cuda import cubin, driver
from numbanet.backends.cuda.tiles import launch as launching
from numbanet.backends.cuda.tiles.arguments import View, conv_backward_weight, conv_forward, gemm
from numbanet.backends.cuda.tiles.catalog import argument_types
from numbanet.backends.cuda.tiles.choose import TILES
from numbanet.backends.cuda.tiles.launch import parameters_of
from numbanet.backends.cuda.tiles.reduce import SplitEpilogue
from numbanet.errors import BackendError
from numbanet.geometry import conv_geometry
from tests.backends.cuda.fake_driver import INVALID

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
        assert len(parameters_of(launch)) == sum(lengths)


def test_parameters_of_the_machine_code_are_the_parameters_of():
    """Tuples arrive one number after the other, in the order of the types."""
    if cubin.can_compile():
        pytest.skip(cubin.can_compile())
    from numbanet.backends.cuda import ptx
    from numbanet.backends.cuda.tiles import build
    program = SplitEpilogue("float32", "matrix")
    text = cubin.compile_ptx(program.name, build(program, ptx), argument_types(program))
    letters = re.findall(r"\.param \.([usbf]\d+) \w+_param_\d+", text)
    sizes = {"int64": "64", "int32": "32", "float32": "32"}
    wanted = [sizes[base] for base, _, count in (t.partition("x") for t in argument_types(program)) for _ in range(int(count))]
    assert [letter[1:] for letter in letters] == wanted


@pytest.fixture
def device(fake, monkeypatch):
    monkeypatch.setattr(launching, "cubin_of", lambda program, arch: SimpleNamespace(code=program.name, name=program.name))
    return driver.Device(0)


def test_a_launch_loads_once_and_asks_for_its_shared_memory(fake, device):
    launch, = gemm(LARGE, *[View(1 << 20, (1, 64, 64), (4096, 64, 1))] * 3)
    for _ in range(3):
        device.run_tiles([launch])
    assert fake.calls.count("cuModuleLoadData") == 1 and len(fake.launched) == 3
    function = launch.program.name, launch.program.name.encode()
    assert fake.attributes == {function: ("shared", LARGE.shared_bytes)} and LARGE.shared_bytes > driver.STATIC_SHARED
    assert fake.launched[0] == fake.launched[2] and fake.launched[0][:5] == (function, launch.grid, (LARGE.threads, 1, 1),
                                                                            LARGE.shared_bytes, 7)
    pointers = ctypes.cast(fake.launched[0][5], ctypes.POINTER(ctypes.c_void_p))
    assert ctypes.cast(pointers[0], ctypes.POINTER(ctypes.c_int64))[0] == 1 << 20


def test_calls_are_kept_up_to_a_limit(device, monkeypatch):
    monkeypatch.setattr(launching, "REMEMBERED", 3)
    for n in range(1, 9):
        device.run_tiles(gemm(TILE, *[View(n << 20, (1, 64, 64), (4096, 64, 1))] * 3))
        assert len(device.tile_calls) <= 3


def test_errors_of_the_driver_are_errors(fake, device, monkeypatch):
    launch, = gemm(LARGE, *[View(1 << 20, (1, 64, 64), (4096, 64, 1))] * 3)
    monkeypatch.setattr(fake, "cuModuleLoadData", lambda image: (INVALID, None), raising=False)
    with pytest.raises(BackendError, match="cuda:0: cuModuleLoadData failed: CUDA_ERROR_INVALID_VALUE"):
        device.run_tiles([launch])
