"""Small kernels that the tests of the compile layer, of threads and of the SIMD vocabulary call."""
from numba import prange

from numbanet.backends.cpu.compile import kernel, worker


@worker
def scaled(x, factor):
    return x * factor


@kernel("void(const T[:,:], T[:,:], T)", dtypes=("float32", "float64"))
def scale_rows(x, y, factor):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = scaled(x[i, j], factor)


@kernel("void(const T[:,:], T[:])", parallel=True)
def sum_rows(x, y):
    for i in prange(x.shape[0]):
        total = x[i, 0] - x[i, 0]
        for j in range(x.shape[1]):
            total += x[i, j] * x[i, j]
        y[i] = total


@kernel("void(T[:])")
def overwrite(y):
    y[:] = 7


@worker
def checked(x):
    if x < 0:
        raise ValueError("negative", 3)
    return x


@kernel("void(const T[:], T[:])")
def raising(x, y):
    for i in range(x.size):
        y[i] = checked(x[i])
