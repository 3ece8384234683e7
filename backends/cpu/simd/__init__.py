"""SIMD vectors for kernels: `from numbanet.backends.cpu.simd import L, load, store, fma, exp, tile, ...`."""
from numbanet.backends.cpu.simd.functions import erf, exp, expm1, log, log1p, sigmoid, tanh  # noqa: F401
from numbanet.backends.cpu.simd.vector import *  # noqa: F403
