"""Units taken apart: the parts add up to what the engine computed, for every kind of window."""

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import UsageError
from numbanet.vision.layers import record_activations
from numbanet.vision.units import SHOWN, dissect
from numbanet.zoo import create_model
from numbanet.zoo.layers import Conv2dSame

CONVOLUTIONS = {
    "plain": lambda: nn.Conv2d(10, 12, 3), "padded": lambda: nn.Conv2d(10, 4, 5, padding=2),
    "strided, dilated": lambda: nn.Conv2d(10, 4, (3, 2), stride=(2, 3), padding=(2, 1), dilation=(1, 3)),
    "groups": lambda: nn.Conv2d(10, 20, 3, groups=5, padding=1), "depthwise": lambda: nn.Conv2d(10, 10, 3, groups=10, bias=False),
    "same": lambda: nn.Conv2d(10, 4, 4, padding="same"), "as TensorFlow": lambda: Conv2dSame(10, 4, 3, 2),
}


def activation_of(layer, x):
    found, _ = record_activations(nn.Sequential(layer), x)
    return found[-1]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, backend, rng):
    layer = CONVOLUTIONS[name]().to(backend)
    x = numbanet.tensor(rng.standard_normal((1, 10, 11, 14)).astype(np.float32), device=backend)
    activation = activation_of(layer, x)
    shape = activation.output.shape[1:]
    for unit in ((0, 0, 0), tuple(n - 1 for n in shape), tuple(n // 2 for n in shape)):
        found = dissect(activation, unit)
        assert found.kind == "convolution" and found.value == pytest.approx(activation.output.numpy()[(0, *unit)])
        assert found.total == pytest.approx(found.value, abs=1e-5)
        assert found.total == pytest.approx(sum(p.total for p in found.parts) + found.rest[0] + found.bias)
        assert len(found.parts) + found.rest[1] == 10 // layer.groups and len(found.parts) <= SHOWN
        for part in found.parts:
            np.testing.assert_allclose(np.nan_to_num(part.patch) * part.kernel, part.products)
            assert part.total == pytest.approx(part.products.sum())
        top, left, rows, columns, _ = found.window
        beyond = np.isnan(found.parts[0].patch)
        assert beyond.any() == (top < 0 or left < 0 or top + layer.dilation[0] * (rows - 1) > 10
                                or left + layer.dilation[1] * (columns - 1) > 13)


def test_poolings_and_others(rng):
    x = numbanet.tensor(rng.standard_normal((1, 3, 9, 9)).astype(np.float32))
    found = dissect(activation_of(nn.MaxPool2d(3, 2, padding=1), x), (1, 0, 2))
    assert found.kind == "maximum" and np.nanmax(found.parts[0].patch) == pytest.approx(found.value) and found.total is None
    assert np.isnan(found.parts[0].patch).sum() == 3
    found = dissect(activation_of(nn.AvgPool2d(3), x), (1, 2, 2))
    assert found.kind == "mean" and found.parts[0].patch.mean() == pytest.approx(found.value, abs=1e-6)
    found = dissect(activation_of(nn.ReLU(), x), (2, 4, 4))
    assert found.kind == "pointwise" and found.value == max(found.parts[0].total, 0)
    found = dissect(activation_of(nn.Flatten(), x), (5,))
    assert found.kind == "other" and found.value == pytest.approx(x.numpy().reshape(-1)[5])
    found = dissect(activation_of(nn.ConvTranspose2d(3, 2, 3), x), (0, 0, 0))
    assert found.kind == "other", "said to be unknown rather than wrong"
    found = dissect(activation_of(nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect"), x), (0, 0, 0))
    assert found.kind == "other"


def test_linear(rng):
    layer, x = nn.Linear(40, 3), numbanet.tensor(rng.standard_normal((1, 40)).astype(np.float32))
    found = dissect(activation_of(layer, x), (2,))
    assert found.kind == "linear" and found.total == pytest.approx(found.value, abs=1e-5)
    assert [abs(p.total) for p in found.parts] == sorted((abs(p.total) for p in found.parts), reverse=True)


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1_tf", "efficientnet_lite0"])
def test_every_convolution_of_a_network(name, rng):
    model = create_model(name)
    shape = (1, 1, 32, 32) if name == "lenet5" else (1, 3, 64, 64)
    found, _ = record_activations(model, numbanet.tensor(rng.standard_normal(shape).astype(np.float32)))
    for activation in found:
        unit = tuple(n // 2 for n in activation.output.shape[1:])
        taken = dissect(activation, unit)
        if activation.kind in ("Conv2d", "Conv2dSame", "Linear"):
            most = float(activation.output.abs().max().item())
            assert taken.total == pytest.approx(taken.value, rel=1e-4, abs=1e-3 * most), activation.path
    with pytest.raises(UsageError, match="received"):
        dissect(found[0], (0, 0, 10_000))
    with pytest.raises(UsageError, match="received"):
        dissect(found[0], (0,))


def test_imported_models(tmp_path, rng):
    """Nodes of an ONNX model are layers like any other: recorded, explained and taken apart."""
    pytest.importorskip("onnx")
    from numbanet.onnx import load, save
    from numbanet.vision import GradCAM
    from numbanet.vision.filters import convolutions
    model, x = create_model("lenet5").eval(), numbanet.tensor(rng.standard_normal((1, 1, 32, 32)).astype(np.float32))
    save(model, tmp_path / "lenet.onnx", x)
    imported = load(tmp_path / "lenet.onnx")
    ours, theirs = (record_activations(m, x)[0] for m in (model, imported))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.output.numpy(), b.output.numpy(), atol=1e-4)
    for index, unit in ((0, (1, 2, 3)), (2, (1, 2, 3)), (3, (1, 2, 3)), (7, (5,)), (11, (5,))):
        mine, other = dissect(ours[index], unit), dissect(theirs[index], unit)
        assert mine.kind == other.kind and mine.value == pytest.approx(other.value, abs=1e-4)
        assert mine.total == pytest.approx(other.total, abs=1e-4) if mine.total is not None else other.total is None
    for mine, other in zip(convolutions(model).values(), convolutions(imported).values(), strict=True):
        np.testing.assert_array_equal(mine, other)
    maps = [GradCAM(m, [layers[5].module])(x) for m, layers in ((model, ours), (imported, theirs))]
    np.testing.assert_allclose(*maps, atol=1e-3)
