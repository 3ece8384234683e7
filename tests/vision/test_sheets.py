"""Contact sheets: what is on them, in which order, and that nothing overlaps or is cut."""

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import UsageError
from numbanet.vision import find_layer, maximise, record_activations, strongest_maps
from numbanet.vision.colours import NAMES, colour_table, colourise
from numbanet.vision.composition import WIDTH, Cell, Scale, Section, compose, number, shorten, wrap
from numbanet.vision.draw import text_font
from numbanet.vision.explaining import METHODS, explain, explanation_sheet
from numbanet.vision.features import feature_sheet
from numbanet.vision.fields import field_sheet
from numbanet.vision.filters import filter_sheet, kernels_of
from tests.vision.conftest import on


def picture(shape=(20, 17)):
    return Cell(np.random.default_rng(3).integers(0, 256, (*shape, 3)).astype(np.uint8), ("input",))


def test_colour_scales():
    for name in NAMES:
        table = colour_table(name).astype(int)
        assert table.shape == (256, 3)
        light = table @ [0.299, 0.587, 0.114]
        assert name == "signed" or (np.diff(light) >= -1).all(), "lightness rises, so that the order can be seen"
    blue, white, red = colourise(np.array([[-2.0, 0, 2]]), "signed")[0].astype(int)
    assert white.min() > 240 and blue[2] > blue[0] + 100 and red[0] > red[2] + 100
    shown = colourise(np.array([[0, np.nan, np.inf, 2.0]]), "grey")
    assert shown[0, :, 0].tolist() == [0, 128, 255, 255]
    assert colourise(np.full((2, 2), 3.0)).shape == (2, 2, 3), "one value only"
    assert colourise(np.full((2, 2), np.nan)).tolist() == [[[128] * 3] * 2] * 2


def test_cells_stand_in_a_grid():
    """Frames of equal size at equal distances, inside the sheet; each with its own colour in it."""
    colours = [(10 * i + 20, 200, 30) for i in range(10)]
    sheet = np.asarray(compose("t", [], [Section([Cell(np.full((4, 4, 3), c, np.uint8), ("a long caption that has to be cut somewhere",))
                                                  for c in colours], "h", 4, Scale("maps", 0, 1))]))
    assert sheet.shape[1] == WIDTH
    corners = []
    for colour in colours:
        rows, columns = np.nonzero((sheet == colour).all(2))
        corners.append((rows.min(), columns.min()))
        assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1), "a whole rectangle: nothing is written over it"
        assert np.ptp(rows) == np.ptp(columns)
    steps = np.diff(np.array(corners)[:4, 1])
    assert len(set(steps)) == 1 and [c[1] for c in corners[4:8]] == [c[1] for c in corners[:4]]
    assert (sheet[:, -20:] == 255).all() and (sheet[:, :20] == 255).all(), "margins are free"


def test_text_fits():
    assert shorten("a" * 200, 14, 100).endswith("...") and text_font(14).getlength(shorten("a" * 200, 14, 100)) <= 100
    lines = wrap("word " * 100, 15, 300)
    assert len(lines) > 3 and all(text_font(15).getlength(line) <= 300 for line in lines)
    assert [number(v) for v in (0.0, -0.0, 1234.5, 0.00012345, 12.345, float("nan"))] == ["0", "0", "1,234", "0.000123", "12.3", "nan"]


def test_strongest_maps(rng):
    values = rng.random((1, 6, 5, 5))
    values[0, 4, 1, 1], values[0, 2, 3, 3] = 9, 5
    found = strongest_maps(numbanet.tensor(values), 3)
    assert [m.index for m in found][:2] == [4, 2] and found[0].high == 9 and found[0].low == values[0, 4].min()
    values[0, 5, 0, 0] = np.nan
    assert strongest_maps(numbanet.tensor(values), 1)[0].index == 5, "NaN is shown first"


