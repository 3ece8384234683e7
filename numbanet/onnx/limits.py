"""Sizes that operands ask for: results that would not fit into memory are refused before they are allocated."""

from __future__ import annotations

import math
from itertools import zip_longest

import numpy as np

from numbanet._tensor import Tensor
from numbanet.errors import OnnxError
from numbanet.onnx.operators.registry import NodeInfo

MAX_ELEMENTS = (1 << 29) - 1        # of one value that an operator makes out of a shape: 2 GB of float32


def _numbers(value) -> list:
    if value is None:
        return []
    return np.ravel(value.detach().numpy() if isinstance(value, Tensor) else value).tolist()


def _product(sizes) -> int:
    """Of the absolute values, so that a negative size hides nothing."""
    return math.prod(abs(int(n)) for n in sizes)


def _of_shape(info, shape, *_):
    return _product(_numbers(shape))


def _of_expand(info, x, shape, *_):
    rank = max(len(x.shape), len(sizes := _numbers(shape)))
    pairs = zip([1] * (rank - len(x.shape)) + list(x.shape), [1] * (rank - len(sizes)) + sizes)
    return _product(n if size == 1 else size for n, size in pairs)


def _of_tile(info, x, *repeats):
    return math.prod(x.shape) * _product(_numbers(repeats[0])) if len(repeats) == 1 else 0


def _of_range(info, start, limit, delta, *_):
    (start,), (limit,), (delta,) = map(_numbers, (start, limit, delta))
    return max(0.0, (limit - start) / delta) if delta else 0


def _of_pad(info, x, pads=None, value=None, axes=None, *_):
    pads = _numbers(pads) or info.attributes.get("pads") or info.attributes.get("paddings") or []
    half = len(pads) // 2
    grown = list(x.shape)
    for axis, before, after in zip(_numbers(axes) or range(half), pads[:half], pads[half:]):
        grown[axis] += abs(before) + abs(after)
    return _product(grown)


def _of_resize(info, x, *operands):
    if len(operands) > 2 and operands[2] is not None:
        sizes = _numbers(operands[2])
        return _product(sizes) * (math.prod(x.shape[:len(x.shape) - len(sizes)]) if len(sizes) < len(x.shape) else 1)
    scales = [_numbers(o) for o in operands[-2:] if o is not None and o.shape]
    scales = scales[-1] if scales else info.attributes.get("scales", ())
    if info.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize" and operands:
        roi = _numbers(operands[0])
        scales = [scale * (end - start) for scale, start, end in zip(scales, roi, roi[len(scales):])]
    return math.prod(x.shape) * math.prod(map(abs, scales))


def _of_one_hot(info, indices, depth, *_):
    return math.prod(indices.shape) * _product(_numbers(depth))


def _of_window(info, x, w=None, *_):
    """Convolution and pooling: at most the padded map, for each filter."""
    axes = len(x.shape) - 2
    pads = info.attributes.get("pads") or [0] * (2 * axes)
    grown = [n + abs(p) + abs(q) for n, p, q in zip(x.shape[2:], pads, pads[axes:])]
    return x.shape[0] * (x.shape[1] if w is None else w.shape[0]) * math.prod(grown) if axes > 0 else 0


def _of_transposed(info, x, w, *_):
    attributes, axes = info.attributes, len(x.shape) - 2
    if axes < 1 or len(w.shape) != len(x.shape):
        return 0
    ones, zeros = [1] * axes, [0] * axes
    each = zip(x.shape[2:], w.shape[2:], attributes.get("strides") or ones, attributes.get("dilations") or ones,
               attributes.get("output_padding") or zeros, attributes.get("output_shape", zeros)[-axes:])
    reached = [max(n * abs(s) + f * abs(d) + abs(e), abs(size)) for n, f, s, d, e, size in each]
    return x.shape[0] * w.shape[1] * attributes.get("group", 1) * math.prod(reached)


def _of_shape_attribute(info, *_):
    return _product(info.attributes.get("shape", ()))


def _of_window_function(info, size, *_):
    return _product(_numbers(size))


def _of_samples(info, x, *_):
    return x.shape[0] * abs(info.attributes.get("sample_size", 1)) if x.shape else 0


def _of_crop(info, x, target, *_):
    sizes, target = list(x.shape), _numbers(target)
    for axis, n in zip(info.attributes.get("axes") or range(len(sizes)), target):
        sizes[axis] = n
    return _product(sizes)


def _of_affine_grid(info, theta, size, *_):
    return _product(_numbers(size)) * len(size)


def _of_unpooled(info, x, indices, target=None, *_):
    if target is not None:
        return _product(_numbers(target))
    attributes, axes = info.attributes, len(x.shape) - 2
    return _product([*x.shape[:2], *(n * abs(s) + abs(k) for n, s, k in zip(x.shape[2:], attributes.get("strides") or [1] * axes,
                                                                              attributes["kernel_shape"]))])


