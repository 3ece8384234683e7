"""`numbanet convert`, and predicting with what it and others wrote."""

import json

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet.weights import load_weights, save_weights
from numbanet.zoo import create_model
from tests.cli.conftest import run


@pytest.fixture
def weights(tmp_path):
    """A PyTorch file of a network for three classes, as a wrapper names its members."""
    model = create_model("resnet20_cifar", num_classes=3)
    save_weights(tmp_path / "w.pth", {f"module.{name}": t for name, t in model.state_dict().items()})
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)).save(tmp_path / "x.png")
    return model


def assert_same(arrays: dict, state: dict) -> None:
    assert arrays.keys() == state.keys()
    for name, t in state.items():
        np.testing.assert_array_equal(arrays[name], t.numpy(), err_msg=name)


@pytest.mark.parametrize("steps", [("w.safetensors", "w.npz", "back.pt"), ("w.npz", "w.safetensors", "back.PTH")])
def test_there_and_back(steps, weights, tmp_path):
    source = "w.pth"
    for target in steps:
        answer = run("convert", source, target)
        assert answer.code == 0 and max(map(len, answer.out.splitlines())) <= 80
        source = target
    assert_same({name.removeprefix("module."): a for name, a in load_weights(steps[-1])[0].items()}, weights.state_dict())


def test_report(weights):
    lines = run("convert", "w.pth", "w.npz", "--half").out.splitlines()
    count = sum(t.numel() for t in weights.state_dict().values())
    kinds = [t.dtype.name for t in weights.state_dict().values()]
    assert [line.split()[0] for line in lines] == ["read", "wrote", "arrays", "numbers"]
    assert f"{len(kinds)} ({kinds.count('float32')} float16, {kinds.count('int64')} int64)" in lines[2] and f"{count:,}" in lines[3]


def test_half_is_for_numbers_that_fit(tmp_path):
    save_weights(tmp_path / "w.npz", {"big": np.array([1e5, np.inf], np.float32)})
    answer = run("convert", "w.npz", "half.npz", "--half")
    assert answer.code == 2 and "big has numbers beyond 65504" in answer.err and not (tmp_path / "half.npz").exists()
    save_weights(tmp_path / "w.npz", {"w": np.array([1.5, np.inf, np.nan]), "n": np.array([1 << 40])})
    assert run("convert", "w.npz", "half.npz", "--half").code == 0
    arrays, _ = load_weights("half.npz")
    assert arrays["w"].dtype == np.float16 and arrays["w"][0] == 1.5 and arrays["n"].tolist() == [1 << 40]


def test_with_a_model_the_file_is_enough_to_predict(weights):
    answer = run("convert", "w.pth", "w.safetensors", "--model", "resnet20_cifar")
    assert answer.code == 0 and "resnet20_cifar" in answer.out
    arrays, metadata = load_weights("w.safetensors")
    assert_same(arrays, weights.state_dict())
    assert metadata["model"] == "resnet20_cifar" and metadata["preprocessing"]["input_size"] == [3, 32, 32]
    predictions = [json.loads(run("predict", *arguments, "x.png", "--json").out)[0]["predictions"] for arguments in (
        ("w.safetensors",), ("w.pth", "--model", "resnet20_cifar"))]
    assert predictions[0] == predictions[1] and sorted(p["class"] for p in predictions[0]) == ["0", "1", "2"]


def test_names_of_classes_from_a_file(weights, tmp_path):
    (tmp_path / "names.json").write_text(json.dumps({"classes": ["a", "b", "c"]}))
    arguments = ("predict", "w.pth", "x.png", "--model", "resnet20_cifar", "--metadata", "names.json")
    assert sorted(p["class"] for p in json.loads(run(*arguments, "--json").out)[0]["predictions"]) == ["a", "b", "c"]
    for text, message in (('{"classes": ["a"]}', "num_classes=3, this one has 1"), ('{"classes": 3}', "expects a list of names"),
                          ("[", "is not JSON")):
        (tmp_path / "names.json").write_text(text)
        answer = run(*arguments)
        assert answer.code == 1 and message in answer.err


@pytest.mark.parametrize("arguments, message", [
    (("w.pth", "w.bin"), "OUT: expected a name that ends in .safetensors"), (("absent.pth", "w.npz"), "absent.pth does not exist"),
    (("w.pth", "w.npz", "--model", "lenet5"), "does not fit"), (("w.pth", "w.npz", "--model", "lenet9"), "did you mean lenet5"),
    (("x.png", "w.npz"), "neither safetensors nor .npz")])
def test_what_cannot_be_converted(arguments, message, weights, tmp_path):
    answer = run("convert", *arguments)
    assert answer.code in (1, 2) and message in answer.err and not answer.out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.pth", "x.png"]


def test_long_paths_keep_to_the_width(tmp_path):
    folder = tmp_path / ("deep" * 20)
    folder.mkdir()
    save_weights(folder / "w.npz", {"w": numbanet.ones(2)})
    answer = run("convert", folder / "w.npz", folder / "w.safetensors")
    assert answer.code == 0 and max(map(len, answer.out.splitlines())) <= 80
