"""Host operators against torch, onnxruntime and brute force; onnx's own cases run in test_backend.py."""

import itertools

import numpy as np
import pytest

pytest.importorskip("onnx")

import numbanet.onnx.backend as backend  # noqa: E402
from numbanet.errors import DTypeError, IndexRangeError, OnnxError, ShapeError, UsageError  # noqa: E402
from numbanet.onnx.operators.registry import host_twin  # noqa: E402
from tests.onnx.onnx_cases import node_model, run_host, run_onnxruntime  # noqa: E402

rng = np.random.default_rng


def close(ours, theirs, tolerance=1e-5):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_integers_divide_towards_zero(dtype):
    info = np.iinfo(dtype)
    values = np.array([max(info.min, -7), 5, 7, 0, info.max], dtype)
    a, b = values[:, None], values[values != 0][None, :]
    quotient, remainder = run_host("Div", a, b), run_host("Mod", a, b, fmod=1)
    floored = run_host("Mod", a, b)
    for i, j in np.ndindex(quotient.shape):
        p, q = int(a[i, 0]), int(b[0, j])
        truncated = abs(p) // abs(q) * (1 if (p < 0) == (q < 0) else -1)
        assert (quotient[i, j], remainder[i, j], floored[i, j]) == (truncated, p - q * truncated, p % q)
    assert quotient.dtype == remainder.dtype == floored.dtype == np.dtype(dtype)


def test_powers_of_integers_are_exact():
    assert run_host("Pow", np.array([3, -3], np.int64), np.array([39, 39], np.int64)).tolist() == [3**39, -3**39]
    assert run_host("Pow", np.array([4, 2], np.int32), np.array([0.5, -1], np.float32)).tolist() == [2, 0]


def test_bit_shifts_beyond_the_width():
    a, b = np.array([-5, 5, 127], np.int8), np.array([9, 9, 1], np.int8)
    assert run_host("BitShift", a, b, direction="RIGHT").tolist() == [-1, 0, 63]
    assert run_host("BitShift", a.view(np.uint8), b.view(np.uint8), direction="LEFT").tolist() == [0, 0, 254]


@pytest.mark.parametrize("dtype", ["int16", "uint32", "bool", "float64"])
def test_shape_twins_keep_every_dtype(dtype):
    x = np.arange(60).reshape(3, 4, 5).astype(dtype)
    cases = {
        "Transpose": ((x,), {"perm": [2, 0, 1]}, x.transpose(2, 0, 1)),
        "Flatten": ((x,), {"axis": 3}, x.reshape(60, 1)),
        "Unsqueeze": ((x, np.array([0, -1])), {}, x[None, ..., None]),
        "Squeeze": ((x[:, :1], np.array([-2])), {}, x[:, 0]),
        "Reshape": ((x, np.array([0, -1])), {}, x.reshape(3, 20)),
        "Slice": ((x, np.array([-1, 3]), np.array([-10, 1]), np.array([2, 1]), np.array([-2, -1])), {}, x[:, 3:1:-1, ::-2]),
        "Concat": ((x, x), {"axis": -2}, np.concatenate([x, x], 1)),
        "Tile": ((x, np.array([2, 1, 3])), {}, np.tile(x, (2, 1, 3))),
        "Expand": ((x[:, :, :1], np.array([2, 1, 1, 7])), {}, np.broadcast_to(x[:, :, :1], (2, 3, 4, 7))),
        "Gather": ((x, np.array([[1, -1]])), {"axis": 1}, x[:, [[1, -1]]]),
        "Pad": ((x, np.array([0, 2, 1, -1]), None, np.array([0, -1])), {"mode": "edge"},
                np.pad(x[..., :4], [(0, 1), (0, 0), (2, 0)], "edge")),
    }
    for name, (operands, attributes, expected) in cases.items():
        y = run_host(name, *operands, **attributes)
        assert y.dtype == x.dtype, name
        np.testing.assert_array_equal(y, expected, err_msg=name)


