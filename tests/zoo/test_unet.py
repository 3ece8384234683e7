"""U-Net: the paper's figure 1, and the same network in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet import nn, zoo
from numbanet.errors import ShapeError, UsageError
from numbanet.graph import trace
from numbanet.nn import init
from numbanet.zoo import UNet


def _output_shape(model, *shape):
    return trace(model.eval(), numbanet.empty(shape)).outputs[0].shape


def test_figure_1():
    with init.skip():
        model = zoo.unet(padding="valid")
    assert _output_shape(model, 1, 1, 572, 572) == (1, 2, 388, 388)
    assert sum(isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)) for m in model.modules()) == 23
    assert sum(p.numel() for p in model.parameters()) == 31_030_658


@pytest.mark.parametrize("widths, least", [((2, 3), 18), ((2, 3, 4), 44), ((2, 3, 4, 5, 6), 188)])
def test_sizes_without_padding(widths, least):
    model, multiple = UNet(3, 2, widths=widths, padding="valid"), 1 << len(widths) - 1
    border = least - _output_shape(model, 1, 2, least, least)[2]
    assert _output_shape(model, 1, 2, least, least + multiple) == (1, 3, least - border, least + multiple - border)
    with pytest.raises(ShapeError, match=f"at least {least} rows"):
        model(numbanet.empty(1, 2, least - multiple, least))
    with pytest.raises(ShapeError, match=rf"even before each pooling.*pad the pictures to {least} x {least + multiple}.*padding='same'"):
        model(numbanet.empty(1, 2, least, least + 1))


@pytest.mark.parametrize("size", [(32, 48), (33, 17), (1, 2)])
def test_same_padding_keeps_every_size(size):
    assert _output_shape(UNet(3, 2, widths=(2, 3, 4, 5, 6)), 2, 2, *size) == (2, 3, *size)


def _by_torch(model, x, torch):
    """The paper's steps with the model's weights, in float64."""
    F = torch.nn.functional
    state = {name: torch.tensor(t.numpy()).double() for name, t in model.state_dict().items()}
    border = int(model.padding == "same")

    def convolutions(path, x):
        for i in range(2):
            x = F.relu(F.conv2d(x, state[f"{path}.{i}.0.weight"], state[f"{path}.{i}.0.bias"], padding=border))
        return x
    levels, (height, width) = len(model.contracting), x.shape[2:]
    x, beside = torch.from_numpy(x).double(), []
    if border:
        multiple = 2 ** (levels - 1)
        x = F.pad(x, (0, (multiple - width % multiple) % multiple, 0, (multiple - height % multiple) % multiple))
    for level in range(levels):
        x = convolutions(f"contracting.{level}", F.max_pool2d(x, 2) if level else x)
        beside.append(x)
    for i in range(levels - 1):
        x = F.conv_transpose2d(x, state[f"upsampling.{i}.weight"], state[f"upsampling.{i}.bias"], stride=2)
        crop = beside[levels - 2 - i]
        top, left = (crop.shape[2] - x.shape[2]) // 2, (crop.shape[3] - x.shape[3]) // 2
        x = convolutions(f"expanding.{i}", torch.cat([crop[:, :, top:top + x.shape[2], left:left + x.shape[3]], x], 1))
    y = F.conv2d(x, state["classifier.weight"], state["classifier.bias"])
    return (y[:, :, :height, :width] if border else y).numpy()


@pytest.mark.parametrize("padding, size", [("same", (16, 12)), ("same", (13, 18)), ("valid", (48, 44))])
def test_computes_what_the_paper_says(padding, size, rng):
    torch = pytest.importorskip("torch")
    model = UNet(3, 2, widths=(4, 8, 12), padding=padding).eval()
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            init.normal_(p, std=0.3)
    x = rng.standard_normal((2, 2, *size), dtype=np.float32)
    expected = _by_torch(model, x, torch)
    received = model(numbanet.tensor(x)).detach().numpy()
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_options(rng):
    x = numbanet.tensor(rng.standard_normal((2, 1, 8, 8), dtype=np.float32))
    model = UNet(2, 1, widths=(4, 8, 12), batch_norm=True)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 10
    assert not [name for name, _ in model.named_parameters() if name.endswith((".0.0.bias", ".1.0.bias"))]      # BatchNorm has one
    dropped = [name for name, m in model.named_modules() if isinstance(m, nn.Dropout)]
    assert dropped == ["contracting.1.2", "contracting.2.2"]
    assert float(abs(model(x) - model(x)).max()) > 0
    model.reset_classifier(5)
    assert model(x).shape == (2, 5, 8, 8) and isinstance(model.get_classifier(), nn.Conv2d)


def test_initial_weights():
    """Deviation sqrt(2 / inputs of a unit); a unit of an up-convolution reads one position of the map below."""
    model = UNet(2, 1, widths=(32, 64, 128))
    for layer, inputs in ((model.contracting[1][1][0], 9 * 64), (model.expanding[0][0][0], 9 * 128), (model.upsampling[0], 128)):
        values = layer.weight.detach().numpy()
        assert values.std() == pytest.approx((2 / inputs) ** 0.5, rel=0.05) and not layer.bias.detach().numpy().any()


@pytest.mark.parametrize("options, message", [({"padding": "full"}, "padding expects 'same' or 'valid', received 'full'"),
                                              ({"widths": (8,)}, r"widths expects at least two numbers of maps, received \(8,\)")])
def test_refused_options(options, message):
    with pytest.raises(UsageError, match=message):
        UNet(**options)
