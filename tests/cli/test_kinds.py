"""Each kind of network with the verbs of the others: an answer that says what to do instead, and what is common to all of them."""

import json

import pytest
import yaml
from PIL import Image

from numbanet.cli.tasks import TASKS
from numbanet.train.recipe import read_recipe
from tests.cli.conftest import run

SMALL = {
    "detector": ("--trunk", "resnet18", "--trunk-options", "{width: 8}", "--channels", 16, "--convolutions", 1, "--size", 64,
                 "--train-scenes", 16, "--test-scenes", 6, "--batch-size", 8),
    "segmenter": ("--model-options", "{widths: [4, 8], batch_norm: true, dropout: 0.0}", "--data-options",
                  "{count: 16, test_count: 6, size: 32}", "--batch-size", 8),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, trained):
    """Folders of a run of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    for noun, options in SMALL.items():
        answer = run("train", noun, *options, "--epochs", 1, "--out", folder / noun)
        assert answer.code == 0, answer.err
    return {"classifier": trained.run, **{noun: folder / noun for noun in SMALL}}


@pytest.fixture
def picture():
    Image.new("RGB", (50, 40), (200, 90, 30)).save("picture.png")
    return "picture.png"


OTHERS = [(verb, noun, remedy) for noun, verbs, remedy in (
    ("detector", ("predict", "explain", "segment", "heatmap", "features", "filters", "embed", "index"), "numbanet detect"),
    ("segmenter", ("predict", "explain", "heatmap"), "numbanet segment"), ("segmenter", ("detect",), "numbanet segment"),
    ("classifier", ("detect", "segment"), "numbanet predict")) for verb in verbs]


@pytest.mark.parametrize(("verb", "noun", "remedy"), OTHERS, ids=[f"{verb} {noun}" for verb, noun, _ in OTHERS])
def test_a_network_of_another_kind(verb, noun, remedy, runs, picture):
    words = {"filters": (), "embed": (picture, "--out", "v.npz"), "index": (".", "--out", "index")}.get(verb, (picture,))
    answer = run(verb, runs[noun], *words)
    assert answer.code == 1 and not answer.out and remedy in answer.err and noun in answer.err, answer


def test_a_detector_in_a_file_for_other_programs(runs, picture):
    pytest.importorskip("onnx")
    assert run("export", runs["detector"], "d.onnx").code == 0
    for verb in ("predict", "segment", "explain", "features"):
        answer = run(verb, "d.onnx", picture)
        assert answer.code == 1 and not answer.out and "a detector's, which names objects and where they are: numbanet detect" in answer.err
    answer = run("detect", "d.onnx", picture)
    assert answer.code == 1 and "expected the run or the weights that it was exported from" in answer.err


def test_all_kinds_are_listed_and_judged(runs):
    answer = run("runs", *(path for path in runs.values()))
    assert answer.code == 0 and max(map(len, answer.out.splitlines()[:4])) <= 80
    for words in ("accuracy", "mean IoU", "mean AP"):
        line, = (line for line in answer.out.splitlines() if words in line)
        assert "%" in line or words == "mean AP"
    facts = json.loads(run("runs", *runs.values(), "--json").out)
    assert [fact["task"] for fact in facts] == ["classification", "detection", "segmentation"]
    for fact, (noun, folder) in zip(facts, runs.items()):
        judged = run("val", folder, "--json")
        assert judged.code == 0, judged.err
        value = json.loads(judged.out)[{"classifier": "accuracy", "detector": "AP", "segmenter": "mean IoU"}[noun]]
        assert value == pytest.approx(fact["best"], abs=2e-5), noun
        text = run("val", folder)
        assert text.code == 0 and f"pictures: {folder}" in text.out


def test_a_detector_is_judged_in_the_words_of_its_training(tmp_path):
    trained = run("train", "detector", *SMALL["detector"], "--epochs", 1, "--out", "run")
    answer = run("val", "run")
    assert answer.out.splitlines()[0].startswith("run/weights/best.safetensors on 6 test images of scenes of digits")
    for line in answer.out.splitlines()[2:-1]:
        assert line in trained.out.splitlines()
    assert answer.out.splitlines()[1] in trained.out
    assert run("data", "scenes", "coco", "--coco", "digits", "--train", 2, "--test", 3, "--size", 64).code == 0
    before = (tmp_path / "run" / "found.png").read_bytes()
    other = json.loads(run("val", "run", "--data", "coco", "--json").out)
    assert other["images"] == 3 and other["classes"] == list("0123456789") and len(other["per_class"]) == 10
    assert (tmp_path / "run" / "found.png").read_bytes() == before
    (tmp_path / "coco" / "train.json").unlink()
    assert json.loads(run("val", "run", "--data", "coco", "--json").out) == other, "test pictures alone will do"
    stored = json.loads((tmp_path / "coco" / "val.json").read_text())
    stored["categories"][0]["name"] = "zero"
    (tmp_path / "coco" / "val.json").write_text(json.dumps(stored))
    answer = run("val", "run", "--data", "coco")
    assert answer.code == 1 and "expected the classes that" in answer.err and "zero" in answer.err


@pytest.mark.parametrize("noun", SMALL)
def test_a_recipe_in_a_file_says_its_kind(noun, tmp_path):
    shown = run("train", noun, "--epochs", 3, "--print-config")
    (tmp_path / "mine.yaml").write_text(shown.out)
    assert run("train", "--recipe", "mine.yaml", "--print-config").out == shown.out
    assert run("train", noun, "--recipe", "mine.yaml", "--print-config").out == shown.out
    changed = yaml.safe_load(run("train", "--recipe", "mine.yaml", "--lr", 0.5, "--print-config").out)
    assert changed == {**yaml.safe_load(shown.out), "lr": 0.5}
    (tmp_path / "mine.yaml").write_text("epochs: 4\n")
    assert yaml.safe_load(run("train", noun, "--recipe", "mine.yaml", "--print-config").out) == {**yaml.safe_load(shown.out), "epochs": 4}


@pytest.mark.parametrize(("arguments", "message"), [
    (("lenet5", "--scenes", "shapes"), "--scenes: is of the recipe of a detector, and a classifier is trained"),
    (("detector", "--mixup", 1), "--mixup: is of the recipe of a classifier or segmenter, and a detector is trained"),
    (("segmenter", "--trunk", "vgg16"), "--trunk: is of the recipe of a detector, and a segmenter is trained"),
    (("resnet18", "--recipe", "detector"), "MODEL: a detector has a network of its own around its trunk; name that: --trunk resnet18"),
    (("detector", "--recipe", "segmenter"), "is the recipe of a segmenter, MODEL says detector"),
    (("detectr",), "no model or recipe 'detectr'; did you mean detector?"), (("--recipe", "other.yaml"), "task expects one of"),
    (("detector", "--trunk", "resnet19"), "did you mean")])
def test_recipes_that_do_not_fit(arguments, message, tmp_path):
    (tmp_path / "other.yaml").write_text("task: translation\n")
    answer = run("train", *arguments, "--print-config")
    assert answer.code == 2 and message in answer.err and not answer.out


def test_every_recipe_of_no_single_network_is_the_name_of_a_kind():
    for task, kind in TASKS.items():
        if kind.noun != "classifier":
            assert read_recipe(kind.noun)["task"] == task and kind.training.folder_name(kind.recipe()) == kind.noun