def test_split_leaves_the_last_part_smaller():
    x = np.arange(7, dtype=np.int16)
    assert [part.tolist() for part in run_host("Split", x, num_outputs=3, outputs=3)] == [[0, 1, 2], [3, 4, 5], [6]]
    with pytest.raises(ShapeError, match="sum to 7"):
        run_host("Split", x, np.array([3, 3]), outputs=2)


def test_scatter_adds_where_indices_repeat():
    x, updates = np.zeros((3, 4), np.int64), np.ones((2, 4), np.int64)
    indices = np.array([[0, 1, -1, 0], [0, 2, 2, 1]])
    expected = x.copy()
    for i, j in np.ndindex(indices.shape):
        expected[indices[i, j], j] += 1
    np.testing.assert_array_equal(run_host("ScatterElements", x, indices, updates, reduction="add"), expected)
    assert not x.any()
    tuples = np.array([[0, 1], [0, 1], [2, 3]])
    y = run_host("ScatterND", x, tuples, np.array([5, 6, 7]), reduction="max")
    assert y[0, 1] == 6 and y[2, 3] == 7 and y.sum() == 13


@pytest.mark.parametrize("batch_dims", [0, 1, 2])
def test_gather_nd_by_loops(batch_dims):
    x = rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    indices = rng(1).integers(-2, 2, (2, 3, 2, 2))
    y = run_host("GatherND", x, indices, batch_dims=batch_dims)
    for place in np.ndindex(indices.shape[:-1]):
        np.testing.assert_array_equal(y[place], x[place[:batch_dims]][tuple(indices[place])])


def test_indices_outside_are_named():
    for name, operands in {"Gather": (np.zeros(3), np.array([3])), "GatherND": (np.zeros((2, 2)), np.array([[0, 5]])),
                           "GatherElements": (np.zeros(3), np.array([-4])),
                           "ScatterElements": (np.zeros(3), np.array([7]), np.ones(1))}.items():
        with pytest.raises(IndexRangeError, match=rf"{name} 'node': indices must be in"):
            run_host(name, *operands)
    with pytest.raises(ShapeError, match="axis 2 is out of range for 2 dimensions"):
        run_host("Gather", np.zeros((2, 2)), np.array([0]), axis=2)
    with pytest.raises(UsageError, match="delta"):
        run_host("Range", np.array(0), np.array(3), np.array(0))
    with pytest.raises(DTypeError, match="32 bits"):
        run_host("BitCast", np.zeros(2, np.float32), to=7)


@pytest.mark.parametrize("largest", [0, 1])
def test_top_k_of_equals_takes_the_first(largest):
    x = rng(2).integers(-2, 3, (4, 9)).astype(np.int64)
    values, positions = run_host("TopK", x, np.array([6]), axis=1, largest=largest, outputs=2)
    for row, got, places in zip(x, values, positions):
        order = sorted(range(9), key=lambda i: (-row[i] if largest else row[i], i))[:6]
        assert places.tolist() == order and got.tolist() == row[order].tolist()
    assert values.dtype == x.dtype and positions.dtype == np.int64


def test_unique_in_order_of_appearance():
    x = np.array([[4, 1, 4], [2, 1, 4]], np.uint16)
    y, first, inverse, counts = run_host("Unique", x, sorted=0, outputs=4)
    assert (y.tolist(), first.tolist(), counts.tolist()) == ([4, 1, 2], [0, 1, 3], [3, 2, 1])
    np.testing.assert_array_equal(y[inverse], x.reshape(-1))


def test_reductions_of_nothing():
    empty = np.zeros((2, 0, 3), np.float32)
    axes = np.array([1])
    assert run_host("ReduceSum", empty, axes).tolist() == np.zeros((2, 1, 3)).tolist()
    assert np.isneginf(run_host("ReduceMax", empty, axes, keepdims=0)).all()
    assert run_host("ReduceMin", empty.astype(np.int16), axes).min() == 32767
    assert np.isneginf(run_host("ReduceLogSumExp", empty, axes)).all()
    x = np.array([[-3, 4]], np.int32)
    assert run_host("ReduceSumSquare", x, np.array([], np.int64), noop_with_empty_axes=1).tolist() == [[9, 16]]
    assert run_host("ReduceLogSumExp", np.array([1000.0, 1000.0]), keepdims=0) == pytest.approx(1000 + np.log(2))


