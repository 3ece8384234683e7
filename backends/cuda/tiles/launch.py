"""Running launches on a GPU: machine code from the cubin cache, raw addresses as arguments, a prepared call that decides nothing.

The current context of the calling thread is used; the stream is the caller's. Not run on a GPU so far: what a machine without one can check
is that arguments are laid out as the PTX declares them.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

from numbanet.backends.cuda.tiles.arguments import Launch
from numbanet.backends.cuda.tiles.catalog import argument_types, cubin_of
from numbanet.errors import BackendError

_C_TYPES = {"int32": ctypes.c_int32, "int64": ctypes.c_int64, "float32": ctypes.c_float}
STATIC_LIMIT = 48 * 1024             # of shared memory that a kernel gets without asking


def flat_arguments(launch: Launch) -> list:
    """The arguments of a launch one by one, as C numbers: what the parameters of its kernel are."""
    flat = []
    for text, value in zip(argument_types(launch.program), launch.arguments, strict=True):
        base, _, count = text.partition("x")
        if len(value) != int(count):
            raise BackendError(f"{launch.program.name}: an argument of type {text} expects {count} numbers, received {len(value)}")
        flat += [_C_TYPES[base](number) for number in value]
    return flat


class Prepared:
    """A launch whose kernel is loaded and whose arguments are laid out; a call costs one driver call.

    Parameters
    ----------
    launch
        From `arguments.py`.
    arch
        Of the current context's GPU: "sm_90".
    """

    def __init__(self, launch: Launch, arch: str):
        from cuda.bindings import driver
        self.driver, self.launch = driver, launch
        self._function = _function(launch.program, arch, int(_checked(driver, driver.cuCtxGetCurrent())))
        self._numbers = flat_arguments(launch)                         # kept: the driver is given their addresses
        self._pointers = (ctypes.c_void_p * len(self._numbers))(*[ctypes.addressof(number) for number in self._numbers])

    def __call__(self, stream: int = 0) -> None:
        launch, driver = self.launch, self.driver
        _checked(driver, driver.cuLaunchKernel(self._function, *launch.grid, launch.threads, 1, 1, launch.shared_bytes, stream,
                                               ctypes.addressof(self._pointers), 0))


@lru_cache(maxsize=1024)
def _function(program, arch: str, context: int):
    """The loaded kernel; `context` is in the key, as a module belongs to one."""
    from cuda.bindings import driver
    made = cubin_of(program, arch)
    module = _checked(driver, driver.cuModuleLoadData(made.code))
    function = _checked(driver, driver.cuModuleGetFunction(module, made.name.encode()))
    if program.shared_bytes > STATIC_LIMIT:
        attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver, driver.cuFuncSetAttribute(function, attribute, program.shared_bytes))
    return function


def _checked(driver, answer):
    status, *results = answer
    if status != driver.CUresult.CUDA_SUCCESS:
        _, text = driver.cuGetErrorString(status)
        raise BackendError(f"CUDA: {text.decode() if text else status}")
    return results[0] if results else None
