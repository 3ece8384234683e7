"""Layers against PyTorch: same weights, same input; outputs, gradients, running statistics and names of the state."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import NumbanetError, ShapeError, UsageError

torch = pytest.importorskip("torch")

# (name, arguments, keyword arguments, shape of the input)
LAYERS = [
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1}, (2, 4, 9)),
    ("Conv2d", (3, 4, (3, 2)), {"padding": (1, 0), "dilation": (1, 2)}, (2, 3, 7, 8)),
    ("Conv2d", (4, 4, 3), {"groups": 2, "bias": False, "padding": "same"}, (1, 4, 5, 6)),
    ("Conv2d", (2, 3, 4), {"padding": "same", "padding_mode": "circular"}, (1, 2, 6, 7)),
    ("Conv2d", (2, 3, 3), {"padding": (1, 2), "padding_mode": "reflect"}, (2, 2, 5, 6)),
    ("Conv2d", (2, 3, 3), {"padding": 2, "stride": 2, "padding_mode": "replicate"}, (2, 2, 5, 6)),
    ("Conv3d", (2, 3, 2), {"padding": 1}, (1, 2, 4, 3, 5)),
    ("ConvTranspose1d", (3, 2, 3), {"stride": 2, "output_padding": 1}, (2, 3, 5)),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2, "output_padding": (1, 0)}, (2, 4, 3, 4)),
    ("Linear", (5, 3), {}, (2, 4, 5)),
    ("Linear", (5, 3), {"bias": False}, (7, 5)),
    ("Flatten", (), {}, (2, 3, 4)),
    ("Unflatten", (1, (2, -1)), {}, (3, 6, 2)),
    ("Identity", (1, "anything"), {"a": 2}, (2, 3)),
    ("MaxPool1d", (3,), {"stride": 2}, (2, 3, 9)),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 8, 7)),
    ("AvgPool1d", (2,), {}, (2, 3, 7)),
    ("AvgPool2d", (3, 2), {"padding": 1, "count_include_pad": False}, (2, 3, 6, 7)),
    ("AvgPool2d", (2,), {"divisor_override": 3}, (2, 3, 6, 6)),
    ("AdaptiveAvgPool1d", (3,), {}, (2, 3, 7)),
    ("AdaptiveAvgPool2d", ((3, None),), {}, (2, 3, 7, 5)),
    ("AdaptiveMaxPool1d", (2,), {}, (2, 3, 7)),
    ("AdaptiveMaxPool2d", (2,), {}, (2, 3, 7, 5)),
    ("MaxPool3d", (2,), {}, (2, 3, 4, 5, 6)),
    ("AvgPool3d", (2,), {"padding": 1}, (2, 3, 4, 5, 6)),
    ("AdaptiveAvgPool3d", (2,), {}, (2, 3, 4, 5, 6)),
    ("AdaptiveMaxPool3d", (1,), {}, (2, 3, 4, 5, 6)),
    ("BatchNorm1d", (4,), {}, (6, 4)),
    ("BatchNorm1d", (4,), {"affine": False}, (3, 4, 5)),
    ("BatchNorm2d", (3,), {"momentum": None}, (4, 3, 5, 6)),
    ("BatchNorm2d", (3,), {"track_running_stats": False, "eps": 1e-3}, (4, 3, 5, 6)),
    ("BatchNorm2d", (3,), {"bias": False}, (4, 3, 5, 6)),
    ("BatchNorm3d", (2,), {"momentum": 0.3}, (2, 2, 3, 4, 2)),
    ("InstanceNorm1d", (3,), {"affine": True}, (2, 3, 7)),
    ("InstanceNorm2d", (3,), {"track_running_stats": True}, (2, 3, 5, 4)),
    ("LayerNorm", ((3, 4),), {}, (5, 3, 4)),
    ("LayerNorm", (4,), {"bias": False}, (5, 3, 4)),
    ("GroupNorm", (2, 6), {}, (3, 6, 4, 5)),
    ("LocalResponseNorm", (3,), {"alpha": 0.1, "k": 2.0}, (2, 5, 3, 4)),
    ("PReLU", (3,), {}, (2, 3, 4, 4)),
    ("PReLU", (), {"init": 0.1}, (2, 3)),
    ("LeakyReLU", (0.2,), {}, (3, 4)),
    ("ELU", (0.7,), {}, (3, 4)),
    ("CELU", (0.7,), {}, (3, 4)),
    ("Threshold", (0.1, -2.0), {}, (3, 4)),
    ("Hardshrink", (0.3,), {}, (3, 4)),
    ("Softshrink", (), {}, (3, 4)),
    ("Tanhshrink", (), {}, (3, 4)),
    ("GLU", (1,), {}, (3, 4)),
    ("Softmin", (0,), {}, (3, 4)),
    ("GELU", (), {"approximate": "tanh"}, (3, 4)),
    ("Hardtanh", (-0.5, 0.7), {}, (3, 4)),
    ("Softplus", (2.0, 1.0), {}, (3, 4)),
    ("Softmax", (1,), {}, (3, 4, 2)),
    ("LogSoftmax", (-1,), {}, (3, 4)),
    ("Softmax2d", (), {}, (2, 3, 4, 2)),
    *[(name, (), {}, (3, 5)) for name in ("ReLU", "ReLU6", "SELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid", "GELU",
                                         "Sigmoid", "LogSigmoid", "Tanh", "Softsign")],
    ("Dropout", (0.0,), {}, (3, 4)),
    ("ZeroPad1d", (2,), {}, (2, 3, 4)),
    ("ZeroPad2d", ((1, 2, 3, 0),), {}, (2, 3, 4, 5)),
    ("ConstantPad1d", ((1, 2), 3.5), {}, (2, 3, 4)),
    ("ConstantPad2d", (1, -1.5), {}, (2, 3, 4, 5)),
    ("ReflectionPad1d", (2,), {}, (2, 3, 4)),
    ("ReflectionPad2d", ((1, 2, 3, 0),), {}, (2, 3, 4, 5)),
    ("ReplicationPad1d", (2,), {}, (2, 3, 4)),
    ("ReplicationPad2d", (2,), {}, (2, 3, 4, 5)),
    ("CircularPad1d", (2,), {}, (2, 3, 4)),
    ("CircularPad2d", ((1, 2, 3, 0),), {}, (2, 3, 4, 5)),
    ("Upsample", (), {"scale_factor": 2}, (1, 2, 3, 4)),
    ("Upsample", (), {"size": (5, 7), "mode": "bilinear", "align_corners": True}, (1, 2, 3, 4)),
    ("UpsamplingBilinear2d", (), {"scale_factor": 2}, (1, 2, 3, 4)),
    ("UpsamplingNearest2d", ((4, 6),), {}, (1, 2, 3, 4)),
    ("PixelShuffle", (2,), {}, (2, 8, 3, 2)),
    ("PixelUnshuffle", (2,), {}, (2, 3, 4, 6)),
    ("ChannelShuffle", (2,), {}, (2, 6, 4, 3)),
]
IDS = [f"{name}-{i}" for i, (name, *_) in enumerate(LAYERS)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(3)


def _close(received, expected):
    np.testing.assert_allclose(np.asarray(received.detach().numpy()), expected.detach().numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name, args, kwargs, shape", LAYERS, ids=IDS)
def test_agrees_with_torch(name, args, kwargs, shape, rng):
    theirs, mine = getattr(torch.nn, name)(*args, **kwargs), getattr(nn, name)(*args, **kwargs)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    state = {key: t + 0.1 * torch.rand_like(t) if t.is_floating_point() else t
             for key, t in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    mine.load_state_dict(state)
    for training in (True, True, False):
        values = rng.standard_normal(shape).astype(np.float32)
        x, y = numbanet.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
        out, expected = mine.train(training)(x), theirs.train(training)(y)
        _close(out, expected)
        weights = rng.standard_normal(tuple(expected.shape)).astype(np.float32)
        (out * numbanet.tensor(weights)).sum().backward()
        (expected * torch.tensor(weights)).sum().backward()
        _close(x.grad, y.grad)
    for (key, p), q in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        assert p.grad is not None, key
        _close(p.grad, q.grad)
    for p, q in zip(mine.buffers(), theirs.buffers(), strict=True):
        _close(p, q)


@pytest.mark.parametrize("name", ["Conv1d", "Conv2d", "ConvTranspose2d", "Linear"])
def test_initial_values_have_the_range_of_torch(name):
    args = (16, 32) if name == "Linear" else (16, 32, 3)
    kwargs = {} if name == "Linear" else {"groups": 2}
    numbanet.random.manual_seed(3)
    mine, theirs = getattr(nn, name)(*args, **kwargs), getattr(torch.nn, name)(*args, **kwargs)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        values, expected = p.detach().numpy(), q.detach().numpy()
        assert values.shape == expected.shape and values.dtype == expected.dtype
        bound = np.abs(expected).max()
        assert 0.85 * bound < np.abs(values).max() < 1.15 * bound
        assert abs(values.mean()) < 0.35 * bound


def test_dropout_is_active_in_training_only(rng):
    x = numbanet.ones(4, 50, 3, 3)
    numbanet.random.manual_seed(0)
    for layer in (nn.Dropout(0.5), nn.Dropout2d(0.5), nn.AlphaDropout(0.5)):
        y = layer(x).numpy()
        assert 0.4 < np.mean(y == y[y != 0].max()) < 0.6
        np.testing.assert_array_equal(layer.eval()(x).numpy(), x.numpy())
    maps = nn.Dropout2d(0.5)(x).numpy()
    assert all(len(np.unique(m)) == 1 for m in maps.reshape(200, 9)) and len(np.unique(maps)) == 2
    rows = nn.Dropout1d(0.5)(numbanet.ones(4, 20, 5)).numpy()
    assert all(len(np.unique(m)) == 1 for m in rows.reshape(80, 5)) and len(np.unique(rows)) == 2


def test_inplace_activation_overwrites_its_input():
    x = numbanet.tensor([-1.0, 2.0])
    y = nn.ReLU(inplace=True)(x)
    assert y is x and x.tolist() == [0.0, 2.0]


def test_max_pool_returns_indices(rng):
    values = rng.standard_normal((2, 3, 6, 6)).astype(np.float32)
    y, indices = nn.MaxPool2d(2, return_indices=True)(numbanet.tensor(values))
    expected, expected_indices = torch.nn.MaxPool2d(2, return_indices=True)(torch.tensor(values))
    _close(y, expected)
    np.testing.assert_array_equal(indices.numpy(), expected_indices.numpy())


def test_transposed_convolution_reaches_an_output_size(rng):
    mine, theirs = (module.ConvTranspose2d(2, 3, 3, stride=2, padding=1) for module in (nn, torch.nn))
    mine.load_state_dict(theirs.state_dict())
    values = rng.standard_normal((1, 2, 4, 5)).astype(np.float32)
    _close(mine(numbanet.tensor(values), (8, 9)), theirs(torch.tensor(values), (8, 9)))
    with pytest.raises(ShapeError, match="along axis 0, a size from 7 to 8 .* received 9"):
        mine(numbanet.tensor(values), (9, 9))


def test_instance_norm_without_a_batch(rng):
    values = rng.standard_normal((3, 5, 4)).astype(np.float32)
    _close(nn.InstanceNorm2d(3)(numbanet.tensor(values)), torch.nn.InstanceNorm2d(3)(torch.tensor(values)))


def test_tracking_that_is_switched_off_leaves_the_statistics(rng):
    values = rng.standard_normal((4, 3, 2, 2)).astype(np.float32)
    mine, theirs = nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    mine.track_running_stats = theirs.track_running_stats = False
    for training in (True, False):
        _close(mine.train(training)(numbanet.tensor(values)), theirs.train(training)(torch.tensor(values)))
    assert (mine.running_mean.numpy() == 0).all() and mine.num_batches_tracked.item() == 0


LOSSES = [
    ("CrossEntropyLoss", {}, "classes"),
    ("CrossEntropyLoss", {"label_smoothing": 0.1, "reduction": "sum"}, "classes"),
    ("CrossEntropyLoss", {"weight": [1.0, 2.0, 0.5, 1.5], "ignore_index": 1}, "classes"),
    ("NLLLoss", {"weight": [1.0, 2.0, 0.5, 1.5]}, "classes"),
    ("BCELoss", {}, "probabilities"),
    ("BCEWithLogitsLoss", {"pos_weight": [1.0, 2.0, 0.5, 1.5]}, "probabilities"),
    ("KLDivLoss", {"reduction": "batchmean"}, "probabilities"),
    ("MSELoss", {"reduction": "none"}, "values"),
    ("L1Loss", {}, "values"),
    ("SmoothL1Loss", {"beta": 0.5}, "values"),
    ("HuberLoss", {"delta": 0.5, "reduction": "sum"}, "values"),
]


@pytest.mark.parametrize("name, options, target", LOSSES, ids=[f"{n}-{i}" for i, (n, *_) in enumerate(LOSSES)])
def test_losses_agree_with_torch(name, options, target, rng):
    def make(module, tensor):
        return module(**{k: tensor(v) if isinstance(v, list) else v for k, v in options.items()})
    values = rng.standard_normal((6, 4)).astype(np.float32)
    if name == "BCELoss":
        values = 1 / (1 + np.exp(-values))
    goal = {"classes": rng.integers(0, 4, 6),
            "probabilities": rng.random((6, 4)).astype(np.float32),
            "values": rng.standard_normal((6, 4)).astype(np.float32)}[target]
    x, y = numbanet.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    out = make(getattr(nn, name), numbanet.tensor)(x, numbanet.tensor(goal))
    expected = make(getattr(torch.nn, name), torch.tensor)(y, torch.tensor(goal))
    _close(out, expected)
    out.sum().backward()
    expected.sum().backward()
    _close(x.grad, y.grad)


@pytest.mark.parametrize("make, message", [
    (lambda: nn.Conv2d(3, 4, 3, groups=2), "Conv2d: groups expects a divisor of in_channels=3"),
    (lambda: nn.Conv2d(2, 4, 3, padding_mode="mirror"), "padding_mode expects zeros or reflect or"),
    (lambda: nn.ConvTranspose2d(2, 4, 3, padding_mode="reflect"), "padding_mode expects zeros, received 'reflect'"),
    (lambda: nn.Conv2d(2, 4, 3, padding="full"), "padding expects numbers, same or valid"),
    (lambda: nn.Conv2d(2, 4, 3, padding="same", stride=2), "'same' expects stride 1"),
    (lambda: nn.Conv2d(2, 4, (3, 3, 3)), "kernel_size expects an int or 2 ints"),
    (lambda: nn.GroupNorm(3, 4), "GroupNorm: num_groups expects a divisor"),
    (lambda: nn.Dropout(1.5), "Dropout: p expects a probability"),
    (lambda: nn.ZeroPad2d((1, 2)), "ZeroPad2d: padding expects an int or 4 ints"),
    (lambda: nn.MSELoss(reduction="max"), "MSELoss: reduction expects"),
    (lambda: nn.BatchNorm2d(3)(numbanet.ones(2, 3)), r"BatchNorm2d: expected x of 4 dimensions, received .*\(2, 3\)"),
])
def test_bad_arguments(make, message):
    with pytest.raises(NumbanetError, match=message) as caught:
        make()
    assert isinstance(caught.value, (UsageError, ShapeError))


def test_layers_take_device_and_dtype():
    layer = nn.Conv2d(1, 2, 3, device="reference", dtype=numbanet.float64)
    norm = nn.BatchNorm2d(2, device="reference", dtype=numbanet.float64)
    for t in (*layer.parameters(), *norm.parameters(), norm.running_mean):
        assert t.device == "reference" and t.dtype == numbanet.float64
    assert norm.num_batches_tracked.dtype == numbanet.int64
    assert norm(layer(numbanet.ones(2, 1, 5, 5, device="reference", dtype=numbanet.float64))).shape == (2, 2, 3, 3)


def test_functional_is_one_module():
    assert numbanet.functional is nn.functional
    assert all(callable(getattr(nn.functional, name)) for name in nn.functional.__all__)