GRIDS = list(itertools.product(["zeros", "border", "reflection"], [0, 1]))


@pytest.mark.parametrize(("padding", "corners"), GRIDS)
@pytest.mark.parametrize("rank", [2, 3])
def test_grid_sample_is_torchs(rank, padding, corners):
    torch = pytest.importorskip("torch")
    x = rng(3).normal(size=(2, 3, *(5, 4, 6)[:rank])).astype(np.float32)
    grid = rng(4).uniform(-1.6, 1.6, (2, *(3, 7, 2)[:rank], rank)).astype(np.float32)
    for mode in ["linear", "nearest", "cubic"] if rank == 2 else ["linear", "nearest"]:
        name = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
        theirs = torch.nn.functional.grid_sample(torch.from_numpy(x), torch.from_numpy(grid), name, padding, bool(corners))
        close(run_host("GridSample", x, grid, mode=mode, padding_mode=padding, align_corners=corners), theirs.numpy(), 2e-5)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 3, 2, 4)])
def test_affine_grid_is_torchs(size, corners):
    torch = pytest.importorskip("torch")
    rank = len(size) - 2
    theta = rng(5).normal(size=(2, rank, rank + 1)).astype(np.float32)
    theirs = torch.nn.functional.affine_grid(torch.from_numpy(theta), size, align_corners=bool(corners)).numpy()
    close(run_host("AffineGrid", theta, np.array(size), align_corners=corners), theirs)


@pytest.mark.parametrize("attributes", [{}, {"strides": [2, 3]}, {"dilations": [2, 1], "pads": [1, 2, 0, 1]}])
def test_col2im_is_torchs_adjoint(attributes):
    torch = pytest.importorskip("torch")
    image, block = (7, 8), (2, 3)
    pads = attributes.get("pads", [0] * 4)
    padded = torch.zeros(2, 3, image[0] + pads[0] + pads[2], image[1] + pads[1] + pads[3], dtype=torch.float64, requires_grad=True)
    columns = torch.nn.functional.unfold(padded, block, attributes.get("dilations", 1), 0, attributes.get("strides", 1))
    weights = torch.from_numpy(rng(6).normal(size=columns.shape))
    columns.backward(weights)                                   # folding is the adjoint of unfolding
    expected = padded.grad[:, :, pads[0]:pads[0] + image[0], pads[1]:pads[1] + image[1]].numpy()
    close(run_host("Col2Im", weights.numpy(), np.array(image), np.array(block), **attributes), expected, 1e-12)


@pytest.mark.parametrize("attributes", [{"ceil_mode": 1, "strides": [2, 3]}, {"dilations": [2, 1], "pads": [1, 1, 1, 1]}])
def test_max_pool_of_host_values_is_torchs(attributes):
    torch = pytest.importorskip("torch")
    x = rng(22).integers(-9, 9, (2, 3, 8, 7)).astype(np.float32)        # with ties
    x[0, 0, 3, 3], x[1, 2] = np.nan, -np.inf
    options = {"stride": attributes.get("strides", 1), "padding": attributes.get("pads", [0])[0],
               "dilation": attributes.get("dilations", 1), "ceil_mode": "ceil_mode" in attributes}
    theirs, places = torch.nn.functional.max_pool2d(torch.from_numpy(x), (3, 2), return_indices=True, **options)
    y, flat = run_host("MaxPool", x, kernel_shape=[3, 2], outputs=2, **attributes)
    np.testing.assert_array_equal(y, theirs.numpy())
    finite = np.isfinite(y)
    np.testing.assert_array_equal((flat % 56)[finite], places.numpy()[finite])
    np.testing.assert_array_equal(x.reshape(-1)[flat][finite], y[finite])
    _, by_columns = run_host("MaxPool", x, kernel_shape=[3, 2], outputs=2, storage_order=1, **attributes)
    np.testing.assert_array_equal(x.transpose(0, 1, 3, 2).reshape(-1)[by_columns][finite], y[finite])


