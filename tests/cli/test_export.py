"""`numbanet export`."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.cli.conftest import run

pytest.importorskip("onnx")


def test_a_trained_network(trained, tmp_path):
    answer = run("export", trained.run, "digits.onnx")
    assert answer.code == 0 and max(map(len, answer.out.splitlines())) <= 80 + len(str(trained.run))
    assert "input (N x 1 x 32 x 32)" in answer.out and "12 of opset 18: 4 Relu, 3 Gemm" in answer.out
    from numbanet.onnx import load
    from numbanet.train.prediction import load_classifier
    model, classifier = load(tmp_path / "digits.onnx"), load_classifier(trained.run)
    assert model.numbanet_metadata()["classes"] == list(classifier.classes)
    x = np.random.default_rng(1).standard_normal((2, 1, 32, 32)).astype(np.float32)
    import numbanet
    with numbanet.no_grad():
        np.testing.assert_array_equal(model(numbanet.tensor(x)).numpy(), classifier.model(numbanet.tensor(x)).numpy())
    picture = Image.new("L", (60, 70), 255)
    ImageDraw.Draw(picture).line((35, 8, 28, 60), fill=0, width=6)
    picture.save("one.png")
    exported, native = (json.loads(run("predict", source, "one.png", "--json").out)[0]["predictions"]
                        for source in ("digits.onnx", trained.run))
    assert [p["class"] for p in exported] == [p["class"] for p in native]
    np.testing.assert_allclose([p["probability"] for p in exported], [p["probability"] for p in native], rtol=1e-5)


def test_a_name_sizes_and_json():
    answer = run("export", "lenet5", "new.onnx", "--fixed-batch", 3, "--json")
    assert answer.code == 0 and json.loads(answer.out)["inputs"] == {"input": [3, 1, 32, 32]}
    assert "new and random" in run("export", "lenet5", "new.onnx").out
    assert "input (N x 3 x 40 x 64)" in run("export", "mobilenet_v2", "new.onnx", "--input-size", "3,40,64").out


@pytest.mark.parametrize("arguments, code, message", [
    (("lenet5", "new.pt"), 2, "ends in .onnx"),
    (("lenet6", "new.onnx"), 2, "there is no model 'lenet6'; did you mean lenet5?"),
    (("lenet6.pth", "new.onnx"), 1, "lenet6.pth does not exist"),
    (("lenet5", "new.onnx", "--metadata", "names.json"), 2, "--model and --metadata belong to weights"),
    (("lenet5", "new.onnx", "--input-size", "3,big"), 2, "--input-size: expected channels, height and width"),
    (("lenet5", "new.onnx", "--fixed-batch", "0"), 2, "--fixed-batch: expected at least 1"),
    (("lenet5", "no/new.onnx", "--input-size", "1,4,4"), 1, "x expects (N, 1, 32, 32)"),
])
def test_requests_that_cannot_be_fulfilled(arguments, code, message, tmp_path):
    answer = run("export", *arguments)
    assert answer.code == code and message in answer.err
    assert list(tmp_path.iterdir()) == []