def _of_image(info, x, image, block, *_):
    pads = info.attributes.get("pads") or ()
    grown = [n + sum(map(abs, pads)) for n in _numbers(image)]
    return x.shape[0] * max(1, x.shape[1] // max(1, _product(_numbers(block)))) * _product(grown)


def _of_gather(info, x, indices, *_):
    axis = info.attributes.get("axis", 0)
    return math.prod(indices.shape) * (math.prod(x.shape) // max(1, x.shape[axis]))


def _of_gather_nd(info, x, indices, *_):
    depth = info.attributes.get("batch_dims", 0) + indices.shape[-1]
    return math.prod(indices.shape[:-1]) * math.prod(x.shape[depth:])


def _of_grid(info, x, grid, *_):
    return x.shape[1] * math.prod(grid.shape[:-1])


def _of_regions(info, x, rois, *_):
    return rois.shape[0] * x.shape[1] * _product([info.attributes.get("output_height", 1), info.attributes.get("output_width", 1)])


def _of_einsum(info, *operands):
    """The result's labels; those before it are summed, so the operands bound them."""
    inputs, arrow, output = info.attributes["equation"].replace(" ", "").partition("->")
    sizes, batches = {}, [()]
    for labels, operand in zip(inputs.split(","), operands):
        before, dots, after = labels.partition("...")
        kept = len(operand.shape) - len(after)
        sizes |= dict(zip(before, operand.shape)) | dict(zip(after, operand.shape[kept:]))
        batches.append(operand.shape[len(before):kept] if dots else ())
    wanted = output if arrow else [label for label in sizes if inputs.count(label) == 1]
    return math.prod(map(max, zip_longest(*(batch[::-1] for batch in batches), fillvalue=1))) * math.prod(sizes.get(n, 1) for n in wanted)


def _of_concat(info, *operands):
    return sum(math.prod(o.shape) for o in operands)


def _of_broadcast(info, *operands):
    shapes = [o.shape for o in operands if o is not None]
    sizes = [1] * max(map(len, shapes))
    for shape in shapes:
        for place, n in enumerate(reversed(shape)):
            sizes[place] = max(sizes[place], n) if n and sizes[place] else 0
    return math.prod(sizes)


def _of_product(info, a, b, *_):
    """Matrix products, with batch axes broadcast."""
    rows, columns = (a.shape[-2] if len(a.shape) > 1 else 1), (b.shape[-1] if len(b.shape) > 1 else 1)
    if info.op_type == "Gemm":
        rows, columns = a.shape[1 if info.attributes.get("transA") else 0], b.shape[0 if info.attributes.get("transB") else 1]
        return rows * columns
    return rows * columns * math.prod(max(m, n) for m, n in zip_longest(a.shape[:-2][::-1], b.shape[:-2][::-1], fillvalue=1))


BROADCASTING = ("Add", "Sub", "Mul", "Div", "Pow", "Mod", "And", "Or", "Xor", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual",
                "Where", "Min", "Max", "Sum", "Mean", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift", "PRelu")
ELEMENTS = {
    "ConstantOfShape": _of_shape, "Expand": _of_expand, "Tile": _of_tile, "Range": _of_range, "Pad": _of_pad, "Resize": _of_resize,
    "Upsample": _of_resize, "OneHot": _of_one_hot, "ConvTranspose": _of_transposed, "RandomNormal": _of_shape_attribute,
    "RandomUniform": _of_shape_attribute, "Multinomial": _of_samples, "Concat": _of_concat, "MatMul": _of_product,
    "Gemm": _of_product,
    "CenterCropPad": _of_crop, "AffineGrid": _of_affine_grid, "MaxUnpool": _of_unpooled, "Col2Im": _of_image, "Gather": _of_gather,
    "GatherND": _of_gather_nd, "GridSample": _of_grid, "RoiAlign": _of_regions, "Einsum": _of_einsum,
    **dict.fromkeys(BROADCASTING, _of_broadcast),
    **dict.fromkeys(("Conv", "MaxPool", "AveragePool", "LpPool", "ConvInteger"), _of_window),
    **dict.fromkeys(("HannWindow", "HammingWindow", "BlackmanWindow"), _of_window_function)}
NO_OPERANDS = ("RandomNormal", "RandomUniform")


def check_size(info: NodeInfo, operands, limit: int | None = None) -> None:
    """Refuse a result whose size an operand asks for.

    Raises
    ------
    OnnxError
        The result would have more than `limit` elements, by default `MAX_ELEMENTS`.
    """
    limit = MAX_ELEMENTS if limit is None else limit
    elements = ELEMENTS.get(info.op_type)
    given = info.op_type in NO_OPERANDS or operands and operands[0] is not None
    count = elements(info, *operands) if elements is not None and given else 0
    if not count <= limit:
        raise OnnxError(f"{info}: the result would have {count:.3g} elements; expected at most {limit}")
