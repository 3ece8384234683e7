"""`numbanet predict` on drawings, photographs, files of every kind, and with weights that do not fit."""

import io
import json
import os
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageFilter

import numbanet
from numbanet.data.datasets import MNISTSample
from numbanet.weights import load_weights, save_weights
from numbanet.zoo import create_model
from tests.cli.conftest import run
from tests.cli.drawings import draw_digit


def predicted(*arguments) -> list:
    answer = run("predict", *arguments, "--json")
    assert answer.code == 0, answer.err
    return [result["predictions"] for result in json.loads(answer.out)]


def classes(*arguments) -> list[str]:
    return [predictions[0]["class"] for predictions in predicted(*arguments)]


def photograph(digit: int) -> Image.Image:
    """Blue ink on shaded paper, unsharp and noisy, with a wide margin at one side."""
    ink = np.asarray(draw_digit(digit, size=(320, 240), corner=(200, 60), scale=3.5, width=13).filter(ImageFilter.GaussianBlur(1.5)), float)
    paper = 150 + 60 * np.linspace(0, 1, 320)[None, :, None] + np.random.default_rng(digit).normal(0, 4, (240, 320, 1))
    colour = np.array([40, 50, 120])
    share = ink[:, :, None] / 255
    return Image.fromarray(np.clip(paper * share + colour * (1 - share), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("draw", [
    draw_digit, photograph,
    lambda d: draw_digit(d, size=(120, 300), corner=(20, 90), scale=3, width=8),
    lambda d: draw_digit(d, size=(500, 400), corner=(300, 40), scale=6, width=30, ink=230, paper=20)],
    ids=["black on white", "photograph", "small", "white on black"])
def test_drawn_digits(draw, trained, tmp_path):
    for digit in range(10):
        draw(digit).save(tmp_path / f"{digit}.png")
    assert classes(trained.run, tmp_path) == list("0123456789")


def test_text_and_json(trained):
    files = [trained.run / "samples" / name for name in sorted(os.listdir(trained.run / "samples"))]
    answer = run("predict", trained.run, *files[:2], "--top", "2")
    first, second = answer.out.splitlines()
    assert first.startswith(str(files[0])) and first.split()[-4] == "0" and first.count("%") == 2
    results = json.loads(run("predict", trained.run, files[0], "--json").out)
    assert results[0]["image"] == str(files[0]) and len(results[0]["predictions"]) == 3
    probabilities = [p["probability"] for p in predicted(trained.run, files[0], "--top", "99")[0]]
    assert len(probabilities) == 10 and abs(sum(probabilities) - 1) < 1e-5
    assert probabilities == sorted(probabilities, reverse=True)


def test_raw_is_what_the_network_was_trained_on(trained, tmp_path):
    digit = MNISTSample(False).data[3]
    Image.fromarray(digit).save(tmp_path / "digit.png")
    model = create_model("lenet5").eval()
    model.load_state_dict(load_weights(trained.run / "weights" / "best.safetensors")[0])
    x = (np.pad(digit, 2)[None, None].astype(np.float32) / 255 - 0.1307) / 0.3081
    probabilities = numbanet.softmax(model(numbanet.tensor(x.astype(np.float32))), 1).detach().numpy()[0]
    raw = {p["class"]: p["probability"] for p in predicted(trained.run, "digit.png", "--raw", "--top", "10")[0]}
    np.testing.assert_allclose([raw[str(i)] for i in range(10)], probabilities, atol=1e-4)
    Image.fromarray(255 - digit).save(tmp_path / "inverse.png")
    assert predicted(trained.run, "inverse.png", "--raw") != predicted(trained.run, "inverse.png")
    assert classes(trained.run, "inverse.png") == classes(trained.run, "digit.png", "--raw")


def test_standard_input(trained, monkeypatch):
    file = io.BytesIO()
    draw_digit(7).save(file, "PNG")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(file.getvalue())))
    assert classes(trained.run, "-") == ["7"]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"no picture")))
    answer = run("predict", trained.run, "-")
    assert answer.code == 1 and "standard input: not an image" in answer.err


