"""Operators in NumPy: logic, integers, indices, shape arithmetic, and rarities around a network.

Each function takes the node and NumPy arrays (None for an absent optional operand) and returns a NumPy array of the dtype that the ONNX
operator specification gives (https://onnx.ai/onnx/operators/), or a tuple of them. Where the same operator exists on tensors, the function
here is its twin: it serves the dtypes that tensors lack, and computes with shapes. The file is long because it is the one place for all of
them; the sections are: elementwise, logic and bits, shapes, indices, reductions, matrices, windows of images, sampling of images,
detection, quantisation, constants and random numbers.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from numbanet.errors import DTypeError, IndexRangeError, ShapeError, UsageError
from numbanet.onnx.operators.registry import host_operator
from numbanet.random import next_key


def _dtype(number: int) -> np.dtype:
    """The NumPy dtype of an `onnx.TensorProto.DataType`."""
    import onnx
    if number == onnx.TensorProto.STRING:
        raise DTypeError("Cast: there are no tensors of strings")
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number))


def _operand_or_attribute(node, operand, name: str):
    """A list of integers that older opsets hold in an attribute and newer ones in an operand; None where both are absent."""
    if operand is not None:
        return [int(value) for value in np.ravel(operand)]
    value = node.attributes.get(name)
    return None if value is None else [int(entry) for entry in value]


def _normal_axis(node, axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise ShapeError(f"{node}: axis {axis} is out of range for {rank} dimensions")
    return axis + rank if axis < 0 else axis


def _normal_axes(node, axes, rank: int) -> tuple[int, ...]:
    normal = tuple(_normal_axis(node, axis, rank) for axis in axes)
    if len(set(normal)) != len(normal):
        raise ShapeError(f"{node}: axes {list(axes)} name one axis twice")
    return normal


def _legacy_broadcast(node, a, b):
    """Before opset 7 the attribute `axis` says where the dimensions of b begin in a."""
    axis = node.attributes.get("axis")
    if node.version < 7 and node.attributes.get("broadcast") and axis is not None:
        b = b.reshape(b.shape + (1,) * (a.ndim - _normal_axis(node, axis, a.ndim) - b.ndim))
    return a, b


# Elementwise

def _register_unary(name: str, compute) -> None:
    def unary(node, x):
        with np.errstate(all="ignore"):
            return np.asarray(compute(x)).astype(x.dtype, copy=False)
    unary.__doc__ = f"{name} of each element."
    host_operator(name)(unary)


def _wide(function):
    """float16 and bfloat16 are computed in float32."""
    return lambda x: function(x.astype(np.float32) if x.dtype.itemsize == 2 else x)


for _name, _function in {
        "Abs": np.abs, "Neg": np.negative, "Sign": np.sign, "Ceil": np.ceil, "Floor": np.floor, "Round": np.rint, "Identity": np.array,
        "Reciprocal": lambda x: 1 / x, "Relu": lambda x: np.maximum(x, x.dtype.type(0)), "Not": np.logical_not, "BitwiseNot": np.invert,
        "Sqrt": np.sqrt, "Exp": _wide(np.exp), "Log": _wide(np.log), "Sin": _wide(np.sin), "Cos": _wide(np.cos), "Tan": _wide(np.tan),
        "Asin": _wide(np.arcsin), "Acos": _wide(np.arccos), "Atan": _wide(np.arctan), "Sinh": _wide(np.sinh), "Cosh": _wide(np.cosh),
        "Tanh": _wide(np.tanh), "Asinh": _wide(np.arcsinh), "Acosh": _wide(np.arccosh), "Atanh": _wide(np.arctanh)}.items():
    _register_unary(_name, _function)


@host_operator("Erf")
def erf(node, x):
    """The error function, by the C library's, element by element."""
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)


def _integer(dtype: np.dtype) -> bool:
    return dtype.kind in "iu"


def _divide(a, b):
    return (a - np.fmod(a, b)) // b if _integer(a.dtype) else a / b     # integers: towards zero


def _power(a, b):
    if _integer(a.dtype) and _integer(b.dtype) and (b.size == 0 or b.min() >= 0):
        return np.power(a, b.astype(a.dtype))
    return np.power(a.astype(np.float64), b) if _integer(a.dtype) else np.power(a, b)


def _register_binary(name: str, compute, keeps_dtype: bool = True) -> None:
    def binary(node, a, b):
        a, b = _legacy_broadcast(node, a, b)
        with np.errstate(all="ignore"):
            y = np.asarray(compute(a, b))
        return y.astype(a.dtype, copy=False) if keeps_dtype else y
    binary.__doc__ = f"{name} of two operands, broadcast."
    host_operator(name)(binary)


