"""`numbanet filters`, `features`, `receptive-field`, `explain`, `convolve` on a trained network, and what they refuse."""

import json

import numpy as np
import pytest
from PIL import Image

from numbanet.cli.explain import METHODS
from numbanet.vision import METHODS as LIBRARY_METHODS
from tests.cli.conftest import run
from tests.cli.drawings import draw_digit


@pytest.fixture
def digit(tmp_path):
    draw_digit(3).save("three.png")
    return "three.png"


def looked(*arguments) -> dict:
    """The answer of a command as JSON; its picture is there, and 1,200 pixels wide."""
    answer = run(*arguments, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    with Image.open(found["path"]) as image:
        assert image.format == "PNG" and image.size[0] == 1200 and 200 < image.size[1] < 4000
    return found


def test_every_verb(trained, digit):
    assert looked("filters", trained.run)["layer"] == "features.c1"
    assert looked("filters", trained.run, "--layer", "features.c3", "--out", "c3.png")["shape"] == [16, 6, 5, 5]
    layers = looked("features", trained.run, digit)["layers"]
    assert [layer["layer"] for layer in layers][:2] == ["features.c1", "features.relu1"] and len(layers[0]["maps"]) == 6
    maps = layers[1]["maps"]
    strengths = [m["maximum"] - m["mean"] for m in maps]
    assert sorted(m["index"] for m in maps) == list(range(6)) and strengths == sorted(strengths, reverse=True)
    assert all(0 <= m["minimum"] < m["mean"] < m["maximum"] for m in maps)
    output, = looked("features", trained.run, digit, "--layer", "classifier.output")["layers"]
    assert output["units"][0]["index"] == 3
    field = looked("receptive-field", trained.run, digit, "--layer", "features.s4", "--unit", "1,2")
    assert field["field"] == [16, 16] and field["box"] == [4, 8, 20, 24] and [s["field"] for s in field["steps"]] == [5, 6, 14, 16]
    assert looked("convolve", digit, "--filter", "sobel")["results"][0]["mode"] == "correlation"


@pytest.mark.parametrize("method", LIBRARY_METHODS)
def test_explain(method, trained, digit):
    found = looked("explain", trained.run, digit, "--method", method)
    assert found["class"] == "3" and found["probability"] > 0.5 and (found["layer"] is not None) == method.startswith("gradcam")
    other = looked("explain", trained.run, digit, "--method", method, "--class", "8")
    assert other["class"] == "8" and other["number"] == 8 and other["probability"] < 0.5


def test_methods_are_the_librarys():
    assert METHODS == (*LIBRARY_METHODS, "maximise")


def test_maximise(trained):
    found = looked("explain", trained.run, "--method", "maximise", "--class", "3")
    assert found["last"] > found["first"] + 5
    assert looked("explain", trained.run, "--method", "maximise", "--layer", "features.relu3", "--unit", "5")["unit"] == 5


def test_text_and_files(trained, digit, tmp_path):
    """Short lines, and no picture is ever overwritten unless --out names it."""
    first, second = run("explain", trained.run, digit), run("explain", trained.run, digit)
    assert "gradcam: 3," in first.out and "wrote LeNet5-gradcam.png" in first.out and "wrote LeNet5-gradcam-2.png" in second.out
    assert (tmp_path / "LeNet5-gradcam.png").read_bytes() == (tmp_path / "LeNet5-gradcam-2.png").read_bytes()
    for arguments in (("receptive-field", trained.run, digit, "--layer", "features.c3"), ("features", trained.run, digit),
                      ("convolve", "--list")):
        assert max(map(len, run(*arguments).out.splitlines())) <= 80
    assert "laplacian" in run("convolve", "--list").out


def test_a_model_by_name(digit):
    answer = run("filters", "lenet5", "--out", "f.png")
    assert answer.code == 0 and "lenet5 has new random weights" in answer.err


def test_the_classical_filters(tmp_path):
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:, 30:] = 255
    Image.fromarray(pixels).save("step.png")
    correlation, convolution = looked("convolve", "step.png", "--filter", "-1 0 1; -1 0 1; -1 0 1", "--padding", "0")["results"]
    assert (correlation["minimum"], correlation["maximum"]) == (0, 765) and (convolution["minimum"], convolution["maximum"]) == (-765, 0)
    assert correlation["shape"] == [1, 38, 58]
    assert looked("convolve", "step.png", "--filter", "1", "--stride", "2", "--device", "reference")["results"][0]["shape"] == [1, 20, 30]