def test_weights_alone_are_enough(trained, tmp_path):
    for name in ("best", "last"):
        shutil.copy(trained.run / "weights" / f"{name}.safetensors", tmp_path)
        draw_digit(4).save("four.png")
        assert classes(tmp_path / f"{name}.safetensors", "four.png") == ["4"]


def test_the_reference_backend_agrees(trained):
    sample = next((trained.run / "samples").iterdir())
    ours, theirs = (predicted(trained.run, sample, "--device", device)[0] for device in ("cpu", "reference"))
    assert [p["class"] for p in ours] == [p["class"] for p in theirs]
    np.testing.assert_allclose([p["probability"] for p in ours], [p["probability"] for p in theirs], atol=1e-4)


def test_bad_pictures_are_named_and_good_ones_answered(trained, tmp_path):
    draw_digit(3).save("good.png")
    Image.new("L", (100, 100), 255).save("blank.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("lorem ipsum")
    (tmp_path / "empty").mkdir()
    answer = run("predict", trained.run, "blank.png", "cut.png", "text.png", "empty", "absent.png", "good.png", "--json")
    assert answer.code == 1
    assert [r["image"] for r in json.loads(answer.out)] == ["good.png"]
    for name, message in (("blank.png", "without clear ink"), ("cut.png", "broken or truncated"), ("text.png", "not an image"),
                          ("empty", "has no images"), ("absent.png", "the file is missing")):
        line, = [line for line in answer.err.splitlines() if line.startswith(f"numbanet predict: {name}: ")]
        assert message in line


# Weights that do not fit

def damaged(change):
    def make(trained, path):
        arrays, metadata = load_weights(trained.run / "weights" / "best.safetensors")
        change(arrays, metadata)
        save_weights(path, arrays, metadata)
    return make


def other_model(arrays, _metadata):
    arrays.pop("features.c1.bias")
    arrays["conv1.bias"] = np.zeros(6, np.float32)


WEIGHTS = {
    "missing": (lambda t, p: None, "w.safetensors does not exist; expected a run folder or a file of weights"),
    "truncated": (lambda t, p: p.write_bytes((t.run / "weights" / "best.safetensors").read_bytes()[:-100]), "not a whole safetensors file"),
    "not weights": (lambda t, p: p.write_text("weights of a network"), "neither safetensors nor .npz"),
    "without metadata": (lambda t, p: save_weights(p, {"w": np.zeros(2)}), "do not say of which model they are; name it with --model"),
    "other arrays": (damaged(other_model), "missing features.c1.bias"),
    "other shapes": (damaged(lambda a, m: a.update({"features.c1.weight": np.zeros((6, 3, 5, 5), np.float32)})), "features.c1.weight"),
    "unknown model": (damaged(lambda a, m: m.update(model="lenet9")), "no model 'lenet9'; did you mean lenet5?"),
    "other classes": (damaged(lambda a, m: m.update(classes=["a", "b"])), "contradict themselves"),
    "other channels": (damaged(lambda a, m: m.update(in_chans=3)), "contradict themselves"),
    "bad preprocessing": (damaged(lambda a, m: m["preprocessing"].pop("mean")), "preprocessing stored with the weights is damaged"),
    "odd preprocessing": (damaged(lambda a, m: m["preprocessing"].update(input_size=[1, 32])), "the weights is damaged"),
}


@pytest.mark.parametrize(("make", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_do_not_fit(make, message, trained, tmp_path):
    make(trained, tmp_path / "w.safetensors")
    answer = run("predict", "w.safetensors", trained.run / "samples")
    assert answer.code in (1, 2) and message in answer.err and not answer.out


def test_a_run_that_is_misspelt(trained, tmp_path):
    Image.new("L", (20, 20)).save(tmp_path / "x.png")
    answer = run("predict", trained.run.with_name("lenet5-7"), "x.png")
    assert answer.code == 1 and f"lenet5-7 does not exist, did you mean {trained.run}?" in answer.err


def test_a_run_that_has_no_weights_yet(tmp_path):
    answer = run("predict", tmp_path, "x.png")
    assert answer.code == 1 and "has no weights yet" in answer.err