for _name, _function in {
        "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divide, "Pow": _power, "And": np.logical_and, "Or": np.logical_or,
        "Xor": np.logical_xor, "BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor}.items():
    _register_binary(_name, _function)
for _name, _function in {"Equal": np.equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal, "Less": np.less,
                         "LessOrEqual": np.less_equal}.items():
    _register_binary(_name, _function, keeps_dtype=False)


@host_operator("Mod")
def mod(node, a, b):
    """Remainder with the divisor's sign, or with `fmod` the dividend's."""
    with np.errstate(all="ignore"):
        return np.asarray((np.fmod if node.attributes.get("fmod", 0) else np.mod)(a, b)).astype(a.dtype, copy=False)


@host_operator("BitShift")
def bit_shift(node, a, b):
    """Shift of integers; bits that leave are lost, and negative numbers shifted right stay negative, for any b."""
    width = 8 * a.dtype.itemsize
    within = np.minimum(b, width - 1)
    if node.attributes["direction"] == "LEFT":
        return np.where(b < width, np.left_shift(a, within), a.dtype.type(0))
    return np.where((b < width) | (a < 0), np.right_shift(a, within), a.dtype.type(0))


def _register_variadic(name: str, compute, mean: bool = False) -> None:
    def variadic(node, *operands):
        y = operands[0]
        for operand in operands[1:]:
            y = compute(y, operand)
        y = y / len(operands) if mean else y
        return np.array(y, dtype=operands[0].dtype)
    variadic.__doc__ = f"{name} over the operands, broadcast."
    host_operator(name)(variadic)


_register_variadic("Max", np.maximum)
_register_variadic("Min", np.minimum)
_register_variadic("Sum", np.add)
_register_variadic("Mean", np.add, mean=True)


@host_operator("Clip")
def clip(node, x, low=None, high=None):
    """min(max(x, low), high)."""
    low = node.attributes.get("min") if low is None else low
    high = node.attributes.get("max") if high is None else high
    if low is not None:
        x = np.maximum(x, np.asarray(low, x.dtype))
    return x if high is None else np.minimum(x, np.asarray(high, x.dtype))


@host_operator("PRelu")
def prelu(node, x, slope):
    """x where it is positive, slope * x elsewhere."""
    return np.where(x < 0, x * slope, x).astype(x.dtype)


@host_operator("Where")
def where(node, condition, a, b):
    """a where the condition holds, b elsewhere, broadcast."""
    return np.where(condition, a, b)


@host_operator("IsNaN")
def is_nan(node, x):
    """Whether each element is not a number."""
    return np.isnan(x)


@host_operator("IsInf")
def is_inf(node, x):
    """Whether each element is infinite, of the signs asked for."""
    positive, negative = node.attributes.get("detect_positive", 1), node.attributes.get("detect_negative", 1)
    return np.isinf(x) & (((x > 0) & bool(positive)) | ((x < 0) & bool(negative)))


def _cast(x, dtype: np.dtype):
    with np.errstate(invalid="ignore", over="ignore"):
        return x.astype(dtype)


@host_operator("Cast")
def cast(node, x):
    """Conversion to the dtype `to`; floats become integers towards zero."""
    return _cast(x, _dtype(node.attributes["to"]))


@host_operator("CastLike")
def cast_like(node, x, target):
    """Conversion to the dtype of `target`."""
    return _cast(x, target.dtype)


@host_operator("BitCast")
def bit_cast(node, x):
    """The same bits as another dtype of the same width."""
    dtype = _dtype(node.attributes["to"])
    if dtype.itemsize != x.dtype.itemsize:
        raise DTypeError(f"{node}: expected a dtype of {8 * x.dtype.itemsize} bits as {x.dtype}, received {dtype}")
    return np.ascontiguousarray(x).view(dtype).reshape(x.shape)


# Shapes

@host_operator("Shape", reads_metadata=True)
def shape(node, x):
    """The shape, or its part from `start` to `end`."""
    return np.array(tuple(x.shape)[node.attributes.get("start", 0):node.attributes.get("end")], np.int64)


@host_operator("Size", reads_metadata=True)
def size(node, x):
    """The number of elements."""
    return np.array(math.prod(x.shape), np.int64)


@host_operator("Reshape")
def reshape(node, x, target=None):
    """A new shape; 0 keeps a dimension (unless `allowzero`), -1 takes what is left."""
    target = _operand_or_attribute(node, target, "shape")
    if not node.attributes.get("allowzero", 0):
        target = [x.shape[axis] if n == 0 and axis < x.ndim else n for axis, n in enumerate(target)]
    return x.reshape(target)


@host_operator("Flatten")
def flatten(node, x):
    """Two dimensions: those before `axis`, and the rest."""
    axis = node.attributes.get("axis", 1)
    axis = axis if axis == x.ndim else _normal_axis(node, axis, x.ndim)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@host_operator("Transpose")
def transpose(node, x):
    """The axes in the order `perm`, by default reversed."""
    return np.transpose(x, node.attributes.get("perm"))


@host_operator("Squeeze")
def squeeze(node, x, axes=None):
    """Without the axes of length one, all or those given."""
    axes = _operand_or_attribute(node, axes, "axes")
    return np.squeeze(x) if axes is None else np.squeeze(x, _normal_axes(node, axes, x.ndim))


@host_operator("Unsqueeze")
def unsqueeze(node, x, axes=None):
    """With new axes of length one at the positions `axes` of the result."""
    return np.expand_dims(x, tuple(_operand_or_attribute(node, axes, "axes")))


@host_operator("Expand")
def expand(node, x, target):
    """Broadcast with a tensor of shape `target`."""
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(n) for n in target)))


@host_operator("Tile")
def tile(node, x, repeats):
    """x repeated along each axis."""
    return np.tile(x, tuple(int(n) for n in repeats))


@host_operator("Concat")
def concat(node, *operands):
    """The operands joined along `axis`."""
    return np.concatenate(operands, node.attributes.get("axis", 1))


