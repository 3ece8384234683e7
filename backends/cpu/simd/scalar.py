"""The scalar twins: every SIMD intrinsic as a plain NumPy function of the same name and arguments.

They run under `NUMBA_DISABLE_JIT=1`, where a vector is a NumPy array of L numbers, so that a debugger steps through a
kernel and coverage sees it. They are also the specification that the intrinsics are tested against.
"""
import numpy as np

from numbanet.backends.cpu.hardware import simd_width

L = simd_width()


def _at(array: np.ndarray, offset: int, step: int = 1, count: int = L) -> np.ndarray:
    """A view of `count` elements in memory, from `offset` elements after the array's first one."""
    first = int(array.ctypes.data + offset * array.itemsize)       # NumPy's integers, from tables, are refused here
    interface = {"data": (first, False), "shape": (int(count),), "strides": (int(step) * array.itemsize,),
                 "typestr": array.dtype.str, "version": 3}
    return np.asarray(_Memory(interface, array))


class _Memory:
    def __init__(self, interface: dict, owner: np.ndarray):
        self.__array_interface__, self.owner = interface, owner


# --- arithmetic -----------------------------------------------------------------------------------------------------

def splat(number):
    return np.full(L, number, np.float32)


def splat_int(number):
    return np.full(L, number, np.int32)


def lane_indices():
    return np.arange(L, dtype=np.int32)


def fma(x, y, z):
    # the product of two float32 is exact in float64; the sum is rounded twice, which rarely gives another bit
    x, y, z = (np.float32(value).astype(np.float64) for value in (x, y, z))
    return (x * y + z).astype(np.float32)


def select(mask, x, y):
    dtype = next(value.dtype for value in (x, y) if isinstance(value, np.ndarray))
    return np.where(mask, x, y).astype(dtype)


def minimum(x, y):
    return np.where(np.isnan(x), x, np.where(np.less(x, y), x, y)).astype(np.float32)


def maximum(x, y):
    return np.where(np.isnan(x), x, np.where(np.greater(x, y), x, y)).astype(np.float32)


absolute, sqrt, floor, round_even, copysign = np.abs, np.sqrt, np.floor, np.rint, np.copysign


def to_int(x):
    return np.trunc(x).astype(np.int32)


def times_power_of_two(x, n):
    return np.ldexp(x, n.astype(np.int32))


def to_float(x):
    return x.astype(np.float32)


def bits(x):
    return x.view(np.int32)


def from_bits(x):
    return x.view(np.float32)


def _reduce(vector, combine):
    while len(vector) > 1:
        half = len(vector) // 2
        vector = combine(vector[:half], vector[half:])
    return vector[0]


def reduce_add(x):
    return _reduce(x, np.add)


def reduce_max(x):
    return _reduce(x, maximum)


def reduce_min(x):
    return _reduce(x, minimum)


def any_lane(mask):
    return bool(mask.any())


# --- memory ---------------------------------------------------------------------------------------------------------

def _widened(vector):
    """bfloat16 lanes, held as uint16, as float32; others as they are."""
    return (vector.astype(np.uint32) << 16).view(np.float32) if vector.dtype == np.uint16 else vector


def load(array, offset):
    return _widened(_at(array, offset).copy())


def store(array, offset, value):
    _at(array, offset)[:] = value


def load_partial(array, offset, count):
    vector, count = np.zeros(L, array.dtype), min(max(count, 0), L)
    vector[:count] = _at(array, offset, count=count)
    return _widened(vector)


store_streamed = store


def store_partial(array, offset, value, count):
    count = min(max(count, 0), L)
    _at(array, offset, count=count)[:] = value[:count]


def load_strided(array, offset, step):
    return _at(array, offset, step).copy()


def store_strided(array, offset, step, value):
    for lane in range(L):                               # one by one: with step 0 the last lane stays
        _at(array, offset + lane * step, count=1)[0] = value[lane]


def transpose_block(source, offset, row, target, target_offset, target_row):
    block = np.stack([load(source, offset + i * row) for i in range(L)])
    for i in range(L):
        store(target, target_offset + i * target_row, block[:, i])


# --- the register tile ----------------------------------------------------------------------------------------------

def tile(MR, NV, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate):
    tile_partial(MR, NV, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate, L)


def tile_ahead(MR, NV, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate, ahead):
    tile(MR, NV, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate)


def tile_partial(MR, NV, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate,
                 last_lanes):
    width = (NV - 1) * L + last_lanes
    for i in range(MR):
        row = _at(c, c_offset + i * c_row, count=width)
        total = row.copy() if accumulate else np.zeros(width, np.float32)
        for k in range(depth):
            number = _at(a, a_offset + i * a_row + k * a_step, count=1)[0]
            total = fma(number, _at(b, b_offset + k * b_step, count=width), total)
        row[:] = total