@pytest.mark.parametrize(("arguments", "message"), [
    (["filters", "RUN", "--layer", "features.c2"], "layer 'features.c2' does not exist in LeNet5; did you mean features."),
    (["filters", "RUN", "--layer", "classifier"], "is a Sequential, which has no kernels of its own"),
    (["filters", "lenet55"], "did you mean lenet5?"),
    (["filters", "zzz"], "'zzz' is no file and no name of a model; 'numbanet models' lists the names"),
    (["convolve", "three.png", "--filter", "box", "--out", "./three.png"], "--out: ./three.png is what this command reads"),
    (["filters", "RUN", "--out", "f.jpg"], "--out: expected a name that ends in .png, received f.jpg"),
    (["features", "RUN", "three.png", "--layer", "relu1"], "did you mean features.relu1"),
    (["receptive-field", "RUN", "three.png", "--layer", "classifier.f6"], "has no positions"),
    (["receptive-field", "RUN", "three.png", "--layer", "features.c1", "--unit", "28,0"], "from 0,0 to 27,27, received 28,0"),
    (["receptive-field", "RUN", "three.png", "--layer", "features.c1", "--unit", "3"], "a row and a column such as 3,5, received '3'"),
    (["receptive-field", "RUN", "three.png"], "the following arguments are required: --layer"),
    (["explain", "RUN", "three.png", "--method", "grad-cam"], "received 'grad-cam'; did you mean gradcam?"),
    (["explain", "RUN", "three.png", "--class", "ten"], "a number from 0 to 9 or a name, received 'ten'"),
    (["explain", "RUN", "three.png", "--class", "10"], "a number from 0 to 9 or a name, received '10'"),
    (["explain", "RUN", "three.png", "--layer", "classifier.c5"], "a target layer expects maps"),
    (["explain", "RUN", "three.png", "--layer", "features.c1", "--method", "saliency"], "saliency explains by the pixels"),
    (["explain", "RUN"], "expected an image"),
    (["explain", "RUN", "--method", "maximise"], "either --class C, or --layer L and --unit K"),
    (["explain", "RUN", "three.png", "--method", "maximise", "--class", "1"], "leave IMAGE out"),
    (["convolve", "three.png"], "expected an image and a filter"),
    (["convolve", "three.png", "--filter", "1 2; 3"], "rows of one length"),
    (["convolve", "three.png", "--filter", "shapren"], "did you mean sharpen?"),
    (["convolve", "three.png", "--filter", "box", "--stride", "0"], "--stride: expected 1 to 2048, received 0"),
    (["explore", "lenet6"], "did you mean lenet5?"),
    (["explore", "--port", "70000"], "--port: expected 0 to 65535, received 70000")])
def test_mistakes(arguments, message, trained, digit):
    if arguments[0] == "explore":
        pytest.importorskip("starlette")
    answer = run(*(trained.run if a == "RUN" else a for a in arguments))
    assert answer.code in (1, 2) and not answer.out and message in answer.err.replace("\n", " ")


def test_bad_pictures(trained, tmp_path):
    (tmp_path / "text.png").write_text("lorem ipsum")
    Image.new("L", (30_000, 3_000)).save("huge.png")
    for verb in (("features", trained.run), ("explain", trained.run), ("convolve",)):
        more = ("--filter", "box") if verb[0] == "convolve" else ()
        for name, message in (("text.png", "not an image"), ("huge.png", "more than the"), ("absent.png", "the file is missing")):
            answer = run(*verb, name, *more)
            assert answer.code == 1 and message in answer.err
    assert not [p for p in tmp_path.iterdir() if p.name not in ("text.png", "huge.png")], "nothing was written"


@pytest.fixture
def sheet():
    """A wide sheet with a 3 at its left and a 7 at its right, of the height that windows are made for at --side 64."""
    paper = draw_digit(3, size=(400, 200), corner=(70, 70), scale=2.0, width=7)
    seven = draw_digit(7, size=(400, 200), corner=(290, 70), scale=2.0, width=7)
    paper.paste(seven.crop((200, 0, 400, 200)), (200, 0))
    paper.save("sheet.png")
    return "sheet.png"


def test_heatmap(trained, sheet):
    """Where each of the digits is, in the picture's own pixels."""
    for category, middle in (("3", 90), ("7", 310)):
        found = looked("heatmap", trained.run, sheet, "--class", category, "--side", 64)
        assert (found["class"], found["number"]) == (category, int(category)) and found["size"] == [64, 128]
        assert found["window"] == [32, 32] and np.shape(found["map"]) == (9, 25) and found["stride"] == 4
        left, top, right, bottom = found["found"][0]["box"]
        assert left < middle < right and abs((left + right) / 2 - middle) < 45 and top < 100 < bottom
        assert right - left == pytest.approx(100, abs=0.2)
        assert found["found"][0]["probability"] == pytest.approx(np.max(found["map"]), abs=1e-5)
    answer = run("heatmap", trained.run, sheet, "--class", "3", "-o", "h.png")
    assert answer.code == 0 and "3, 9 x 25 windows" in answer.out and "wrote h.png" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80


@pytest.mark.parametrize("arguments, message", [
    (("--side", "0"), "--side: expected at least 1 pixel, received 0"), (("--side", "31"), "expected at least 32, so that a window"),
    (("--side", "5000"), "would become 10000 x 5000; expected at most 4096"), (("--class", "x"), "--class: expected a number from 0 to 9"),
    (("--out", "x.jpg"), "--out: expected a name that ends in .png")])
def test_heatmaps_that_cannot_be(arguments, message, trained, sheet):
    answer = run("heatmap", trained.run, sheet, *arguments)
    assert answer.code == 2 and message in answer.err and not answer.out