@host_operator("Split")
def split(node, x, sizes=None):
    """Parts along `axis`: of the given sizes, or as many as there are outputs, of which only the last may be smaller."""
    axis = _normal_axis(node, node.attributes.get("axis", 0), x.ndim)
    sizes = _operand_or_attribute(node, sizes, "split")
    if sizes is None:
        parts = len(node.outputs)
        chunk = -(-x.shape[axis] // parts)
        sizes = [chunk] * (parts - 1) + [x.shape[axis] - chunk * (parts - 1)]
    if sum(sizes) != x.shape[axis] or min(sizes, default=0) < 0:
        raise ShapeError(f"{node}: expected sizes that sum to {x.shape[axis]}, the length of axis {axis}, received {sizes}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


@host_operator("Slice")
def slice_(node, x, starts=None, ends=None, axes=None, steps=None):
    """x[start:end:step] along the given axes, with NumPy's rule for indices beyond the ends."""
    starts, ends = _operand_or_attribute(node, starts, "starts"), _operand_or_attribute(node, ends, "ends")
    axes = _normal_axes(node, _operand_or_attribute(node, axes, "axes") or range(len(starts)), x.ndim)
    steps = [1] * len(starts) if steps is None else [int(step) for step in steps]
    window = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps):
        if step < 0 and end < -x.shape[axis]:
            end = None                          # down to and with the first element
        window[axis] = slice(start, end, step)
    return x[tuple(window)]


@host_operator("Pad")
def pad(node, x, pads=None, value=None, axes=None):
    """More, or with negative numbers fewer, elements at both ends of each axis; pads = begins, then ends."""
    pads = _operand_or_attribute(node, pads, "pads")
    axes = _normal_axes(node, range(x.ndim) if axes is None else [int(axis) for axis in axes], x.ndim)
    widths = [(0, 0)] * x.ndim
    for axis, begin, end in zip(axes, pads[:len(axes)], pads[len(axes):]):
        widths[axis] = (begin, end)
    mode = node.attributes.get("mode", "constant")
    value = node.attributes.get("value", 0) if value is None or value.size == 0 else value.item()
    extra = {"constant_values": np.asarray(value, x.dtype)} if mode == "constant" else {}
    inner = tuple(slice(max(0, -begin), n - max(0, -end)) for (begin, end), n in zip(widths, x.shape))
    return np.pad(x[inner], [(max(0, begin), max(0, end)) for begin, end in widths], mode, **extra)


@host_operator("DepthToSpace")
def depth_to_space(node, x):
    """Blocks of channels become squares of pixels; DCR: the channel's highest part is the block, CRD: its lowest."""
    N, C, H, W = x.shape
    b = node.attributes["blocksize"]
    if node.attributes.get("mode", "DCR") == "DCR":
        y = x.reshape(N, b, b, C // b**2, H, W).transpose(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(N, C // b**2, b, b, H, W).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(N, C // b**2, H * b, W * b)


@host_operator("SpaceToDepth")
def space_to_depth(node, x):
    """Squares of pixels become channels."""
    N, C, H, W = x.shape
    b = node.attributes["blocksize"]
    y = x.reshape(N, C, H // b, b, W // b, b)
    order = (0, 3, 5, 1, 2, 4) if node.attributes.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return y.transpose(order).reshape(N, C * b * b, H // b, W // b)


@host_operator("CenterCropPad")
def center_crop_pad(node, x, target):
    """Each axis cropped to, or padded with zeros to, the target length, around its centre."""
    axes = _normal_axes(node, node.attributes.get("axes", range(x.ndim)), x.ndim)
    for axis, n in zip(axes, (int(n) for n in target)):
        missing = n - x.shape[axis]
        window = [slice(None)] * x.ndim
        if missing < 0:
            window[axis] = slice(-missing // 2, -missing // 2 + n)
            x = x[tuple(window)]
        else:
            widths = [(0, 0)] * x.ndim
            widths[axis] = (missing // 2, missing - missing // 2)
            x = np.pad(x, widths)
    return x


# Indices

def _bounded(node, indices, n: int):
    """Indices in [-n, n) as ones in [0, n)."""
    indices = indices.astype(np.int64)
    if indices.size and (indices.min() < -n or indices.max() >= n):
        raise IndexRangeError(f"{node}: indices must be in [{-n}, {n - 1}], received {indices.min()} to {indices.max()}")
    return np.where(indices < 0, indices + n, indices)


@host_operator("Gather")
def gather(node, x, indices):
    """Slices of x along `axis`, one for each index."""
    axis = _normal_axis(node, node.attributes.get("axis", 0), x.ndim)
    return np.take(x, _bounded(node, indices, x.shape[axis]), axis)


@host_operator("GatherElements")
def gather_elements(node, x, indices):
    """One element for each index, whose other coordinates are its own."""
    axis = _normal_axis(node, node.attributes.get("axis", 0), x.ndim)
    return x[_element_positions(node, x, indices, axis)]


def _element_positions(node, x, indices, axis: int):
    positions = list(np.indices(indices.shape, sparse=True))
    positions[axis] = _bounded(node, indices, x.shape[axis])
    return tuple(positions)


def _reduce_at(node, y, positions, updates) -> None:
    reduction = node.attributes.get("reduction", "none")
    if reduction == "none":
        y[positions] = updates
    else:
        {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduction].at(y, positions, updates)


@host_operator("ScatterElements")
@host_operator("Scatter")
def scatter_elements(node, x, indices, updates):
    """A copy of x with one element written, or combined by `reduction`, for each index."""
    axis = _normal_axis(node, node.attributes.get("axis", 0), x.ndim)
    y = np.array(x)
    _reduce_at(node, y, _element_positions(node, x, indices, axis), updates)
    return y


def _tuple_positions(node, indices, sizes):
    return tuple(_bounded(node, indices[..., axis], n) for axis, n in zip(range(indices.shape[-1]), sizes))


@host_operator("GatherND")
def gather_nd(node, x, indices):
    """The slice of x at each tuple of indices, after `batch_dims` axes that both share."""
    batch = node.attributes.get("batch_dims", 0)
    shared = np.indices(indices.shape[:batch], sparse=True)
    shared = tuple(axis.reshape(axis.shape + (1,) * (indices.ndim - 1 - batch)) for axis in shared)
    return np.asarray(x[shared + _tuple_positions(node, indices, x.shape[batch:])])


@host_operator("ScatterND")
def scatter_nd(node, x, indices, updates):
    """A copy of x with a slice written, or combined by `reduction`, at each tuple of indices."""
    y = np.array(x)
    _reduce_at(node, y, _tuple_positions(node, indices, x.shape), updates)
    return y


@host_operator("TensorScatter")
def tensor_scatter(node, past, update, write_indices=None):
    """A copy of a cache with new entries from each batch element's write index on."""
    axis = _normal_axis(node, node.attributes.get("axis", -2), past.ndim)
    n, length = past.shape[axis], update.shape[axis]
    y = np.array(past)
    for batch, start in enumerate(np.zeros(len(past), np.int64) if write_indices is None else write_indices):
        positions = int(start) + np.arange(length)
        positions = positions % n if node.attributes.get("mode", "linear") == "circular" else _bounded(node, positions, n)
        y[batch][(slice(None),) * (axis - 1) + (positions,)] = update[batch]
    return y


@host_operator("Compress")
def compress(node, x, condition):
    """The slices along `axis`, or the elements, where the condition is true."""
    return np.compress(condition.astype(bool), x, node.attributes.get("axis"))


@host_operator("NonZero")
def non_zero(node, x):
    """Coordinates of the elements that are not zero: (rank, count)."""
    return np.array(np.nonzero(np.atleast_1d(x)), np.int64)[:x.ndim]


@host_operator("OneHot")
def one_hot(node, indices, depth, values):
    """values[1] at each index of a new axis of length `depth`, values[0] elsewhere, and everywhere for an index outside."""
    depth = int(np.ravel(depth)[0])
    axis = _normal_axis(node, node.attributes.get("axis", -1), indices.ndim + 1)
    indices = np.where(indices < 0, indices + depth, indices)
    classes = np.arange(depth).reshape((depth,) + (1,) * (indices.ndim - axis))
    return np.where(np.expand_dims(indices, axis) == classes, values[1], values[0])


@host_operator("TopK")
def top_k(node, x, k=None):
    """The k largest (or smallest) values along `axis`, and their positions; of equals the first ones."""
    k = int(node.attributes["k"] if k is None else np.ravel(k)[0])
    axis = _normal_axis(node, node.attributes.get("axis", -1), x.ndim)
    if node.attributes.get("largest", 1):
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError(f"{node}: expected k of at most {x.shape[axis]}, the length of axis {axis}, received {k}")
    order = np.take(order, np.arange(k), axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int64)


def _first_of_equal(node, x, best):
    axis = _normal_axis(node, node.attributes.get("axis", 0), x.ndim)
    if node.attributes.get("select_last_index", 0):
        y = x.shape[axis] - 1 - best(np.flip(x, axis), axis)
    else:
        y = best(x, axis)
    return np.asarray(np.expand_dims(y, axis) if node.attributes.get("keepdims", 1) else y, np.int64)


@host_operator("ArgMax")
def arg_max(node, x):
    """Position of the largest element along `axis`."""
    return _first_of_equal(node, x, np.argmax)


@host_operator("ArgMin")
def arg_min(node, x):
    """Position of the smallest element along `axis`."""
    return _first_of_equal(node, x, np.argmin)


@host_operator("Hardmax")
def hardmax(node, x):
    """One at the first largest element along `axis`, zero elsewhere; before opset 13 over all axes from `axis` on."""
    legacy = node.version < 13
    axis = _normal_axis(node, node.attributes.get("axis", 1 if legacy else -1), x.ndim)
    rows = x.reshape(math.prod(x.shape[:axis]), -1) if legacy else x
    y = np.zeros_like(rows)
    along = 1 if legacy else axis
    np.put_along_axis(y, np.expand_dims(np.argmax(rows, along), along), 1, along)
    return y.reshape(x.shape)


@host_operator("Unique")
def unique(node, x):
    """Distinct values (or slices along `axis`), the first position of each, the way back, and the counts."""
    axis = node.attributes.get("axis")
    y, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(-1)
    if not node.attributes.get("sorted", 1):
        order = np.argsort(first)
        y, first, counts = np.take(y, order, 0 if axis is None else axis), first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return y, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


@host_operator("ReverseSequence")
def reverse_sequence(node, x, lengths):
    """The first `lengths[i]` time steps of batch element i in reverse order."""
    time, batch = node.attributes.get("time_axis", 0), node.attributes.get("batch_axis", 1)
    steps = np.arange(x.shape[time])[:, None]                               # (T, N)
    order = np.where(steps < lengths, lengths - 1 - steps, steps)
    moved = np.moveaxis(x, (time, batch), (0, 1))                           # (T, N, ...)
    return np.moveaxis(moved[order, np.arange(x.shape[batch])], (0, 1), (time, batch))


@host_operator("Trilu")
def trilu(node, x, k=None):
    """The upper or lower triangle of each matrix, from the k-th diagonal."""
    return (np.triu if node.attributes.get("upper", 1) else np.tril)(x, 0 if k is None else int(np.ravel(k)[0]))


def _cumulate(node, x, axis, accumulate, start: int):
    axis = _normal_axis(node, int(np.ravel(axis)[0]), x.ndim)
    reverse = node.attributes.get("reverse", 0)
    y = np.flip(x, axis) if reverse else x
    if node.attributes.get("exclusive", 0):
        head = np.full_like(np.take(y, [0], axis), start)
        y = np.concatenate([head, np.take(y, np.arange(y.shape[axis] - 1), axis)], axis)
    y = accumulate(y, axis).astype(x.dtype)
    return np.flip(y, axis) if reverse else y


@host_operator("CumSum")
def cum_sum(node, x, axis):
    """Running sums along an axis."""
    return _cumulate(node, x, axis, np.cumsum, 0)


@host_operator("CumProd")
def cum_prod(node, x, axis):
    """Running products along an axis."""
    return _cumulate(node, x, axis, np.cumprod, 1)


# Reductions

def _log_sum_exp(x, axes, keepdims):
    wide = x.astype(np.float64)
    largest = np.max(wide, axes, keepdims=True, initial=-np.inf)
    finite = np.where(np.isfinite(largest), largest, 0)
    y = np.log(np.sum(np.exp(wide - finite), axes, keepdims=True)) + finite
    return y if keepdims else np.squeeze(y, axes)


def _extremum(reduce, largest: bool):
    def extremum(x, axes, keepdims):
        if x.size:
            return reduce(x, axes, keepdims=keepdims)
        if x.dtype == bool:
            bound = not largest
        elif _integer(x.dtype):
            bound = np.iinfo(x.dtype).min if largest else np.iinfo(x.dtype).max
        else:
            bound = -np.inf if largest else np.inf
        return reduce(x, axes, keepdims=keepdims, initial=bound)
    return extremum


def _register_reduction(name: str, compute) -> None:
    def reduce(node, x, axes=None):
        axes = _operand_or_attribute(node, axes, "axes")
        if not axes and node.attributes.get("noop_with_empty_axes", 0):
            axes = ()                               # what the operator does to each element still applies
        elif not axes:
            axes = tuple(range(x.ndim))
        axes = _normal_axes(node, axes, x.ndim)
        with np.errstate(all="ignore"):
            y = compute(x, axes, bool(node.attributes.get("keepdims", 1)))
        return np.asarray(y).astype(x.dtype, copy=False)
    reduce.__doc__ = f"{name} over axes."
    host_operator(name)(reduce)


for _name, _function in {
        "ReduceSum": lambda x, axes, keepdims: np.sum(x, axes, keepdims=keepdims),
        "ReduceProd": lambda x, axes, keepdims: np.prod(x, axes, keepdims=keepdims),
        "ReduceMean": lambda x, axes, keepdims: np.mean(x, axes, keepdims=keepdims),
        "ReduceMax": _extremum(np.max, largest=True),
        "ReduceMin": _extremum(np.min, largest=False),
        "ReduceL1": lambda x, axes, keepdims: np.sum(np.abs(x), axes, keepdims=keepdims),
        "ReduceL2": lambda x, axes, keepdims: np.sqrt(np.sum(np.square(x, dtype=np.float64), axes, keepdims=keepdims)),
        "ReduceSumSquare": lambda x, axes, keepdims: np.sum(np.square(x), axes, keepdims=keepdims),
        "ReduceLogSum": lambda x, axes, keepdims: np.log(np.sum(x, axes, keepdims=keepdims)),
        "ReduceLogSumExp": _log_sum_exp}.items():
    _register_reduction(_name, _function)


# Matrices

@host_operator("MatMul")
def mat_mul(node, a, b):
    """Product of matrices, broadcast over the leading axes."""
    return np.matmul(a, b)


@host_operator("Gemm")
def gemm(node, a, b, c=None):
    """alpha * a' @ b' + beta * c."""
    a = a.T if node.attributes.get("transA", 0) else a
    b = b.T if node.attributes.get("transB", 0) else b
    y = node.attributes.get("alpha", 1.0) * (a @ b)
    return np.asarray(y if c is None else y + node.attributes.get("beta", 1.0) * c).astype(a.dtype, copy=False)


@host_operator("Einsum")
def einsum(node, *operands):
    """Einstein's summation."""
    wide = [operand.astype(np.float32) if operand.dtype.kind == "V" else operand for operand in operands]       # bfloat16
    return np.asarray(np.einsum(node.attributes["equation"], *wide, optimize=True)).astype(operands[0].dtype, copy=False)


@host_operator("Det")
def det(node, x):
    """Determinant of each matrix."""
    return np.asarray(np.linalg.det(x.astype(np.float64))).astype(x.dtype)


# Windows of images

def _spatial(node, x_sizes, kernel):
    """(strides, dilations, pads before, pads after) of a window operator, `auto_pad` resolved."""
    rank = len(kernel)
    strides = node.attributes.get("strides") or [1] * rank
    dilations = node.attributes.get("dilations") or [1] * rank
    pads = node.attributes.get("pads") or [0] * (2 * rank)
    begins, ends = pads[:rank], pads[rank:]
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = [max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n) for n, k, s, d in zip(x_sizes, kernel, strides, dilations)]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        begins, ends = (small, large) if mode == "SAME_UPPER" else (large, small)
    elif mode == "VALID":
        begins = ends = [0] * rank
    return strides, dilations, begins, ends


def _counts(sizes, kernel, strides, dilations, begins, ends):
    """How many windows stand along each axis."""
    return [max(0, (n + b + e - (k - 1) * d - 1) // s + 1) for n, k, s, d, b, e in zip(sizes, kernel, strides, dilations, begins, ends)]


def _taps(kernel, strides, dilations, counts):
    """For each place in a window: its coordinates, and the index of the pixels (N, C, O1, O2, ...) that all windows have there."""
    for tap in itertools.product(*map(range, kernel)):
        yield tap, (slice(None), slice(None), *(slice(t * d, t * d + s * (o - 1) + 1, s) if o else slice(0)
                                                for t, d, s, o in zip(tap, dilations, strides, counts)))


@host_operator("ConvInteger")
def conv_integer(node, x, w, x_zero_point=None, w_zero_point=None):
    """Convolution of 8-bit integers, less their zero points, into int32."""
    kernel, groups = w.shape[2:], node.attributes.get("group", 1)
    strides, dilations, begins, ends = _spatial(node, x.shape[2:], kernel)
    x = x.astype(np.int32) - (0 if x_zero_point is None else np.int32(x_zero_point))
    w = w.astype(np.int32)
    if w_zero_point is not None:
        w = w - w_zero_point.astype(np.int32).reshape((-1,) + (1,) * (w.ndim - 1))
    counts, C = _counts(x.shape[2:], kernel, strides, dilations, begins, ends), w.shape[1]
    x = np.pad(x, [(0, 0), (0, 0), *zip(begins, ends)])
    y = np.zeros((len(x), *counts, len(w)), np.int32)
    for tap, pixels in _taps(kernel, strides, dilations, counts):
        for g, part in enumerate(np.split(w[(slice(None), slice(None), *tap)], groups)):          # (K / groups, C)
            own = slice(g * len(part), (g + 1) * len(part))
            y[..., own] += np.tensordot(x[pixels][:, g * C:(g + 1) * C], part, (1, 1))
    return np.moveaxis(y, -1, 1)


@host_operator("MaxPool")
def max_pool(node, x):
    """Largest element of each window, and where it is in the flat x: by rows, or with `storage_order` each image by columns."""
    kernel, sizes = node.attributes["kernel_shape"], x.shape[2:]
    strides, dilations, begins, ends = _spatial(node, sizes, kernel)
    if node.attributes.get("ceil_mode", 0):
        spans = [n + b + e - (k - 1) * d - 1 for n, b, e, k, d in zip(sizes, begins, ends, kernel, dilations)]
        ends = [e + (-span) % s if (span + (-span) % s) < n + b else e for e, span, s, n, b in zip(ends, spans, strides, sizes, begins)]
    counts = _counts(sizes, kernel, strides, dilations, begins, ends)
    lowest = np.iinfo(x.dtype).min if _integer(x.dtype) else -np.inf
    padded = np.pad(x, [(0, 0), (0, 0), *zip(begins, ends)], constant_values=lowest)
    y, best = np.full((*x.shape[:2], *counts), lowest, x.dtype), np.zeros((*x.shape[:2], *counts), np.int64)
    for number, (_, pixels) in enumerate(_taps(kernel, strides, dilations, counts)):
        larger = ~(padded[pixels] <= y) & (y == y)                  # the first one, and the first NaN stays
        y, best = np.where(larger, padded[pixels], y), np.where(larger, number, best)
    if not node.wants(1):
        return y
    starts = np.indices(best.shape, sparse=True)
    taps = np.unravel_index(best, kernel)
    places = [start * s + tap * d - b for start, s, tap, d, b in zip(starts[2:], strides, taps, dilations, begins)]
    order = slice(None, None, -1) if node.attributes.get("storage_order", 0) else slice(None)
    plane = np.ravel_multi_index(tuple(places)[order], sizes[order], mode="clip")
    return y, (starts[0] * x.shape[1] + starts[1]) * math.prod(sizes) + plane


@host_operator("MaxUnpool")
def max_unpool(node, x, indices, output_shape=None):
    """Each value of x back at its position in the flat image; zeros elsewhere."""
    kernel = node.attributes["kernel_shape"]
    strides, _, begins, ends = _spatial(node, x.shape[2:], kernel)
    sizes = [(n - 1) * s + k - b - e for n, s, k, b, e in zip(x.shape[2:], strides, kernel, begins, ends)]
    inferred = (*x.shape[:2], *sizes)
    target = inferred if output_shape is None else tuple(int(n) for n in output_shape)
    y = np.zeros(inferred, x.dtype)
    y.reshape(-1)[_bounded(node, indices, y.size).reshape(-1)] = x.reshape(-1)
    if target == inferred:
        return y
    larger = np.zeros(target, x.dtype)
    larger[tuple(slice(0, n) for n in inferred)] = y
    return larger


@host_operator("Col2Im")
def col2im(node, x, image_shape, block_shape):
    """Sum of columns (N, C * K1 * K2 ..., L) at their places in an image (N, C, D1, D2, ...)."""
    image, block = [int(n) for n in image_shape], [int(n) for n in block_shape]
    strides, dilations, begins, ends = _spatial(node, image, block)
    padded = [n + b + e for n, b, e in zip(image, begins, ends)]
    counts = _counts(image, block, strides, dilations, begins, ends)
    columns = x.reshape(len(x), -1, *block, *counts)                                # (N, C, K1, K2, ..., O1, O2, ...)
    y = np.zeros((len(x), columns.shape[1], *padded), x.dtype)
    for tap, pixels in _taps(block, strides, dilations, counts):
        y[pixels] += columns[(slice(None), slice(None), *tap)]
    return y[(slice(None), slice(None), *(slice(b, b + n) for b, n in zip(begins, image)))]


# Sampling of images

def _cubic(distance, a: float):
    """Keys' cubic convolution kernel (IEEE TASSP 1981)."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _source_coordinates(mode: str, n: int, out: int, scale: float, start: float, end: float):
    """Where in the input each of `out` outputs lies."""
    x = np.arange(out, dtype=np.float64)
    length = scale * n                                      # the output's length before it was rounded
    if mode == "half_pixel":
        return (x + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        return n / 2 * (1 - out / length) + (x + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (x + 0.5) / scale - 0.5 if length > 1 else np.zeros(out)
    if mode == "align_corners":
        return x * (n - 1) / (length - 1) if length != 1 else np.zeros(out)
    if mode == "asymmetric":
        return x / scale
    if mode == "tf_half_pixel_for_nn":
        return (x + 0.5) / scale
    if mode == "tf_crop_and_resize":
        return start * (n - 1) + x * (end - start) * (n - 1) / (out - 1) if out > 1 else np.full(out, 0.5 * (start + end) * (n - 1))
    raise UsageError(f"Resize: unknown coordinate_transformation_mode {mode!r}")


def _nearest_positions(coordinates, mode: str):
    if mode == "round_prefer_floor":
        return np.ceil(coordinates - 0.5)
    return {"round_prefer_ceil": lambda x: np.floor(x + 0.5), "floor": np.floor, "ceil": np.ceil}[mode](coordinates)


def _resize_taps(coordinates, n: int, scale: float, attributes):
    """Positions and weights, both (taps, out), of the inputs that make each output along one axis."""
    mode = attributes.get("mode", "nearest")
    if mode == "nearest":
        positions = _nearest_positions(coordinates, attributes.get("nearest_mode", "round_prefer_floor"))[None]
        return np.clip(positions, 0, n - 1).astype(np.int64), np.ones((1, len(coordinates)))
    stretch = min(scale, 1.0) if attributes.get("antialias", 0) else 1.0
    radius = (1 if mode == "linear" else 2) / stretch
    positions = np.floor(coordinates) + np.arange(-math.ceil(radius) + 1, math.ceil(radius) + 1)[:, None]
    distance = (positions - coordinates) * stretch
    weights = np.maximum(0, 1 - np.abs(distance)) if mode == "linear" else _cubic(distance, attributes.get("cubic_coeff_a", -0.75))
    if attributes.get("exclude_outside", 0):
        weights = np.where((positions < 0) | (positions >= n), 0, weights)
    return np.clip(positions, 0, n - 1).astype(np.int64), weights / weights.sum(0)


def _resize_sizes(node, x, axes, scales, sizes):
    """(output length, scale) of each resized axis."""
    if sizes is None:
        return [(math.floor(x.shape[axis] * scale), scale) for axis, scale in zip(axes, scales)]
    ratios = [size / x.shape[axis] for axis, size in zip(axes, sizes)]
    policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return list(zip(sizes, ratios))
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [(math.floor(scale * x.shape[axis] + 0.5), scale) for axis in axes]


@host_operator("Resize")
@host_operator("Upsample")
def resize(node, x, *operands):
    """Resampling along one axis after another: nearest, linear or cubic, with every coordinate mode, antialiased on request."""
    legacy = node.op_type == "Upsample" or node.version < 11
    roi, scales, sizes = (None, *operands, None)[:3] if legacy else (*operands, None, None, None)[:3]
    attributes = node.attributes | ({"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"} if legacy else {})
    axes = _normal_axes(node, attributes.get("axes", range(x.ndim)), x.ndim)
    scales = attributes.get("scales") if scales is None or scales.size == 0 else scales.tolist()
    sizes = None if sizes is None or sizes.size == 0 else [int(n) for n in sizes]
    mode = attributes.get("coordinate_transformation_mode", "half_pixel")
    roi = [0.0] * len(axes) + [1.0] * len(axes) if roi is None or roi.size == 0 else roi.tolist()
    crop, nearest = mode == "tf_crop_and_resize", attributes.get("mode", "nearest") == "nearest"
    lengths = _resize_sizes(node, x, axes, scales, sizes)
    if crop and sizes is None:
        lengths = [(math.floor(x.shape[axis] * (end - start) * scale), scale)
                   for axis, (_, scale), start, end in zip(axes, lengths, roi, roi[len(axes):])]
    target = list(x.shape)
    for axis, (out, _) in zip(axes, lengths):
        target[axis] = out
    if min(target, default=0) <= 0 or not x.size:
        return np.zeros(target, x.dtype)
    y, outside = x if nearest else x.astype(np.float64), np.zeros((1,) * x.ndim, bool)
    for axis, (out, scale), start, end in zip(axes, lengths, roi, roi[len(axes):]):
        n = x.shape[axis]
        if out == n and scale == 1 and not crop:
            continue
        coordinates = _source_coordinates(mode, n, out, scale, start, end)
        positions, weights = _resize_taps(coordinates, n, scale, attributes)
        along = (-1,) + (1,) * (x.ndim - 1 - axis)
        if nearest:
            y = np.take(y, positions[0], axis)
        else:
            y = sum(np.take(y, tap, axis) * weight.reshape(along) for tap, weight in zip(positions, weights))
        if crop:
            outside = outside | ((coordinates < 0) | (coordinates > n - 1)).reshape(along)
    if outside.any():
        y = np.where(outside, attributes.get("extrapolation_value", 0.0), y)
    if _integer(x.dtype) and y.dtype.kind == "f":
        y = np.clip(np.rint(y), np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
    return y.astype(x.dtype, copy=False)


def _reflect(x, low: float, high: float):
    """Coordinates folded into [low, high]."""
    span = high - low
    if span == 0:
        return np.zeros_like(x)
    phase = np.mod(x - low, 2 * span)
    return low + np.minimum(phase, 2 * span - phase)


@host_operator("GridSample")
def grid_sample(node, x, grid):
    """Values of x (N, C, D1, ..., Dr) at the positions of grid (N, O1, ..., Or, r), in -1 to 1, of Dr first."""
    mode = node.attributes.get("mode", "linear")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)       # their names before opset 20
    padding, corners = node.attributes.get("padding_mode", "zeros"), node.attributes.get("align_corners", 0)
    sizes = x.shape[2:]

    def inside(coordinate, n):
        if padding == "reflection":
            coordinate = _reflect(coordinate, 0, n - 1) if corners else _reflect(coordinate, -0.5, n - 0.5)
        return coordinate if padding == "zeros" else np.clip(coordinate, 0, n - 1)

    taps = []                                   # for each axis: (position, weight) of each neighbour, both (N, O1, ...)
    for axis, n in enumerate(sizes):
        g = grid[..., len(sizes) - 1 - axis].astype(np.float64)
        coordinate = (g + 1) / 2 * (n - 1) if corners else ((g + 1) * n - 1) / 2
        coordinate = coordinate if mode == "cubic" else inside(coordinate, n)
        base = np.floor(coordinate)
        if mode == "nearest":
            taps.append([(np.rint(coordinate), 1.0)])
        elif mode == "linear":
            taps.append([(base, 1 - (coordinate - base)), (base + 1, coordinate - base)])
        else:
            taps.append([(inside(base + t, n), _cubic(base + t - coordinate, -0.75)) for t in (-1, 0, 1, 2)])
    y = np.zeros((len(x), *grid.shape[1:-1], x.shape[1]))
    batch = np.arange(len(x)).reshape((-1,) + (1,) * (grid.ndim - 2))
    for choice in itertools.product(*taps):
        weight, positions = 1.0, []
        for (position, part), n in zip(choice, sizes):
            weight = weight * part * ((position >= 0) & (position < n))
            positions.append(np.clip(position, 0, n - 1).astype(np.int64))
        y += np.asarray(weight)[..., None] * x[(batch, slice(None), *positions)]            # (N, O1, ..., C)
    return np.moveaxis(y, -1, 1).astype(x.dtype)


@host_operator("AffineGrid")
def affine_grid(node, theta, size):
    """Sampling grid (N, D1, ..., rank) of each affine map theta (N, rank, rank + 1) for an output of shape `size`."""
    spatial = [int(n) for n in size[2:]]
    if node.attributes.get("align_corners", 0):
        axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in spatial]
    else:
        axes = [(2 * np.arange(n) + 1) / n - 1 for n in spatial]
    mesh = np.meshgrid(*axes, indexing="ij")[::-1]                          # the last dimension comes first: x, y, z
    points = np.stack([*mesh, np.ones(spatial)], -1)                        # (D1, ..., rank + 1)
    return np.einsum("...k,nrk->n...r", points, theta.astype(np.float64)).astype(theta.dtype)


def _bilinear(image, y, x):
    """The four weighted neighbours (4, C, ...) of image (C, H, W) at real coordinates; zero beyond the border."""
    H, W = image.shape[1:]
    y0, x0 = np.floor(y), np.floor(x)
    terms = []
    for yy, wy in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
        for xx, wx in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
            valid = (yy >= 0) & (yy < H) & (xx >= 0) & (xx < W)
            value = image[:, np.clip(yy, 0, H - 1).astype(np.int64), np.clip(xx, 0, W - 1).astype(np.int64)]
            terms.append(value * (wy * wx * valid))
    return np.stack(terms)


@host_operator("DeformConv")
def deform_conv(node, x, w, offset, bias=None, mask=None):
    """Convolution (N, K, OH, OW) whose taps are moved by learned offsets (Dai et al. 2017), and weighted by a mask (Zhu et al. 2019)."""
    if x.ndim != 4:
        raise ShapeError(f"{node}: expected x of 4 dimensions (N, C, H, W), received {x.shape}")
    (N, C, _, _), (K, _, R, S), (OH, OW) = x.shape, w.shape, offset.shape[2:]
    strides, dilations, begins, _ = _spatial(node, x.shape[2:], (R, S))
    groups, offset_groups = node.attributes.get("group", 1), node.attributes.get("offset_group", 1)
    offset = offset.reshape(N, offset_groups, R, S, 2, OH, OW)
    mask = np.ones((N, offset_groups, R, S, OH, OW)) if mask is None else mask.reshape(N, offset_groups, R, S, OH, OW)
    rows = (np.arange(OH) * strides[0] - begins[0])[None, None, :, None] + (np.arange(R) * dilations[0])[:, None, None, None]
    columns = (np.arange(OW) * strides[1] - begins[1])[None, None, None, :] + (np.arange(S) * dilations[1])[None, :, None, None]
    taps = np.empty((N, C, R, S, OH, OW))
    for n, g in itertools.product(range(N), range(offset_groups)):
        channels = slice(g * C // offset_groups, (g + 1) * C // offset_groups)
        moved = offset[n, g].astype(np.float64)                             # (R, S, 2, OH, OW)
        taps[n, channels] = _bilinear(x[n, channels], rows + moved[:, :, 0], columns + moved[:, :, 1]).sum(0) * mask[n, g]
    taps = taps.reshape(N, groups, C // groups, R, S, OH, OW)
    y = np.einsum("ngcrsyx,gkcrs->ngkyx", taps, w.reshape(groups, K // groups, C // groups, R, S)).reshape(N, K, OH, OW)
    return (y if bias is None else y + bias[:, None, None]).astype(x.dtype)


# Detection

@host_operator("RoiAlign")
def roi_align(node, x, rois, batch_indices):
    """Bilinear samples of each region (x1, y1, x2, y2), pooled to (regions, C, OH, OW) (He et al. 2017)."""
    OH, OW = node.attributes.get("output_height", 1), node.attributes.get("output_width", 1)
    ratio, scale = node.attributes.get("sampling_ratio", 0), node.attributes.get("spatial_scale", 1.0)
    usual = "half_pixel" if node.version >= 16 else "output_half_pixel"
    half_pixel = node.attributes.get("coordinate_transformation_mode", usual) == "half_pixel"
    H, W = x.shape[2:]
    y = np.empty((len(rois), x.shape[1], OH, OW))
    for region, (roi, batch) in enumerate(zip(rois.astype(np.float64), batch_indices)):
        left, top, right, bottom = roi * scale - (0.5 if half_pixel else 0.0)
        height, width = bottom - top, right - left
        if not half_pixel:
            height, width = max(height, 1.0), max(width, 1.0)
        per_row, per_column = (ratio, ratio) if ratio > 0 else (math.ceil(height / OH), math.ceil(width / OW))
        if max(per_row * OH, per_column * OW) > 1 << 14:
            raise ShapeError(f"{node}: expected at most {1 << 14} samples along a region's side, received the region {roi.tolist()}")
        ys = top + (np.arange(OH * per_row) + 0.5) * height / (OH * per_row)
        xs = left + (np.arange(OW * per_column) + 0.5) * width / (OW * per_column)
        valid = ((ys >= -1) & (ys <= H))[:, None] & ((xs >= -1) & (xs <= W))
        terms = _bilinear(x[batch], np.clip(ys, 0, H - 1)[:, None], np.clip(xs, 0, W - 1)[None, :]) * valid     # (4, C, ys, xs)
        bins = terms.reshape(4, x.shape[1], OH, per_row, OW, per_column)
        # In mode max the specification takes the largest weighted neighbour, not the largest interpolated value.
        y[region] = bins.sum(0).mean((2, 4)) if node.attributes.get("mode", "avg") == "avg" else bins.max((0, 3, 5))
    return y.astype(x.dtype)


def _corners(boxes, centred: bool):
    """(y1, x1, y2, x2), ordered."""
    if centred:
        x, y, width, height = np.moveaxis(boxes, -1, 0)
        return np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], -1)
    first, second = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], -1)


@host_operator("NonMaxSuppression")
def non_max_suppression(node, boxes, scores, max_per_class=None, iou_threshold=None, score_threshold=None):
    """(batch, class, box) of the best boxes that overlap no better one of their class by more than the threshold."""
    most = 0 if max_per_class is None else int(np.ravel(max_per_class)[0])
    overlap = 0.0 if iou_threshold is None else float(np.ravel(iou_threshold)[0])
    selected = []
    corners = _corners(boxes.astype(np.float64), bool(node.attributes.get("center_point_box", 0)))
    areas = np.prod(corners[..., 2:] - corners[..., :2], -1)
    for batch, kind in np.ndindex(*scores.shape[:2]):
        order = np.argsort(-scores[batch, kind], kind="stable")
        if score_threshold is not None:
            order = order[scores[batch, kind][order] > float(np.ravel(score_threshold)[0])]
        kept = 0
        while order.size and kept < most:
            best, order = order[0], order[1:]
            selected.append((batch, kind, best))
            kept += 1
            low = np.maximum(corners[batch, best, :2], corners[batch, order, :2])
            high = np.minimum(corners[batch, best, 2:], corners[batch, order, 2:])
            shared = np.prod(np.maximum(0, high - low), -1)
            union = areas[batch, best] + areas[batch, order] - shared
            order = order[shared <= overlap * union]
    return np.array(selected, np.int64).reshape(-1, 3)


# Quantisation

def _along(node, x, values):
    """A scale or zero point in a shape that broadcasts with x: of the tensor, of one axis, or of blocks of an axis."""
    if values.size == 1 and values.ndim <= 1:
        return values.reshape(())
    axis = _normal_axis(node, node.attributes.get("axis", 1), x.ndim)
    if values.ndim == 1:
        return values.reshape((-1,) + (1,) * (x.ndim - 1 - axis))
    block = node.attributes.get("block_size", 0) or -(-x.shape[axis] // values.shape[axis])
    return np.take(np.repeat(values, block, axis), np.arange(x.shape[axis]), axis)


_QUANTISED = ("int8", "uint8", "int16", "uint16", "int32")


def _saturate(node, x, dtype: np.dtype):
    if dtype.name not in _QUANTISED:
        raise DTypeError(f"{node}: expected one of {', '.join(_QUANTISED)} as the quantised dtype, received {dtype}")
    return np.clip(np.rint(x), np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


@host_operator("QuantizeLinear")
def quantize_linear(node, x, scale, zero_point=None):
    """saturate(round(x / scale) + zero_point), rounding to even."""
    number = node.attributes.get("output_dtype", 0)
    dtype = zero_point.dtype if zero_point is not None else _dtype(number) if number else np.dtype(np.uint8)
    y = np.rint(x.astype(scale.dtype) / _along(node, x, scale)).astype(np.float64)
    return _saturate(node, y + (0 if zero_point is None else _along(node, x, zero_point).astype(np.float64)), dtype)


@host_operator("DequantizeLinear")
def dequantize_linear(node, x, scale, zero_point=None):
    """(x - zero_point) * scale."""
    if x.dtype.name not in _QUANTISED:
        raise DTypeError(f"{node}: expected one of {', '.join(_QUANTISED)}, received {x.dtype}")
    y = x.astype(np.int64) - (0 if zero_point is None else _along(node, x, zero_point).astype(np.int64))
    number = node.attributes.get("output_dtype", 0)
    return (y.astype(np.float32) * _along(node, x, scale).astype(np.float32)).astype(_dtype(number) if number else scale.dtype)


@host_operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(node, x):
    """x as uint8, with the scale and the zero point that its own range gives; zero stays exact."""
    low, high = np.minimum(x.min(initial=0), 0), np.maximum(x.max(initial=0), 0)
    scale = np.float32((high - low) / np.float32(255)) or np.float32(1)
    zero_point = _saturate(node, -low / scale, np.dtype(np.uint8))
    return _saturate(node, np.rint(x / scale) + zero_point, np.dtype(np.uint8)), np.asarray(scale, np.float32), np.asarray(zero_point)


def _rows(x, zero_point, axis: int):
    """Integers less their zero point, of the tensor or of each row or column."""
    x = x.astype(np.int32)
    if zero_point is None:
        return x
    zero_point = zero_point.astype(np.int32)
    if zero_point.ndim == 1 and zero_point.size > 1 and axis == -2:
        zero_point = zero_point[:, None]
    return x - zero_point


@host_operator("MatMulInteger")
def mat_mul_integer(node, a, b, a_zero_point=None, b_zero_point=None):
    """Product of matrices of 8-bit integers, less their zero points, into int32."""
    return np.matmul(_rows(a, a_zero_point, -2), _rows(b, b_zero_point, -1))


@host_operator("QLinearMatMul")
def q_linear_mat_mul(node, a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point):
    """MatMulInteger, scaled and quantised again."""
    y = mat_mul_integer(node, a, b, a_zero_point, b_zero_point).astype(np.float64)
    scale = a_scale.astype(np.float64) * b_scale.astype(np.float64) / y_scale.astype(np.float64)
    return _saturate(node, np.rint(y * scale) + y_zero_point.astype(np.float64), y_zero_point.dtype)


@host_operator("QLinearConv")
def q_linear_conv(node, x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias=None):
    """ConvInteger, scaled by output channel and quantised again."""
    y = conv_integer(node, x, w, x_zero_point, w_zero_point).astype(np.float64)
    channel = (-1,) + (1,) * (x.ndim - 2)
    y = y if bias is None else y + bias.reshape(channel)
    scale = x_scale.astype(np.float64) * w_scale.astype(np.float64).reshape(channel) / y_scale.astype(np.float64)
    return _saturate(node, np.rint(y * scale) + float(np.ravel(y_zero_point)[0]), y_zero_point.dtype)


# Constants and random numbers

@host_operator("Range")
def range_(node, start, limit, delta):
    """start, start + delta, ... below limit."""
    if delta.item() == 0:
        raise UsageError(f"{node}: expected a delta other than 0")
    count = max(0, math.ceil((limit.item() - start.item()) / delta.item()))
    return (start + np.arange(count) * delta).astype(start.dtype)


@host_operator("EyeLike")
def eye_like(node, x):
    """Ones on the k-th diagonal, of x's shape."""
    number = node.attributes.get("dtype", 0)
    return np.eye(*x.shape, k=node.attributes.get("k", 0), dtype=_dtype(number) if number else x.dtype)


@host_operator("ConstantOfShape")
def constant_of_shape(node, target):
    """One value in a given shape; float32 zero unless `value` says otherwise."""
    value = node.attributes.get("value")
    value = np.zeros(1, np.float32) if value is None else value
    return np.full(tuple(int(n) for n in target), value.reshape(-1)[0], value.dtype)


def _register_window(name: str, *coefficients: float) -> None:
    def window(node, length):
        """Sum of cosines over one period; periodic, or symmetric as filters want it."""
        n = int(length)
        phase = 2 * np.pi * np.arange(n) / max(1, n if node.attributes.get("periodic", 1) else n - 1)
        y = sum((-1) ** order * c * np.cos(order * phase) for order, c in enumerate(coefficients))
        return np.asarray(y).astype(_dtype(node.attributes.get("output_datatype", 1)))
    host_operator(name)(window)


_register_window("HannWindow", 0.5, 0.5)
_register_window("HammingWindow", 25 / 46, 21 / 46)
_register_window("BlackmanWindow", 0.42, 0.5, 0.08)


def _generator(node) -> np.random.Generator:
    """Seeded by the attribute, else by the thread's generator, which `numbanet.manual_seed` sets."""
    seed = node.attributes.get("seed")
    return np.random.default_rng(next_key() if seed is None else int(np.float32(seed).view(np.uint32)))


def _draw(node, target, dtype: np.dtype, draw):
    number = node.attributes.get("dtype", 0)
    return np.asarray(draw(_generator(node), tuple(int(n) for n in target))).astype(_dtype(number) if number else dtype)


def _normal(node):
    return lambda generator, target: generator.normal(node.attributes.get("mean", 0.0), node.attributes.get("scale", 1.0), target)


def _uniform(node):
    return lambda generator, target: generator.uniform(node.attributes.get("low", 0.0), node.attributes.get("high", 1.0), target)


@host_operator("RandomNormal")
def random_normal(node):
    """Normal numbers of a given shape."""
    return _draw(node, node.attributes["shape"], np.dtype(np.float32), _normal(node))


@host_operator("RandomUniform")
def random_uniform(node):
    """Uniform numbers of a given shape."""
    return _draw(node, node.attributes["shape"], np.dtype(np.float32), _uniform(node))


@host_operator("RandomNormalLike")
def random_normal_like(node, x):
    """Normal numbers of x's shape."""
    return _draw(node, x.shape, x.dtype, _normal(node))


@host_operator("RandomUniformLike")
def random_uniform_like(node, x):
    """Uniform numbers of x's shape."""
    return _draw(node, x.shape, x.dtype, _uniform(node))


@host_operator("Bernoulli")
def bernoulli(node, x):
    """One with the probability that x gives, else zero."""
    return _draw(node, x.shape, x.dtype, lambda generator, target: generator.random(target) < x)


@host_operator("Multinomial")
def multinomial(node, x):
    """Classes drawn from rows of unnormalised log-probabilities: (N, sample_size)."""
    samples = node.attributes.get("sample_size", 1)
    weights = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    edges = np.cumsum(weights, 1)                                           # (N, classes)

    def draw(generator, target):
        return (generator.random(target)[:, :, None] * edges[:, None, -1:] >= edges[:, None, :]).sum(-1)
    return _draw(node, (len(x), samples), np.dtype(np.int32), draw)
