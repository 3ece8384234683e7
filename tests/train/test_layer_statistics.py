"""What is said of the layers, beside NumPy; and that looking changes nothing."""

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet import nn, optim
from numbanet.nn import functional as F
from numbanet.train import Trainer
from numbanet.train.layer_statistics import LayerStatistics, layer_statistics
from numbanet.vision.training import draw_confusion, draw_filters, draw_layers, draw_mistakes

X = np.random.default_rng(1).standard_normal((16, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def model():
    numbanet.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 4), nn.Sigmoid(),
                         nn.Linear(4, 2)).to("reference")


def test_numbers_beside_numpy_and_nothing_is_changed():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2)).to("reference")
    with numbanet.no_grad():
        net[0].bias.copy_(numbanet.tensor([-99.0, 0, 0, 0], device="reference"))      # a dead unit
        net[2].bias.copy_(numbanet.tensor([99.0, -99.0, 0], device="reference"))      # two saturated
    x, y = numbanet.tensor(X, device="reference"), numbanet.tensor(Y, device="reference")
    found = layer_statistics(net, F.cross_entropy, x, y)
    first = X @ net[0].weight.detach().numpy().T + net[0].bias.detach().numpy()
    assert found["0"]["mean"] == pytest.approx(first.mean(), rel=1e-5) and found["0"]["std"] == pytest.approx(first.std(), rel=1e-5)
    assert found["1"]["stuck"] == 0.25 and found["3"]["stuck"] == pytest.approx(2 / 3) and found["0"]["stuck"] is None
    F.cross_entropy(net(x), y).backward()
    for path, layer in (("0", net[0]), ("4", net[4])):
        norm = np.sqrt(sum((p.grad.numpy() ** 2).sum() for p in layer.parameters()))
        assert found[path]["gradient"] == pytest.approx(norm, rel=1e-5)
    assert found["1"]["gradient"] is None


def test_watching_does_not_change_a_run():
    weights = []
    for watch in (False, True):
        net = model()
        watched = LayerStatistics(numbanet.tensor(X), numbanet.tensor(Y))
        trainer = Trainer(net, None, optim.SGD(net.parameters(), lr=0.1, momentum=0.9), callbacks=[watched] if watch else [])
        trainer.fit([(X[:8], Y[:8]), (X[8:], Y[8:])], [(X, Y)], 3)
        weights.append({k: v.numpy().tobytes() for k, v in net.state_dict().items()})
    assert weights[0] == weights[1]
    assert [row["epoch"] for row in watched.history] == [1, 2, 3] and watched.filters == []
    assert all(0 < watched.history[-1]["layers"][path]["ratio"] < 1 for path in ("0", "4", "6"))


def test_filters_thin_out_but_the_first_and_the_newest_stay():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2)).to("reference")
    x = X[:12].reshape(4, 1, 3, 3)
    watched = LayerStatistics(numbanet.tensor(x), numbanet.tensor(Y[:4]))
    trainer = Trainer(net, None, optim.SGD(net.parameters(), lr=0.1), callbacks=[watched], compiled=False)
    trainer.fit([(x, Y[:4])], epochs=30)
    labels = [label for label, _ in watched.filters]
    assert labels[0] == "before" and labels[-1] == "epoch 30" and len(labels) <= LayerStatistics.MOST_SNAPSHOTS
    again = LayerStatistics(watched.x, watched.y)
    again.load_state_dict(watched.state_dict())
    assert again.history == watched.history and [label for label, _ in again.filters] == labels


def colours(path) -> int:
    with Image.open(path) as image:
        image.load()
        return len(image.convert("RGB").getcolors(1 << 24))


def test_pictures(tmp_path):
    rng = np.random.default_rng(0)
    for classes in (2, 10, 90):
        draw_confusion(tmp_path / "confusion.png", rng.integers(0, 9, (classes, classes)),
                       [f"class of a long name {i}" for i in range(classes)])
        assert colours(tmp_path / "confusion.png") > 10
    draw_confusion(tmp_path / "empty.png", np.zeros((3, 3), int), "abc")
    items = [(rng.integers(0, 255, shape, np.uint8), "cat", "dog", 0.7) for shape in ((9, 30), (300, 200, 3), (28, 28))]
    for some in (items, []):
        draw_mistakes(tmp_path / "mistakes.png", some, "the worst")
        assert colours(tmp_path / "mistakes.png") > 2
    for channels in (1, 3, 5):
        draw_filters(tmp_path / "filters.png", [("before", rng.standard_normal((40, channels, 3, 3))),
                                                ("after", np.zeros((40, channels, 3, 3)))])
        assert colours(tmp_path / "filters.png") > 10
    layers = {f"block{i}.layer": {"mean": i - 5.0, "std": 10.0**-i, "stuck": None, "ratio": None,
                                  "gradient": float("nan") if i == 3 else 0.0} for i in range(20)}
    draw_layers(tmp_path / "layers.png", [{"epoch": 1, "layers": layers}])
    assert colours(tmp_path / "layers.png") > 5
