"""SIMD vectors for kernels: `from numbanet.backends.cpu.simd import L, load, store, fma, exp, tile, ...`."""
from numbanet.backends.cpu.simd.vector import *  # noqa: F403
