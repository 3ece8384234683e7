"""Export of models: names, batches of any size, writes in place, files, errors."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import numbanet  # noqa: E402
import numbanet.nn.functional as F  # noqa: E402
from numbanet import nn  # noqa: E402
from numbanet.errors import BackendError, CheckpointError, UnsupportedOperationError, UsageError  # noqa: E402
from numbanet.onnx.exporter import save  # noqa: E402
from tests.onnx.exporting import check, nodes, run, session  # noqa: E402


@pytest.fixture(autouse=True)
def strict():
    before = numbanet.get_float32_precision()
    numbanet.set_float32_precision("strict")
    yield
    numbanet.set_float32_precision(before)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


@pytest.fixture
def maps(rng):
    return rng.standard_normal((3, 4, 6, 5)).astype(np.float32)


class Residual(nn.Module):
    """A block with all that a zoo has: batch norm, in-place activations, a sum, a concatenation."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(4, 8, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y += self.conv2(x)
        return self.relu(numbanet.cat([y, x], 1))


def test_names_are_those_of_layers_and_weights(path, maps):
    model = nn.Sequential(nn.Sequential(Residual(), nn.MaxPool2d(2)), nn.Flatten(), nn.Linear(72, 3)).eval()
    exported = check(model, path, maps)
    assert [n.name for n in exported.graph.node] == ["0.0.conv1/Conv", "0.0.bn1/BatchNormalization", "0.0.relu/Relu", "0.0.conv2/Conv",
                                                     "0.0/Add", "0.0/Concat", "0.0.relu/Relu_1", "0.1/MaxPool", "1/Flatten", "2/Gemm"]
    state = {k: v.numpy() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in exported.graph.initializer}
    assert weights.keys() == state.keys() and all(weights[k].tobytes() == state[k].tobytes() for k in state)
    assert [(v.name, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
            for v in (*exported.graph.input, *exported.graph.output)] == [("input", ["N", 4, 6, 5]), ("output", ["N", 3])]
    assert (exported.ir_version, exported.opset_import[0].version, exported.producer_name) == (8, 18, "numbanet")


def test_the_same_file_twice(path, maps):
    model = nn.Sequential(nn.Conv2d(4, 3, 3), nn.GELU(), nn.Flatten())
    save(model, path, maps)
    first = path.read_bytes()
    save(model, path, maps)
    assert path.read_bytes() == first


def test_modes_of_all_modules_are_restored(path, maps):
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(4)).train()
    model[1].eval()
    save(model, path, maps)
    assert [m.training for m in model.modules()] == [True, True, False]
    assert nodes(onnx.load(path)) == ["BatchNormalization"]


