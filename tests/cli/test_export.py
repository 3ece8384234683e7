"""`numbanet export`."""

import json
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

import numbanet
from tests.cli.conftest import run


@pytest.fixture
def onnx():
    pytest.importorskip("onnx")


def test_a_trained_network(onnx, trained, tmp_path):
    answer = run("export", trained.run, "digits.onnx")
    assert answer.code == 0 and max(map(len, answer.out.splitlines())) <= 80 + len(str(trained.run))
    assert "input (N x 1 x 32 x 32)" in answer.out and "12 of opset 18: 4 Relu, 3 Gemm" in answer.out
    from numbanet.onnx import load
    from numbanet.train.prediction import load_classifier
    model, classifier = load(tmp_path / "digits.onnx"), load_classifier(trained.run)
    assert model.numbanet_metadata()["classes"] == list(classifier.classes)
    x = np.random.default_rng(1).standard_normal((2, 1, 32, 32)).astype(np.float32)
    with numbanet.no_grad():
        np.testing.assert_array_equal(model(numbanet.tensor(x)).numpy(), classifier.model(numbanet.tensor(x)).numpy())
    picture = Image.new("L", (60, 70), 255)
    ImageDraw.Draw(picture).line((35, 8, 28, 60), fill=0, width=6)
    picture.save("one.png")
    exported, native = (json.loads(run("predict", source, "one.png", "--json").out)[0]["predictions"]
                        for source in ("digits.onnx", trained.run))
    assert [p["class"] for p in exported] == [p["class"] for p in native]
    np.testing.assert_allclose([p["probability"] for p in exported], [p["probability"] for p in native], rtol=1e-5)


def test_weights(trained, tmp_path):
    """What is read again is the network, with its classes and preprocessing."""
    answer = run("export", trained.run, "--safetensors", "digits.safetensors")
    assert answer.code == 0 and "61,706 numbers" in answer.out and "classes, preprocessing" in answer.out
    from numbanet.train.prediction import load_classifier
    again, classifier = load_classifier(tmp_path / "digits.safetensors"), load_classifier(trained.run)
    assert (again.classes, again.preprocessing, again.metadata) == (classifier.classes, classifier.preprocessing, classifier.metadata)
    for (name, a), (other, b) in zip(again.model.state_dict().items(), classifier.model.state_dict().items(), strict=True):
        assert name == other and np.array_equal(a.numpy(), b.numpy())
    safetensors = pytest.importorskip("safetensors.numpy")
    assert set(safetensors.load_file("digits.safetensors")) == set(classifier.model.state_dict())


def test_weights_need_no_onnx(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert run("export", trained.run, "digits.safetensors").code == 0


def test_options_of_the_model_are_stored(tmp_path):
    """A network that was made with options is made so again."""
    model = numbanet.create_model("mobilenet_v2", num_classes=3, width_mult=0.5)
    metadata = {"model": "mobilenet_v2", "num_classes": 3, "in_chans": 3, "model_options": {"width_mult": 0.5}}
    numbanet.save_weights("half.safetensors", model.state_dict(), metadata)
    assert run("export", "half.safetensors", "again.safetensors").code == 0
    again, stored = numbanet.load_weights("again.safetensors")
    assert stored["model_options"] == {"width_mult": 0.5} and again["classifier.1.weight"].shape == model.classifier[1].weight.shape
    numbanet.save_weights("half.safetensors", model.state_dict(), metadata | {"model_options": {"width": 0.5}})
    answer = run("export", "half.safetensors", "other.safetensors")
    assert answer.code == 1 and "{'width': 0.5}, are none of mobilenet_v2" in answer.err and not (tmp_path / "other.safetensors").exists()
    numbanet.save_weights("half.safetensors", model.state_dict(), metadata | {"model_options": [1]})
    assert run("export", "half.safetensors", "other.safetensors").code == 1


def test_both_at_once(onnx, trained, tmp_path):
    answer = run("export", trained.run, "digits.onnx", "--safetensors", "digits.safetensors", "--json")
    facts = json.loads(answer.out)
    assert facts["path"] == "digits.onnx" and facts["safetensors"]["path"] == "digits.safetensors"
    assert facts["safetensors"]["bytes"] == (tmp_path / "digits.safetensors").stat().st_size
    assert run("predict", "digits.onnx", "digits.onnx").code == 1       # no image: the model was read


def test_a_name_sizes_and_json(onnx):
    answer = run("export", "lenet5", "new.onnx", "--fixed-batch", 3, "--json")
    assert answer.code == 0 and json.loads(answer.out)["inputs"] == {"input": [3, 1, 32, 32]}
    assert "new and random" in run("export", "lenet5", "new.onnx").out
    assert "input (N x 3 x 40 x 64)" in run("export", "mobilenet_v2", "new.onnx", "--input-size", "3,40,64").out


@pytest.mark.parametrize("arguments, code, message", [
    (("lenet5", "new.pt"), 2, "ends in .onnx or .safetensors"),
    (("lenet5",), 2, "--onnx FILE or --safetensors FILE"),
    (("lenet5", "--onnx", "new.safetensors"), 2, "--onnx: expected a name that ends in .onnx"),
    (("lenet5", "new.onnx", "--onnx", "other.onnx"), 2, "one file of onnx, received new.onnx and --onnx other.onnx"),
    (("lenet5", "new.safetensors", "--fixed-batch", "2"), 2, "--fixed-batch: weights are of any size"),
    (("lenet6", "new.onnx"), 2, "there is no model 'lenet6'; did you mean lenet5?"),
    (("lenet6.pth", "new.onnx"), 1, "lenet6.pth does not exist"),
    (("lenet5", "new.onnx", "--metadata", "names.json"), 2, "--model and --metadata belong to weights"),
    (("lenet5", "new.onnx", "--input-size", "3,big"), 2, "--input-size: expected channels, height and width"),
    (("lenet5", "new.onnx", "--fixed-batch", "0"), 2, "--fixed-batch: expected at least 1"),
    (("lenet5", "no/new.onnx", "--input-size", "1,4,4"), 1, "x expects (N, 1, 32, 32)"),
])
def test_requests_that_cannot_be_fulfilled(onnx, arguments, code, message, tmp_path):
    answer = run("export", *arguments)
    assert answer.code == code and message in answer.err
    assert list(tmp_path.iterdir()) == []
