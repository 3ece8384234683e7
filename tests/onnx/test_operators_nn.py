"""Operators of convolutional networks beyond the onnx package's own cases: odd sizes, old opsets, every option, gradients."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

import numbanet  # noqa: E402
from numbanet.autograd import gradient_check  # noqa: E402
from numbanet.errors import NumbanetError  # noqa: E402
from numbanet.onnx import load  # noqa: E402
from numbanet.onnx.operators import registry  # noqa: E402
from tests.onnx.models import OPSET, model_of, value  # noqa: E402

RNG = np.random.default_rng(11)


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def one_node(op_type, operands, opset=OPSET, outputs=1, constants=(), dtype=np.float32, **attributes):
    """A model of one node; operands in the positions of `constants` are initialisers, the others inputs."""
    names = [f"i{k}" if operand is not None else "" for k, operand in enumerate(operands)]
    results = [f"o{k}" for k in range(outputs)]
    node = onnx.helper.make_node(op_type, names, results, **attributes)
    given = {name: operand for name, operand in zip(names, operands) if name}
    fixed = {f"i{k}": operands[k] for k in constants}
    inputs = [value(name, operand.shape, operand.dtype) for name, operand in given.items() if name not in fixed]
    model = model_of([node], inputs, [value(name, (), dtype) for name in results], fixed, opset)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
        output.type.tensor_type.shape.dim.add()             # of unknown rank for onnxruntime
    return model, {name: operand for name, operand in given.items() if name not in fixed}


def received(model, inputs):
    with numbanet.no_grad():
        outputs = load(model)({name: operand for name, operand in inputs.items()})
    return [np.asarray(o) for o in (outputs.values() if isinstance(outputs, dict) else [outputs])]


def expected(model, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    unshaped = onnx.ModelProto()
    unshaped.CopyFrom(model)
    for output in unshaped.graph.output:
        output.type.tensor_type.ClearField("shape")
    return onnxruntime.InferenceSession(unshaped.SerializeToString(), options).run(None, inputs)


def agree(op_type, *operands, tolerance=2e-5, **options):
    model, inputs = one_node(op_type, operands, **options)
    for ours, theirs in zip(received(model, inputs), expected(model, inputs), strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


# --- windows --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("x, w, options", [
    ((2, 4, 9), (6, 4, 3), {"pads": [2, 0], "strides": [2]}),
    ((2, 4, 9, 7), (6, 2, 3, 2), {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ((1, 3, 11, 8), (5, 3, 3, 3), {"dilations": [2, 3], "pads": [2, 3, 2, 1]}),
    ((1, 3, 11, 8), (5, 3, 4, 2), {"strides": [2, 1], "auto_pad": "SAME_UPPER"}),
    ((1, 3, 10, 7), (5, 3, 4, 2), {"strides": [3, 2], "auto_pad": "SAME_LOWER"}),
    ((1, 3, 6, 7), (5, 3, 3, 3), {"auto_pad": "VALID"}),
    ((3, 6, 5, 5), (6, 1, 3, 3), {"group": 6, "pads": [1] * 4}),
    ((1, 2, 4, 5, 6), (4, 1, 2, 3, 3), {"group": 2, "pads": [0, 1, 1, 1, 1, 0], "strides": [1, 2, 2]}),
])
@pytest.mark.parametrize("bias", [True, False])
def test_conv(x, w, options, bias):
    agree("Conv", floats(*x), floats(*w), *([floats(w[0])] if bias else []), constants=(1,), **options)


def test_conv_of_the_same_size_with_dilation():
    x, w = floats(1, 2, 11, 8), floats(3, 2, 3, 3)
    y, = received(*one_node("Conv", [x, w], dilations=[2, 3], auto_pad="SAME_UPPER"))
    np.testing.assert_array_equal(y, received(*one_node("Conv", [x, w], dilations=[2, 3], pads=[2, 3, 2, 3]))[0])


@pytest.mark.parametrize("x, w, options", [
    ((2, 4, 5), (4, 3, 3), {"strides": [2], "pads": [1, 0], "output_padding": [1]}),
    ((2, 4, 5, 6), (4, 3, 3, 2), {"strides": [2, 3], "pads": [1, 0, 0, 1]}),
    ((2, 4, 5, 6), (4, 1, 4, 4), {"strides": [2, 2], "pads": [1] * 4, "group": 4}),
    ((1, 4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "output_shape": [10, 12]}),
    ((1, 4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 4, 5, 6), (4, 3, 4, 4), {"strides": [3, 3], "auto_pad": "SAME_LOWER"}),
    ((1, 4, 5, 6), (4, 3, 3, 3), {"dilations": [2, 2], "strides": [2, 1], "output_padding": [1, 0], "pads": [2, 1, 2, 1]}),
    ((1, 4, 3, 4, 3), (4, 2, 2, 3, 2), {"strides": [2, 1, 2], "pads": [0, 1, 0, 1, 1, 0], "group": 2}),
])
@pytest.mark.parametrize("bias", [True, False])
def test_conv_transpose(x, w, options, bias):
    agree("ConvTranspose", floats(*x), floats(*w), *([floats(w[1] * options.get("group", 1))] if bias else []), constants=(1,), **options)


POOLS = [
    ((2, 3, 10), {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}),
    ((2, 3, 10, 9), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    ((2, 3, 10, 9), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ((2, 3, 10, 9), {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((2, 3, 10, 9), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 6, 7, 5), {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2]}),
    ((1, 2, 6, 7, 5), {"kernel_shape": [2, 3, 2], "pads": [1, 0, 0, 0, 1, 1]}),
]


@pytest.mark.parametrize("x, options", [*POOLS, ((1, 2, 9, 9), {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [2] * 4})])
def test_max_pool(x, options):
    agree("MaxPool", floats(*x), **options)


@pytest.mark.parametrize("x, options", [*POOLS[:3], POOLS[5],
                                        ((1, 2, 7, 7), {"kernel_shape": [2, 2], "pads": [1] * 4, "storage_order": 1})])
def test_positions_of_max_pool(x, options):
    model, inputs = one_node("MaxPool", [floats(*x)], outputs=2, **options)
    model.graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.INT64
    (y, positions), (_, theirs) = received(model, inputs), expected(model, inputs)
    np.testing.assert_array_equal(positions, theirs)
    if not options.get("storage_order"):
        np.testing.assert_array_equal(inputs["i0"].reshape(-1)[positions], y)


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("x, options", [*POOLS, ((1, 2, 9, 9), {"kernel_shape": [3, 3], "dilations": [2, 1], "pads": [2, 1, 2, 1]})])
def test_average_pool(x, options, include):
    agree("AveragePool", floats(*x), count_include_pad=include, opset=19, **options)


@pytest.mark.parametrize("x, options", [POOLS[0], POOLS[1], POOLS[3], POOLS[5]])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool(x, options, p):
    agree("LpPool", floats(*x), p=p, opset=18, **options)


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
@pytest.mark.parametrize("x", [(2, 3, 7), (2, 3, 5, 4), (1, 2, 3, 4, 5)])
def test_global_pools(op_type, x):
    agree(op_type, floats(*x))


def test_nan_and_infinity_pass_through_windows():
    x = floats(1, 1, 6, 6)
    x[0, 0, 2, 2], x[0, 0, 5, 0] = np.nan, -np.inf
    model, inputs = one_node("MaxPool", [x], kernel_shape=[2, 2], pads=[2, 2, 2, 2], strides=[2, 2])   # whole windows of padding
    y = received(model, inputs)[0][0, 0]
    assert np.isnan(y[2, 2]) and np.isneginf(y[0]).all() and np.isfinite(y[1:4, 1:4]).sum() == 8


# --- normalisation ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("opset", [7, 8, 9, 14, 15])
@pytest.mark.parametrize("x", [(2, 5, 4, 3), (3, 5), (2, 5, 7)])
def test_batch_normalization(x, opset):
    statistics = [floats(5), floats(5), floats(5), np.abs(floats(5)) + 0.5]
    agree("BatchNormalization", floats(*x), *statistics, opset=opset, epsilon=1e-3, constants=(1, 2, 3, 4))


def test_instance_normalization():
    agree("InstanceNormalization", floats(2, 3, 5, 4), floats(3), floats(3), epsilon=1e-3)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 20])
def test_lrn(size):
    if size % 2:
        agree("LRN", floats(2, 7, 4, 3), size=size, alpha=0.1, beta=0.6, bias=1.5)
        return
    x, y = floats(1, 7, 2, 2), None
    model, inputs = one_node("LRN", [x], size=size, alpha=0.1, beta=0.6, bias=1.5)
    squares = np.pad(x.astype(np.float64)**2, ((0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0)))
    y = x / (1.5 + 0.1 / size * sum(squares[:, k:k + 7] for k in range(size)))**0.6
    np.testing.assert_allclose(received(model, inputs)[0], y, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_layer_normalization(axis):
    x = floats(3, 4, 5)
    agree("LayerNormalization", x, floats(*x.shape[axis:]), floats(*x.shape[axis:]), axis=axis, outputs=1)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization(p):
    agree("LpNormalization", floats(3, 4, 5), p=p, axis=1)


# --- activations and softmax ------------------------------------------------------------------------------------------

ACTIVATIONS = [
    ("Relu", {}), ("LeakyRelu", {"alpha": 0.2}), ("Elu", {"alpha": 0.7}), ("Selu", {}), ("Selu", {"alpha": 1.5, "gamma": 0.9}),
    ("Celu", {"alpha": 0.6}), ("Sigmoid", {}), ("Tanh", {}), ("HardSigmoid", {}), ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    ("HardSwish", {}), ("Softplus", {}), ("Softsign", {}), ("ThresholdedRelu", {"alpha": 0.3}), ("Shrink", {"lambd": 0.4, "bias": 0.1}),
    ("Erf", {}), ("Mish", {"opset": 18}), ("Gelu", {"opset": 20}), ("Gelu", {"opset": 20, "approximate": "tanh"})]


@pytest.mark.parametrize("op_type, options", ACTIVATIONS)
def test_activations(op_type, options):
    x = floats(3, 7, 5) * 3
    x.flat[:3] = [0, 40, -40]
    agree(op_type, x, **options)


@pytest.mark.parametrize("slope", [(1,), (4, 1, 1), (5,), (3, 5), (2, 4, 3, 5)])
def test_prelu(slope):
    agree("PRelu", floats(2, 4, 3, 5), floats(*slope))


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [7, 11, 13])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_softmax(op_type, opset, axis):
    if opset == 7 and axis < 0:
        pytest.skip("negative axes came with opset 11")
    agree(op_type, floats(3, 4, 5), opset=opset, axis=axis)


@pytest.mark.parametrize("opset", [7, 11, 12, 13])
def test_clip(opset):
    x = floats(4, 5) * 3
    limits = [np.float32(-1), np.float32(2)]
    if opset < 11:
        agree("Clip", x, opset=opset, min=-1.0, max=2.0)
        return
    agree("Clip", x, *map(np.asarray, limits), opset=opset)
    agree("Clip", x, None, np.asarray(limits[1]), opset=opset, constants=(2,))


# --- shapes -----------------------------------------------------------------------------------------------------------

def ints(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("x, pads", [((2, 3, 5, 4), (0, 0, 1, 2, 0, 0, 3, 1)), ((6,), (2, 3)), ((3, 4), (1, 2, 0, 3))])
def test_pad(mode, x, pads):
    agree("Pad", floats(*x), ints(*pads), mode=mode, constants=(1,))
    agree("Pad", floats(*x), opset=7, pads=list(pads), mode=mode)


def test_pad_with_a_value_and_negative_amounts():
    agree("Pad", floats(3, 4), ints(1, -1, 0, 2), np.array(7, np.float32), constants=(1,))
    x = floats(2, 5)
    model, inputs = one_node("Pad", [x, ints(0, 3, 0, 4)], opset=19, mode="wrap", constants=(1,))
    np.testing.assert_array_equal(received(model, inputs)[0], np.pad(x, ((0, 0), (3, 4)), mode="wrap"))


@pytest.mark.parametrize("starts, ends, axes, steps", [
    ((1,), (9,), None, None), ((-3, 0), (-1, 5), (1, 0), None), ((8, 7), (-(1 << 62), 0), (1, 2), (-1, -2)), ((5,), (2,), (1,), (1,)),
    ((-1,), (-9,), (2,), (-3,)), ((0, 1, 2), (100, 100, 100), (0, 1, 2), (2, 3, 1))])
def test_slice(starts, ends, axes, steps):
    operands = [ints(*v) if v is not None else None for v in (starts, ends, axes, steps)]
    while operands[-1] is None:
        operands.pop()
    agree("Slice", floats(4, 9, 8), *operands, constants=tuple(k + 1 for k, o in enumerate(operands) if o is not None))


@pytest.mark.parametrize("op_type, operands, options", [
    ("Reshape", [ints(0, -1)], {}), ("Reshape", [ints(-1)], {}), ("Squeeze", [ints(-3)], {}), ("Unsqueeze", [ints(0, -1)], {}),
    ("Expand", [ints(2, 3, 6, 4, 1)], {}), ("Tile", [ints(1, 2, 1, 3)], {}),
    ("Transpose", [], {"perm": [3, 0, 2, 1]}), ("Transpose", [], {}),
    ("Flatten", [], {"axis": -2}), ("Flatten", [], {"axis": 0}), ("Gather", [ints(-1, 0, 2)], {"axis": 2}), ("Identity", [], {})])
def test_shapes(op_type, operands, options):
    agree(op_type, floats(3, 1, 4, 5), *operands, constants=tuple(range(1, 1 + len(operands))), **options)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode):
    agree("DepthToSpace", floats(2, 12, 3, 2), blocksize=2, mode=mode)
    agree("SpaceToDepth", floats(2, 3, 4, 6), blocksize=2)


@pytest.mark.parametrize("opset, options, sizes", [(7, {}, None), (13, {}, None), (13, {}, (2, 5)), (18, {"num_outputs": 2}, None)])
def test_split(opset, options, sizes):
    operands = [floats(3, 7 if sizes or opset == 18 else 8)] + ([ints(*sizes)] if sizes else [])
    agree("Split", *operands, opset=opset, axis=1, outputs=2, constants=(1,) if sizes else (), **options)


# --- resize -----------------------------------------------------------------------------------------------------------

TRANSFORMATIONS = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("scales", [(1, 1, 2, 2), (1, 1, 1.7, 0.6), (1, 1, 0.5, 3)])
def test_resize_by_scales(transformation, mode, scales):
    if transformation == "align_corners" and scales[2] == 1.7:
        pytest.skip("onnxruntime rounds the length first, the standard's own cases do not")
    agree("Resize", floats(1, 2, 6, 5), None, np.array(scales, np.float32), opset=13, constants=(2,), mode=mode, tolerance=1e-4,
          coordinate_transformation_mode=transformation)


@pytest.mark.parametrize("nearest_mode", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("transformation", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("sizes", [(1, 2, 12, 10), (1, 2, 7, 3)])
def test_resize_nearest_to_sizes(nearest_mode, transformation, sizes):
    agree("Resize", floats(1, 2, 6, 5), None, None, ints(*sizes), opset=13, constants=(3,), nearest_mode=nearest_mode,
          coordinate_transformation_mode=transformation)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_resize_with_antialias(mode):
    agree("Resize", floats(1, 2, 12, 9), None, np.array([1, 1, 0.5, 0.4], np.float32), opset=18, constants=(2,), mode=mode, antialias=1,
          tolerance=1e-3)


def test_resize_crops():
    agree("Resize", floats(1, 1, 6, 5), np.array([0, 0, 0.2, -0.1, 1, 1, 0.7, 1.3], np.float32), None, ints(1, 1, 4, 7), opset=13,
          mode="linear", constants=(1, 3), coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=9.0, tolerance=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(mode):
    agree("Upsample", floats(1, 2, 3, 4), opset=7, mode=mode, scales=[1.0, 1.0, 2.0, 3.0])
    agree("Upsample", floats(1, 2, 3, 4), np.array([1, 1, 2, 3], np.float32), opset=9, mode=mode, constants=(1,))


# --- reductions and products ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("op_type", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
                                     "ReduceLogSumExp", "ReduceSumSquare"])
@pytest.mark.parametrize("axes, keepdims", [(None, 1), ([1], 0), ([0, -1], 1)])
def test_reductions(op_type, axes, keepdims):
    x = floats(3, 4, 5)
    attributes = {} if axes is None else {"axes": axes}
    agree(op_type, x, opset=11, keepdims=keepdims, **attributes)
    agree(op_type, x, *([] if axes is None else [ints(*axes)]), opset=18, keepdims=keepdims, constants=() if axes is None else (1,))


@pytest.mark.parametrize("options", [{}, {"transA": 1}, {"transB": 1}, {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}])
@pytest.mark.parametrize("c", [None, (5,), (3, 1), (3, 5), ()])
def test_gemm(options, c):
    a, b = floats(*((4, 3) if options.get("transA") else (3, 4))), floats(*((5, 4) if options.get("transB") else (4, 5)))
    agree("Gemm", a, b, *([] if c is None else [np.asarray(floats(*c), np.float32)]), opset=11, **options)


@pytest.mark.parametrize("a, b", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((4,), (4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((4,), (4,))])
def test_matmul(a, b):
    agree("MatMul", floats(*a), floats(*b))


# --- before opset 7 ----------------------------------------------------------------------------------------------------

def test_broadcasting_by_axis_before_opset_7():
    a, b = floats(2, 3, 4, 5), floats(3, 4)
    model, inputs = one_node("Add", [a, b], opset=6, broadcast=1, axis=1)
    np.testing.assert_array_equal(received(model, inputs)[0], a + b[:, :, None])


# --- gradients --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("op_type, shapes, attributes", [
    ("Conv", [(1, 2, 5, 4), (2, 2, 2, 3), (2,)], {"pads": [0, 1, 1, 1], "strides": [2, 1]}),
    ("ConvTranspose", [(1, 2, 3, 2), (2, 2, 2, 3)], {"pads": [0, 1, 1, 0], "strides": [2, 1]}),
    ("ConvTranspose", [(1, 2, 2, 2, 2), (2, 1, 2, 2, 2)], {"strides": [2, 1, 1]}),
    ("AveragePool", [(1, 2, 5, 4)], {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("LpPool", [(1, 2, 5, 4)], {"kernel_shape": [2, 2], "p": 2}),
    ("PRelu", [(2, 3, 2), (2,)], {}),
    ("LRN", [(1, 4, 2, 2)], {"size": 2, "alpha": 0.5}),
    ("DepthToSpace", [(1, 8, 2, 2)], {"blocksize": 2}),
    ("Gemm", [(3, 4), (4, 2), (2,)], {"alpha": 0.5}),
    ("InstanceNormalization", [(2, 2, 3), (2,), (2,)], {}),
])
def test_gradients(op_type, shapes, attributes):
    operands = [RNG.normal(size=shape) for shape in shapes]
    model, _ = one_node(op_type, operands, dtype=np.float64, **attributes)
    loaded = load(model)
    tensors = [numbanet.tensor(operand, requires_grad=True) for operand in operands]
    gradient_check(loaded, *tensors)


@pytest.mark.parametrize("mode, options", [("cubic", {}), ("linear", {"coordinate_transformation_mode": "asymmetric"}), ("nearest", {})])
def test_gradients_of_resize_and_pad(mode, options):
    x = RNG.normal(size=(1, 1, 3, 4))
    for model in (one_node("Resize", [x, None, np.array([1, 1, 1.5, 2], np.float32)], opset=13, constants=(2,), mode=mode, dtype=np.float64,
                           **options)[0],
                  one_node("Pad", [x, ints(0, 0, 1, 2, 0, 0, 2, 1)], mode="reflect", constants=(1,), dtype=np.float64)[0]):
        gradient_check(load(model), numbanet.tensor(x, requires_grad=True))


# --- wrong attributes -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("op_type, operands, attributes", [
    ("Conv", [floats(1, 3, 5, 5), floats(2, 3, 3, 3)], {"strides": [0, 1]}),
    ("Conv", [floats(1, 3, 5, 5), floats(2, 3, 3, 3)], {"pads": [1, 1]}),
    ("Conv", [floats(1, 3, 5, 5), floats(2, 3, 3, 3)], {"kernel_shape": [2, 2]}),
    ("Conv", [floats(1, 3, 5, 5), floats(2, 3, 3, 3)], {"group": 0}),
    ("MaxPool", [floats(1, 3, 5, 5)], {"kernel_shape": [9, 9]}),
    ("MaxPool", [floats(1, 3, 5, 5)], {"kernel_shape": [2, 2], "auto_pad": "EVERYWHERE"}),
    ("DepthToSpace", [floats(1, 3, 5, 5)], {"blocksize": 0}),
    ("Softmax", [floats(3, 4)], {"axis": 2}),
    ("Concat", [floats(3, 4), floats(2, 4)], {"axis": 1}),
    ("Transpose", [floats(3, 4)], {"perm": [0, 0]}),
    ("Flatten", [floats(3, 4)], {"axis": 3}),
    ("Gather", [floats(3, 4), ints(5)], {}),
    ("Reshape", [floats(3, 4), ints(5, -1)], {}),
    ("Split", [floats(3, 4), ints(1, 1)], {"axis": 1}),
    ("BatchNormalization", [floats(1, 3, 2, 2), floats(3), floats(3), floats(2), floats(2)], {}),
])
def test_wrong_attributes_and_shapes_are_errors_with_the_node(op_type, operands, attributes):
    model, inputs = one_node(op_type, operands, outputs=2 if op_type == "Split" else 1, **attributes)
    with pytest.raises(NumbanetError) as caught:
        received(model, inputs)
    assert op_type in str(caught.value) or "o0" in str(caught.value)


# --- registry ---------------------------------------------------------------------------------------------------------

def test_the_newest_function_not_above_the_opset_is_taken():
    assert registry.tensor_operator("", "Softmax", 12).function.__name__ == "softmax_flattened"
    assert registry.tensor_operator("", "Softmax", 13).function.__name__ == "softmax"
    assert registry.tensor_operator("", "Mish", 17) is None
    assert registry.tensor_operator("elsewhere", "Conv", 17) is None


def test_every_operator_says_what_it_computes():
    assert [f"{name} since {entry.since}" for name, entries in registry.registered().items() for entry in entries
            if not (entry.function.__doc__ or "").strip()] == []