LAYERS = {
    "conv1d": (lambda: nn.Conv1d(4, 3, 3, stride=2, dilation=2, padding=1), (3, 4, 9)),
    "conv3d": (lambda: nn.Conv3d(2, 4, (2, 3, 3), stride=(1, 2, 1), padding=1), (3, 2, 4, 6, 5)),
    "conv-transpose2d": (lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 3), padding=1, output_padding=(1, 0), groups=2), (3, 4, 5, 6)),
    "conv-transpose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), (3, 4, 5)),
    "conv-same": (lambda: nn.Conv2d(4, 4, (2, 5), padding="same", groups=4), (3, 4, 7, 6)),
    "batch-norm-1d": (lambda: nn.BatchNorm1d(5), (3, 5)),
    "batch-norm-3d": (lambda: nn.BatchNorm1d(5), (3, 5, 4)),
    "batch-norm-without-running": (lambda: nn.BatchNorm2d(4, track_running_stats=False), (3, 4, 5, 6)),
    "batch-norm-not-affine": (lambda: nn.BatchNorm2d(4, affine=False), (3, 4, 5, 6)),
    "group-norm": (lambda: nn.GroupNorm(2, 6), (3, 6, 5, 4)),
    "instance-norm": (lambda: nn.InstanceNorm2d(4, affine=True), (3, 4, 5, 6)),
    "layer-norm": (lambda: nn.LayerNorm((5, 6)), (3, 4, 5, 6)),
    "lrn-odd": (lambda: nn.LocalResponseNorm(5, 0.1, 0.6, 2.0), (3, 7, 4, 5)),
    "lrn-even": (lambda: nn.LocalResponseNorm(4, 0.1, 0.6, 2.0), (3, 7, 4, 5)),
    "linear-of-rank-3": (lambda: nn.Linear(5, 4), (3, 2, 5)),
    "prelu": (lambda: nn.PReLU(4, 0.3), (3, 4, 5, 6)),
    "max-pool-ceil": (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), (3, 4, 8, 7)),
    "max-pool-ceil-dropped": (lambda: nn.MaxPool2d(2, 3, 1, ceil_mode=True), (3, 4, 6, 5)),
    "max-pool-1d": (lambda: nn.MaxPool1d(3, 2), (3, 4, 9)),
    "avg-pool-ceil": (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), (3, 4, 8, 7)),
    "avg-pool-ceil-uncounted": (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (3, 4, 8, 7)),
    "avg-pool-divisor": (lambda: nn.AvgPool2d(3, 2, 1, divisor_override=2), (3, 4, 8, 7)),
    "adaptive-avg-uneven": (lambda: nn.AdaptiveAvgPool2d((3, 2)), (3, 4, 7, 5)),
    "adaptive-max-uneven": (lambda: nn.AdaptiveMaxPool2d((3, 2)), (3, 4, 7, 5)),
    "upsample-nearest": (lambda: nn.Upsample(scale_factor=(1.7, 2)), (3, 4, 5, 6)),
    "upsample-bilinear": (lambda: nn.Upsample(size=(9, 4), mode="bilinear"), (3, 4, 5, 6)),
    "upsample-corners": (lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), (3, 4, 5, 6)),
    "upsample-linear": (lambda: nn.Upsample(scale_factor=1.5, mode="linear"), (3, 4, 6)),
    "reflection-pad": (lambda: nn.ReflectionPad2d((2, 1, 0, 3)), (3, 4, 5, 6)),
    "circular-pad": (lambda: nn.CircularPad2d((2, 1, 0, 3)), (3, 4, 5, 6)),
    "pixel-shuffle": (lambda: nn.PixelShuffle(2), (3, 8, 3, 4)),
    "unflatten": (lambda: nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, 10))), (3, 4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, path, rng):
    make, shape = LAYERS[name]
    layer = make()
    for tensor in layer.state_dict().values():         # means, variances and slopes that are told from their defaults
        if tensor.is_floating_point():
            tensor.copy_(rng.uniform(0.5, 1.5, tensor.shape).astype(np.float32))
    batches = () if "without-running" in name else (1, 5)
    check(layer.eval(), path, rng.standard_normal(shape).astype(np.float32), batches=batches)


def _write_into_slice(x):
    y = x * 2
    y[:, 1:3, ::2] = x[:, :2, ::2] - 5
    y[:, 0] = 7
    return y


def _write_into_column_of_transposed(x):
    y = x + 1
    y.permute(0, 3, 1, 2)[:, 2] *= 10
    return y


def _view_taken_before_the_write(x):
    y = x + 1
    view = y[:, 1]
    y[:, 1:] = x[:, 1:] * 3
    return view.sum((1, 2)), y


def _write_through_view_of_view(x):
    y = x * 1
    y[:, 1:].transpose(2, 3)[:, :2, 1].add_(4)
    return y


def _write_at_positions(x):
    y = x * 1
    y[:, numbanet.tensor([2, 0]), :, numbanet.tensor([1, 1])] = 9
    y[:, :, numbanet.tensor([[3, 1]])] = x[:, :, None, 0:1]
    return y


def _old_value_is_kept(x):
    y = x + 1
    z = y * 2
    y.relu_()
    return y, z


WRITES = [_write_into_slice, _write_into_column_of_transposed, _view_taken_before_the_write, _write_through_view_of_view,
          _write_at_positions, _old_value_is_kept]


@pytest.mark.parametrize("function", WRITES)
def test_writes_in_place(function, path, maps):
    check(function, path, maps, batches=(2, 5))


