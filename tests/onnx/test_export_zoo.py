"""Every model of the zoo as an ONNX file: onnxruntime agrees, and what is loaded from it exports to the same bytes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import numbanet  # noqa: E402
from numbanet import nn, zoo  # noqa: E402
from numbanet.onnx import load  # noqa: E402
from numbanet.onnx.exporter import save  # noqa: E402
from numbanet.zoo.network import Network  # noqa: E402
from tests.onnx.exporting import assert_close, run  # noqa: E402

# By default the smallest model of each file runs, if it is not larger than this:
MULTIPLY_ADDS, PARAMETERS = 2_000_000_000, 20_000_000
NORMALIZATIONS = nn.BatchNorm1d, nn.BatchNorm2d


def _models():
    infos = sorted(map(zoo.model_info, zoo.list_models()), key=lambda info: info.multiply_adds or 0)
    smallest = {info.create.__module__: info for info in reversed(infos)}
    for info in infos:
        default = smallest[info.create.__module__] is info and (info.multiply_adds or 0) < MULTIPLY_ADDS and (
            info.parameters or 0) < PARAMETERS
        yield pytest.param(info.name, marks=[] if default else [pytest.mark.full])


def _example(model, info, rng) -> np.ndarray:
    """Small, not square."""
    size = info.input_size[1:]
    if isinstance(model, Network):
        least = max(model.minimum_size, 48)
        size = least, least + 5
    return rng.standard_normal((2, info.input_size[0], *size)).astype(np.float32)


def _take_statistics(model, x) -> None:
    """Batch norms take their statistics from pictures like x, so that what a deep network computes does not vanish on the way."""
    for module in model.modules():
        if isinstance(module, NORMALIZATIONS):
            module.training, module.momentum = True, 1.0
    with numbanet.no_grad():
        model(numbanet.tensor(np.resize(x, (8, *x.shape[1:])) * np.linspace(0.5, 1.5, 8, dtype=np.float32)[:, None, None, None]))
    model.eval()


def _run(model, x) -> list[np.ndarray]:
    with numbanet.no_grad():
        result = model(numbanet.tensor(x))
    return [y.numpy() for y in (result if isinstance(result, (tuple, list)) else [result])]


@pytest.fixture
def strict():
    before = numbanet.get_float32_precision()
    numbanet.set_float32_precision("strict")
    yield
    numbanet.set_float32_precision(before)


@pytest.mark.parametrize("name", list(_models()))
def test_model(name, tmp_path, rng, strict):
    numbanet.manual_seed(0)
    model = zoo.create_model(name).eval()
    x = _example(model, zoo.model_info(name), rng)
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    save(model, first, x[:1])
    for received, expected in zip(run(first, [x]), _run(model, x), strict=True):
        assert_close(received, expected, 1e-5)
    _take_statistics(model, x)
    save(model, first, x[:1])
    disturbed = _run(model, x * (1 + 1e-6 * rng.standard_normal(x.shape, dtype=np.float32)))
    for received, expected, other in zip(run(first, [x]), _run(model, x), disturbed, strict=True):
        largest = np.abs(expected).max()
        assert np.abs(expected[0] - expected[1]).max() > 1e-4 * largest, "the input hardly matters"
        # Random layers enlarge every rounding, as they do this disturbance of the input.
        assert_close(received, expected, max(1e-5, 2 * np.abs(other - expected).max() / largest))
    save(load(first), second, x)
    assert first.read_bytes() == second.read_bytes()