def test_sheets_are_the_same_on_every_backend(network, images):
    """Up to the last bit of single colours: the backends round differently."""
    def sheets(device):
        model, x = network(device), on(device, images[:1])
        yield filter_sheet(model, "0")[0]
        yield filter_sheet(model, "3")[0]
        yield feature_sheet(model, x, picture(), "1")[0]
        yield feature_sheet(model, x, picture())[0]
        yield feature_sheet(model, x, picture(), "7")[0]
        yield field_sheet(model, x, picture(), "4")[0]
        for method in METHODS:
            numbanet.manual_seed(4)                             # of SmoothGrad's noise
            yield explanation_sheet(explain(model, x, method, 1), picture(), "1, 20%", "title", ["line"])
    for ours, theirs in zip(sheets("cpu"), sheets("reference"), strict=True):
        ours, theirs = np.asarray(ours, int), np.asarray(theirs, int)
        assert ours.shape == theirs.shape and ours.shape[1] == WIDTH
        assert (np.abs(ours - theirs).max(2) > 3).mean() < 1e-3


def test_filters(network):
    model = network()
    path, kernels = kernels_of(model)
    assert path == "0"
    np.testing.assert_array_equal(kernels, model[0].weight.detach().numpy())
    _, facts = filter_sheet(model, "3")
    assert facts["shape"] == [8, 6, 3, 3]
    np.testing.assert_allclose(facts["norms"], np.sqrt((model[3].weight.detach().numpy() ** 2).sum((1, 2, 3))), rtol=1e-6)
    for layer in (nn.Conv2d(3, 70, 7), nn.Conv2d(300, 200, 1), nn.Conv2d(40, 40, 3, groups=40), nn.Conv2d(40, 50, 5)):
        assert filter_sheet(nn.Sequential(layer))[0].size[0] == WIDTH
    with pytest.raises(UsageError, match="1 is a ReLU, which has no kernels of its own; expected a convolution, such as 0, 3"):
        kernels_of(model, "1")
    with pytest.raises(UsageError, match="has none"):
        kernels_of(nn.Sequential(nn.Linear(2, 2)))


def test_layers_by_name(network, images):
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Flatten())
    assert find_layer(model, "0.1") is model[0][1]
    with pytest.raises(UsageError, match=r"layer '0\.2' does not exist in Sequential; did you mean 0\.1, 0\.0"):
        find_layer(model, "0.2")
    with pytest.raises(UsageError, match="its layers are 0, 0.0, 0.1, 1"):
        find_layer(model, "zzz")
    found, output = record_activations(model, on("cpu", images))
    assert [a.path for a in found] == ["0.0", "0.1", "1"] and output.shape == (2, 4 * 18 * 15)
    assert all(a.seconds > 0 for a in found) and not found[-1].is_map and found[0].is_map
    assert model.training and not any(m._hooks and any(m._hooks.values()) for m in model.modules())


def test_maximisation_climbs(network, backend):
    model = network(backend)
    x, values = maximise(model, (3, 20, 17), 2, steps=12, device=backend, low=-1.0, high=1.0)
    assert x.shape == (1, 3, 20, 17) and len(values) == 13 and values[-1] > values[0] + 0.1
    assert -1 <= x.numpy().min() and x.numpy().max() <= 1
    with numbanet.no_grad():
        assert model(x).numpy()[0, 2] == pytest.approx(values[-1], abs=1e-5)
    climbs = [maximise(model, (3, 20, 17), channel, layer="4", steps=4, device=backend)[1] for channel in range(8)]
    assert all(c[-1] >= c[0] for c in climbs) and sum(c[-1] > c[0] for c in climbs) >= 4, "some are switched off, and stay"
    with pytest.raises(UsageError, match="a channel of 4 from 0 to 7, received 8"):
        maximise(model, (3, 20, 17), 8, layer="4", device=backend)
    with pytest.raises(UsageError, match="a class from 0 to 4, received -1"):
        maximise(model, (3, 20, 17), -1, device=backend)