FUNCTIONS = {
    "reshape-merges-batch": lambda x: (x.reshape(-1, 5) @ x.reshape(-1, 5).T.sum(1, keepdim=True)).reshape(x.shape[0], 24),
    "reshape-moves-batch": lambda x: x.permute(1, 0, 2, 3).reshape(4, -1).T.reshape(-1, 3, 8),
    "cat-along-batch": lambda x: numbanet.cat([x, x[:1] * 2], 0),
    "repeat-batch": lambda x: x.repeat(2, 1, 1, 1),
    "expand-to-batch": lambda x: numbanet.ones(1, 4, 1, 1).expand(x.shape[0], 4, 2, 2) * x[:, :, :2, :2],
    "zeros-of-batch": lambda x: numbanet.cat([x, numbanet.zeros(x.shape[0], 2, 6, 5)], 1),
    "last-of-batch": lambda x: x[-1] + x[x.shape[0] - 2:].sum(0),
    "var-over-batch": lambda x: x.var(0) + x.mean((0, 2), keepdim=True).squeeze(0),
    "var-of-maps": lambda x: (x - x.mean((2, 3), keepdim=True)) / (x.var((1, 2, 3), keepdim=True) + 1e-3).sqrt(),
    "sort-batch": lambda x: x[:, 0, 0, 0].sort(descending=True)[0],
    "max-over-batch": lambda x: x.amax((0, 1)),
    "squeeze-unsqueeze": lambda x: x[:, :1].squeeze(1).unsqueeze(2)[..., None],
    "flip-roll": lambda x: numbanet.roll(x.flip(2, 3), 2, 3),
    "split-shuffle": lambda x: numbanet.channel_shuffle(numbanet.cat(x.chunk(2, 1)[::-1], 1), 2),
    "attention": lambda x: F.softmax(x.flatten(2) @ x.flatten(2).mT / 5, -1) @ x.flatten(2),
    "where-and-masks": lambda x: numbanet.where(x > 0, x, -2 * x).masked_fill(x > 1, 3.0).clamp(-1, 2),
    "one-hot-index": lambda x: F.one_hot(x[:, :, 0, 0].argmax(1), 4).float() + x[:, :, 1, 1],
    "gather": lambda x: x.gather(1, x.argmax(1, keepdim=True)),
    "index-get": lambda x: x[:, numbanet.tensor([[0, 3], [1, 1]]), numbanet.tensor([2, -1])],
    "normalize": lambda x: F.normalize(x, dim=1) if hasattr(F, "normalize") else x,
    "cumsum-topk": lambda x: numbanet.topk(x.cumsum(1).flatten(1), 7, 1)[0],
    "integers": lambda x: ((x * 5).long() // 3 + (x * 7).int() % 4).float() + (x % 0.7),
    "logsumexp": lambda x: numbanet.logsumexp(x, (1, 2)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_sizes_that_follow_the_batch(name, path, maps):
    check(FUNCTIONS[name], path, maps, batches=(2, 7), tolerance=1e-5)


def test_nothing_is_computed_for_sizes_that_reshape_can_infer(path, maps):
    exported = check(lambda x: x.reshape(x.shape[0], 2, 2, -1).permute(0, 2, 1, 3).reshape(-1, 2, 30), path, maps)
    assert nodes(exported) == ["Reshape", "Transpose", "Reshape"]
    assert [onnx.numpy_helper.to_array(t).tolist() for t in exported.graph.initializer] == [[0, 2, 2, 30], [-1, 2, 30]]


def test_several_inputs_and_outputs(path, rng):
    class Two(nn.Module):
        def forward(self, image, label, temperature):
            return (image.sum((1, 2, 3)) + label) / temperature, image, label * 1.0

    arrays = rng.standard_normal((3, 2, 4, 4)).astype(np.float32), rng.standard_normal(3).astype(np.float32), np.array(2.0, np.float32)
    exported = check(Two(), path, *arrays)
    assert [v.name for v in exported.graph.input] == ["image", "label", "temperature"]
    assert [v.name for v in exported.graph.output] == ["output0", "output1", "output2"]
    exported = check(Two(), path, *arrays, input_names=("a", "b", "c"), output_names=("x", "y", "z"))
    assert [v.name for v in (*exported.graph.input, *exported.graph.output)] == ["a", "b", "c", "x", "y", "z"]
    with pytest.raises(UsageError, match="output_names expects 3 different names"):
        save(Two(), path, arrays, output_names=("x", "x", "z"))


def test_what_is_loaded_exports_to_the_same_bytes(path, tmp_path, maps):
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.PReLU(8), nn.LocalResponseNorm(3), nn.GroupNorm(2, 8))

        def forward(self, x, scale):
            maps = self.stem(x) * scale
            return F.gelu(maps.mean((2, 3))), F.interpolate(maps, scale_factor=2), maps[:, ::2].flip(2, 3).clamp(max=0.5)

    scale = np.array(0.5, np.float32)
    save(Several(), path, (maps, scale), metadata={"classes": ["a"]}, output_names=("features", "large", "mirrored"))
    save(numbanet.onnx.load(path), tmp_path / "again.onnx", (maps[:1], scale))
    assert [n.name for n in onnx.load(tmp_path / "again.onnx").graph.node] == [n.name for n in onnx.load(path).graph.node]
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_fixed_shapes(path, maps):
    exported = check(lambda x: x.reshape(12, 30), path, maps, batches=(), dynamic_batch=False)
    assert [d.dim_value for d in exported.graph.input[0].type.tensor_type.shape.dim] == [3, 4, 6, 5]


@pytest.mark.parametrize("function, message", [
    (lambda x: x.reshape(9, -1), "does not run with a batch of 2: reshape"),
    (lambda x: x[:x.shape[0] // 2], "no whole multiple"),
    (lambda x: x if x.shape[0] < 4 else x * 2, "primitives for a batch of 2"),
    (lambda x: x / x.shape[0], "b is 2 for a batch of 2 and 5"),
    (lambda x: F.pad(x.permute(1, 2, 0, 3), (0, 0, 1, 1), mode="circular"), "where ONNX takes a number"),
    (lambda x: x + numbanet.tensor(np.arange(x.shape[0], dtype=np.float32)).reshape(-1, 1, 1, 1), "made for each batch"),
])
def test_models_for_one_batch_only(function, message, path, maps):
    with pytest.raises(UnsupportedOperationError, match=message):
        save(function, path, maps)
    assert not path.exists()


def test_all_unsupported_primitives_are_listed(path, maps):
    class Noisy(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, training=True)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Noisy(), Noisy()

        def forward(self, x):
            return self.b(self.a(x)) + numbanet.randn(4, 6, 5)

    with pytest.raises(UnsupportedOperationError, match=r"dropout \(in a, b\)"):
        save(Model(), path, maps)


def test_changed_buffers_are_named(path, maps):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", numbanet.zeros(1))

        def forward(self, x):
            self.calls.add_(1)
            return x + self.calls

    with pytest.raises(UnsupportedOperationError, match="changes calls"):
        save(Counting(), path, maps)


def test_a_primitive_of_ones_own_by_its_composition(path, maps):
    from numbanet.backends import PRIMITIVES, Array, primitive
    from numbanet.backends.interface import like

    @primitive
    def twice_exported(x: Array):
        """relu(2 x)."""
        return like(x)

    @twice_exported.composed
    def _twice(backend, x):
        return backend.relu_forward(backend.multiply(x, 2.0))

    def function(x):
        y = x * 1
        return numbanet.Tensor._wrap(x.backend.twice_exported(y.array, out=y.array), x.backend) + x

    try:
        assert nodes(check(function, path, maps)) == ["Mul", "Mul", "Relu", "Add"]
    finally:
        del PRIMITIVES["twice_exported"]


def test_external_data(path, maps):
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).eval()
    report = save(model, path, maps, external_data_above=100)
    assert report.data_path == path.with_name("model.onnx.data") and report.data_path.stat().st_size >= report.nbytes
    places = [{e.key: e.value for e in t.external_data} for t in onnx.load(path, load_external_data=False).graph.initializer]
    assert {p["location"] for p in places} == {"model.onnx.data"} and all(int(p["offset"]) % 4096 == 0 for p in places)
    (received,) = run(path, [maps])
    with numbanet.no_grad():
        expected = model(numbanet.tensor(maps)).numpy()
        np.testing.assert_array_equal(numbanet.onnx.load(path)(numbanet.tensor(maps)).numpy(), expected)
    np.testing.assert_allclose(received, expected, atol=1e-5)


def test_metadata(path, maps):
    values = {"classes": ["a", "ü"], "preprocessing": {"mean": [0.5]}}
    save(nn.ReLU(), path, maps, metadata=values)
    assert json.loads(session(path).get_modelmeta().custom_metadata_map["numbanet"]) == values


def test_a_file_that_cannot_be_written(tmp_path, maps):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError):
        save(nn.ReLU(), tmp_path / "file" / "model.onnx", maps)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_without_the_package(path, maps, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendError, match="pip install onnx"):
        save(nn.ReLU(), path, maps)


def test_sixteen_bit_weights_and_double_precision(path, rng):
    model = nn.Linear(3, 2).double()
    x = rng.standard_normal((4, 3))
    check(model, path, x, tolerance=1e-12)
    save(lambda x: x.half() * 2, path, x)
    assert run(path, [x])[0].dtype == np.float16