def test_hardmax_before_opset_13_takes_the_axes_together():
    x = rng(23).normal(size=(2, 3, 4)).astype(np.float32)
    y = run_host("Hardmax", x, version=11, axis=1)
    assert y.sum() == 2 and [row.argmax() for row in y.reshape(2, 12)] == [row.argmax() for row in x.reshape(2, 12)]
    assert run_host("Hardmax", x, axis=1).sum() == 8


@pytest.mark.parametrize("rank", [1, 2])
def test_max_unpool_undoes_torchs_pooling(rank):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(rng(7).normal(size=(2, 3, *(9, 6)[:rank])).astype(np.float32))
    pooled, indices = getattr(torch.nn.functional, f"max_pool{rank}d")(x, 2, 2, return_indices=True)
    theirs = getattr(torch.nn.functional, f"max_unpool{rank}d")(pooled, indices, 2, 2)
    planes = np.prod(theirs.shape[2:]) * np.arange(6).reshape(2, 3, *(1,) * rank)       # ONNX counts through the whole tensor
    close(run_host("MaxUnpool", pooled.numpy(), indices.numpy() + planes, kernel_shape=[2] * rank, strides=[2] * rank), theirs.numpy())


@pytest.mark.parametrize("attributes", [{}, {"strides": [2, 1], "pads": [1, 0, 2, 1]}, {"dilations": [2, 2], "group": 2}])
def test_integer_convolution_is_exact(attributes):
    torch = pytest.importorskip("torch")
    groups = attributes.get("group", 1)
    x, w = rng(8).integers(0, 255, (2, 4, 8, 7), np.uint8), rng(9).integers(-128, 127, (6, 4 // groups, 3, 2), np.int8)
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    wide = torch.nn.functional.pad(torch.from_numpy(x.astype(np.float64) - 7), (left, right, top, bottom))
    theirs = torch.nn.functional.conv2d(wide, torch.from_numpy(w.astype(np.float64) - 3), None, attributes.get("strides", 1), 0,
                                        attributes.get("dilations", 1), groups).numpy().astype(np.int32)
    y = run_host("ConvInteger", x, w, np.array(7, np.uint8), np.array(3, np.int8), **attributes)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y, theirs)


def test_quantised_numbers_saturate_and_round_to_even():
    x, scale = np.array([-1000, -0.5, 0.5, 1.5, 2.5, 1000], np.float32), np.array(1, np.float32)
    assert run_host("QuantizeLinear", x, scale, np.array(1, np.int8)).tolist() == [-128, 1, 1, 3, 3, 127]
    assert run_host("QuantizeLinear", x, scale).dtype == np.uint8
    w = rng(10).integers(-128, 127, (3, 4), np.int8)
    scales, zeros = np.array([0.5, 2, 1], np.float32), np.array([1, -2, 0], np.int8)
    expected = (w.astype(np.float32) - zeros[:, None]) * scales[:, None]
    np.testing.assert_array_equal(run_host("DequantizeLinear", w, scales, zeros, axis=0), expected)
    np.testing.assert_array_equal(run_host("QuantizeLinear", expected, scales, zeros, axis=0), w)


def test_non_max_suppression_by_definition():
    boxes, scores = rng(11).uniform(0, 1, (2, 12, 4)).astype(np.float32), rng(12).uniform(0, 1, (2, 3, 12)).astype(np.float32)
    selected = run_host("NonMaxSuppression", boxes, scores, np.array([5]), np.array([0.3]), np.array([0.2]))

    def overlap(p, q):
        (a, b), (c, d) = sorted(p[::2]), sorted(p[1::2])
        (e, f), (g, h) = sorted(q[::2]), sorted(q[1::2])
        shared = max(0, min(b, f) - max(a, e)) * max(0, min(d, h) - max(c, g))
        return shared / ((b - a) * (d - c) + (f - e) * (h - g) - shared)

    expected = []
    for n, k in np.ndindex(2, 3):
        kept = []
        for i in sorted(range(12), key=lambda i: -scores[n, k, i]):
            if scores[n, k, i] > 0.2 and len(kept) < 5 and all(overlap(boxes[n, i], boxes[n, j]) <= 0.3 for j in kept):
                kept.append(i)
        expected += [[n, k, i] for i in kept]
    assert selected.tolist() == expected and selected.dtype == np.int64


RESIZES = [
    ("cubic", "half_pixel", {}), ("cubic", "align_corners", {"cubic_coeff_a": -0.5}), ("cubic", "asymmetric", {"exclude_outside": 1}),
    ("linear", "pytorch_half_pixel", {}), ("linear", "half_pixel", {"antialias": 1}), ("cubic", "half_pixel", {"antialias": 1}),
    ("nearest", "half_pixel", {"nearest_mode": "ceil"}), ("nearest", "asymmetric", {"nearest_mode": "floor"}),
]


@pytest.mark.parametrize(("mode", "coordinates", "more"), RESIZES)
@pytest.mark.parametrize("sizes", [(2, 3, 4, 13), (2, 3, 9, 3)])
def test_resize_is_onnxruntimes(mode, coordinates, more, sizes):
    pytest.importorskip("onnxruntime")
    x = rng(13).normal(size=(2, 3, 6, 7)).astype(np.float32)
    operands = (x, None, None, np.array(sizes))
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, **more}
    close(run_host("Resize", *operands, **attributes), run_onnxruntime("Resize", *operands, **attributes), 2e-5)


@pytest.mark.parametrize("attributes", [{}, {"sampling_ratio": 2}, {"mode": "max", "sampling_ratio": 3},
                                        {"coordinate_transformation_mode": "output_half_pixel", "spatial_scale": 0.5}])
def test_roi_align_is_onnxruntimes(attributes):
    pytest.importorskip("onnxruntime")
    x = np.abs(rng(14).normal(size=(2, 3, 8, 9))).astype(np.float32)
    rois = np.array([[0, 0, 4, 6], [1.5, 2.25, 8, 7.5], [-2, -1, 3, 3]], np.float32)
    attributes = {"output_height": 2, "output_width": 3, "version": 16, **attributes}
    operands = (x, rois, np.array([0, 1, 1]))
    close(run_host("RoiAlign", *operands, **attributes), run_onnxruntime("RoiAlign", *operands, **attributes))


def test_deformable_convolution_by_loops():
    N, C, H, W, K, OH, OW, groups = 2, 4, 5, 6, 2, 3, 2, 2
    x, w = rng(15).normal(size=(N, C, H, W)), rng(16).normal(size=(K, C // groups, 3, 2))
    offset, mask = rng(17).uniform(-1.5, 1.5, (N, 2 * 2 * 6, OH, OW)), rng(18).uniform(size=(N, 2 * 6, OH, OW))
    bias = rng(19).normal(size=K)

    def sample(n, c, i, j):
        return sum(x[n, c, p, q] * max(0, 1 - abs(i - p)) * max(0, 1 - abs(j - q)) for p in range(H) for q in range(W))

    expected = np.zeros((N, K, OH, OW))
    for n, k, i, j, c, r, s in np.ndindex(N, K, OH, OW, C // groups, 3, 2):
        channel = k // (K // groups) * (C // groups) + c
        tap = channel // (C // 2) * 6 + r * 2 + s
        down, right = offset[n, 2 * tap, i, j], offset[n, 2 * tap + 1, i, j]
        expected[n, k, i, j] += w[k, c, r, s] * mask[n, tap, i, j] * sample(n, channel, i * 2 - 1 + r + down, j * 3 + 2 * s + right)
    y = run_host("DeformConv", x, w, offset, bias, mask, group=groups, offset_group=2, strides=[2, 3], pads=[1, 0, 1, 0], dilations=[1, 2])
    close(y, expected + bias[:, None, None], 1e-12)


def test_random_numbers_follow_their_seed_and_distribution():
    import numbanet
    numbanet.manual_seed(3)
    first, second = (run_host("RandomNormal", shape=[20_000], mean=2.0, scale=0.5) for _ in range(2))
    numbanet.manual_seed(3)
    np.testing.assert_array_equal(run_host("RandomNormal", shape=[20_000], mean=2.0, scale=0.5), first)
    assert (first != second).any() and abs(first.mean() - 2) < 0.02 and abs(first.std() - 0.5) < 0.02
    uniform = [run_host("RandomUniformLike", np.zeros((100, 100)), low=-1.0, high=3.0, seed=1.5) for _ in range(2)]
    np.testing.assert_array_equal(*uniform)
    assert uniform[0].dtype == np.float64 and -1 <= uniform[0].min() < -0.99 and 2.99 < uniform[0].max() < 3
    drawn = run_host("Multinomial", np.log(np.array([[0.2, 0.7, 0.1], [0, 0, 1.0]]) + 1e-30).astype(np.float32), sample_size=9000)
    assert drawn.dtype == np.int32 and (drawn[1] == 2).all()
    np.testing.assert_allclose(np.bincount(drawn[0]) / 9000, [0.2, 0.7, 0.1], atol=0.03)
    assert abs(run_host("Bernoulli", np.full(9000, 0.3, np.float32)).mean() - 0.3) < 0.03


def _floats(*shape):
    return np.zeros(shape, np.float32)


HUGE = 1 << 40
HOSTILE = [
    ("CenterCropPad", (_floats(2, 3), np.array([HUGE, 3])), {}),
    ("AffineGrid", (_floats(1, 2, 3), np.array([1, 1, HUGE, 9])), {}),
    ("MaxUnpool", (_floats(1, 1, 2, 2), np.zeros((1, 1, 2, 2), np.int64)), {"kernel_shape": [2, 2], "strides": [HUGE, 2]}),
    ("MaxUnpool", (_floats(1, 1, 2, 2), np.zeros((1, 1, 2, 2), np.int64), np.array([1, 1, HUGE, 2])), {"kernel_shape": [2, 2]}),
    ("Col2Im", (_floats(1, 4, 9), np.array([HUGE, 4]), np.array([2, 2])), {}),
    ("Gather", (_floats(1, 1 << 16), np.zeros(1 << 16, np.int64)), {}),
    ("GatherND", (_floats(1, 1 << 16), np.zeros((1 << 16, 1), np.int64)), {}),
    ("GridSample", (_floats(1, 1 << 16, 1, 1), _floats(1, 1 << 14, 1, 2)), {}),
    ("RoiAlign", (_floats(1, 1, 4, 4), _floats(1, 4), np.zeros(1, np.int64)), {"output_height": HUGE, "version": 16}),
    ("RoiAlign", (_floats(1, 1, 4, 4), np.array([[0, 0, 1e9, 1e9]], np.float32), np.zeros(1, np.int64)), {"version": 16}),
    ("Einsum", (_floats(1 << 15), _floats(1 << 15)), {"equation": "a,b->ab"}),
    ("Einsum", (_floats(1 << 15, 1, 1), _floats(1, 1 << 15, 1)), {"equation": "...a,...a"}),
    ("Resize", (_floats(4, 4), np.array([0, 0, 1e9, 1], np.float32), np.ones(2, np.float32)),
     {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "cubic"}),
    ("TopK", (np.zeros(4, np.uint64), np.array([HUGE])), {"outputs": 2}),
    ("Gemm", (_floats(1 << 15, 1), _floats(1, 1 << 15)), {}),
    ("BlackmanWindow", (np.array(HUGE),), {}),
    ("RandomUniform", (), {"shape": [HUGE]}),
]


@pytest.mark.parametrize(("name", "operands", "options"), HOSTILE, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(HOSTILE)])
def test_results_that_fit_nowhere_are_refused(name, operands, options):
    with pytest.raises((OnnxError, ShapeError), match="expected (at most|k of at most)"):
        backend.run_model(node_model(name, *operands, **options), list(operands))


def test_einsum_shares_its_batch_axes():
    a, b = rng(20).normal(size=(1 << 12, 8, 2)), rng(21).normal(size=(1 << 12, 2, 8))
    y, = backend.run_model(node_model("Einsum", a, b, equation="...ij, ...jk -> ...ik"), [a, b])
    np.testing.assert_allclose(y, a @ b)


def test_every_host_operator_says_what_it_computes():
    from numbanet.onnx.operators.registry import registered
    assert [name for name in registered() if (twin := host_twin("", name, 99)) and not twin.function.__doc__] == []
