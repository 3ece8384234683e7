"""`numbanet train detector` and `numbanet detect`: a run, going on to the same bits, data of one's own, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from numbanet.data.datasets import DigitScenes
from numbanet.detection import write_coco
from numbanet.train.trainer import Trainer
from numbanet.weights import load_weights, save_weights
from tests.cli.conftest import last_command, run
from tests.cli.test_train import header_of_a_huge_png

SMALL = ("--trunk", "resnet18", "--trunk-options", "{width: 8}", "--channels", 16, "--convolutions", 1, "--size", 64, "--batch-size", 8,
         "--train-scenes", 24, "--test-scenes", 6, "--epochs", 2)


def weights(folder):
    return {k: v.tobytes() for k, v in load_weights(f"{folder}/weights/last.safetensors")[0].items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two epochs, and what it printed."""
    folder = tmp_path_factory.mktemp("detector") / "whole"
    answer = run("train", "detector", *SMALL, "--out", folder)
    assert answer.code == 0, answer.err
    return folder, answer.out


def test_a_run_and_what_it_leaves(whole):
    folder, out = whole
    for name in ("config.yaml", "metrics.csv", "curves.png", "found.png", "report.html", "layers.png", "filters.png",
                 "weights/best.safetensors", "samples/005.png"):
        assert (folder / name).is_file(), name
    assert "mean average precision" in out and "epoch 2/2  loss" in out and "scenes of digits from the MNIST sample" in out
    assert max(map(len, (line for line in out.replace(str(folder), "runs/detector-1").splitlines() if not line.startswith("epoch")))) <= 80
    answer = run(*last_command(out)[:-1], "found")
    assert answer.code == 0 and "wrote found" in answer.out
    runs = run("runs", folder)
    assert runs.code == 0 and "detector" in runs.out


def test_going_on_gives_the_same_bits(whole, tmp_path, monkeypatch):
    updates = Trainer._update

    def stop_after_four(trainer):
        updates(trainer)
        trainer.interrupted = trainer.progress.step == 4            # in the middle of the second epoch
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", stop_after_four)
        answer = run("train", "detector", *SMALL, "--out", "stopped")
    assert answer.code == 1 and "stopped at epoch 2, step 4" in answer.out
    assert last_command(answer.out) == ["train", "--resume", "stopped"]
    wrong = run("train", "segmenter", "--resume", "stopped")
    assert wrong.code == 2 and "is not the run of a segmenter, but of a detector; leave out segmenter" in wrong.err
    wrong = run("train", "--resume", "stopped", "--scenes", "shapes")
    assert wrong.code == 2 and "leave out --scenes" in wrong.err
    assert run(*last_command(answer.out)).code == 0
    same = weights("stopped") == weights(whole[0])         # a difference of lists of bytes would take minutes to print
    assert same


def test_detecting(whole, tmp_path):
    folder, _ = whole
    picture = folder / "samples" / "000.png"
    answer = run("detect", folder, picture, "--threshold", 0, "--json")
    (found,) = json.loads(answer.out)
    assert found["image"] == str(picture) and len(found["objects"]) == 100
    assert all(o["class"] in "0123456789" and len(o["box"]) == 4 and 0 <= o["box"][0] <= o["box"][2] <= 64 for o in found["objects"])
    answer = run("detect", folder / "weights" / "last.safetensors", picture, "-o", "one.png", "--threshold", 1)
    assert answer.code == 0 and "no objects" in answer.out and Image.open("one.png").size == (512, 512)
    (tmp_path / "a").mkdir()
    for name in ("a/x.png", "x.png"):
        Image.open(picture).save(tmp_path / name)
    answer = run("detect", folder, "a/x.png", "x.png", "--out", "drawn")
    assert answer.code == 0 and {p.name for p in (tmp_path / "drawn").iterdir()} == {"x.png", "x-2.png"}


def test_pictures_that_cannot_be_read_do_not_stop_the_others(whole, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    (tmp_path / "huge.png").write_bytes(header_of_a_huge_png())
    answer = run("detect", whole[0], "broken.png", "missing.png", "huge.png", whole[0] / "samples" / "000.png")
    assert "huge.png: " in answer.err and "pixels that an image may have" in answer.err
    assert answer.code == 1 and "broken.png: not an image" in answer.err and "missing.png: the file is missing" in answer.err
    assert "000.png: " in answer.out


def test_a_classifier_is_told_apart(trained, whole):
    answer = run("detect", trained.run, trained.run / "samples")
    assert answer.code == 1 and "those of a classifier (lenet5), which finds no boxes; 'numbanet predict' names what is" in answer.err
    answer = run("predict", whole[0], whole[0] / "samples")
    assert answer.code == 1 and "the weights are those of a detector" in answer.err and "numbanet detect" in answer.err
    answer = run("train", "detector", "--resume", trained.run)
    assert answer.code == 2 and "is not the run of a detector, but of a classifier" in answer.err


def test_weights_that_contradict_themselves(whole):
    arrays, stored = load_weights(whole[0] / "weights" / "best.safetensors")
    for change, message in (({"classes": []}, "classes expects a list of names"), ({"trunk": "resnet999"}, "no detector can be made"),
                            ({"strides": [3]}, "no detector can be made"), ({"trunk_options": {"depth": 3}}, "no detector can be made"),
                            ({"fitting": 3}, "do not say how pictures"), ({"channels": 17}, "")):
        save_weights("changed.safetensors", arrays, {**stored, **change})
        answer = run("detect", "changed.safetensors", whole[0] / "samples")
        assert answer.code == 1 and message in answer.err, change


@pytest.mark.parametrize(("arguments", "message"), [
    (("--threshold", 2), "--threshold: expected a number from 0 to 1"), (("--out", "x.jpg"), "--out: expected a name that ends in .png")])
def test_detect_usage(whole, arguments, message):
    answer = run("detect", whole[0], whole[0] / "samples", *arguments)
    assert answer.code == 2 and message in answer.err


def test_making_up_coco(tmp_path):
    answer = run("data", "scenes", "made", "--coco", "shapes", "--train", 3, "--test", 2, "--size", 64, "--classes", "ring,star")
    assert answer.code == 0 and last_command(answer.out)[:3] == ["train", "detector", "--data"]
    stored = json.loads((tmp_path / "made" / "val.json").read_text())
    assert len(stored["images"]) == 2 and [c["name"] for c in stored["categories"]] == ["ring", "star"] and stored["annotations"]
    for options, message in ((("--coco", "digits", "--classes", "ring"), "--classes: are those of shapes"),
                             (("--digits", "x"), "--digits: belongs to --coco digits"), (("--coco", "shapes"), "made: exists already")):
        answer = run("data", "scenes", "made" if "shapes" in options else "other", *options)
        assert answer.code == 2 and message in answer.err


def test_training_on_coco(tmp_path):
    scenes = DigitScenes(10, (50, 64), objects=(0, 3))
    for split in ("train", "val"):
        write_coco(tmp_path / "own", split, (scenes[i] for i in range(10)), scenes.classes)
    answer = run("train", "detector", *SMALL, "--data", "own", "--flip", 0.5, "--zoom", "[0.8, 1.2]", "--epochs", 1, "--out", "r")
    assert answer.code == 0 and "own (COCO)\n      10 pictures with" in answer.out
    stored = json.loads((tmp_path / "own" / "train.json").read_text())
    stored["annotations"][0]["bbox"][2] = -5
    (tmp_path / "own" / "train.json").write_text(json.dumps(stored))
    answer = run("train", "detector", *SMALL, "--data", "own", "--out", "s")
    assert answer.code == 1 and "annotation 1: bbox" in answer.err and "is empty" in answer.err and not (tmp_path / "s").exists()


def write_own(folder, count=10):
    """Scenes with COCO's annotations; returns what changes the annotations of a split."""
    scenes = DigitScenes(count, (50, 64), objects=(1, 3))
    for split in ("train", "val"):
        write_coco(folder, split, (scenes[i] for i in range(count)), scenes.classes)

    def change(split, function):
        stored = json.loads((folder / f"{split}.json").read_text())
        function(stored)
        (folder / f"{split}.json").write_text(json.dumps(stored))
    return change


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_that_cannot_be_used_are_told_before_training(split, tmp_path, caplog):
    """Each is named; none is left out unless that is asked for, and then it is told."""
    write_own(tmp_path / "own")
    (tmp_path / "own" / split / "000001.png").write_bytes(b"lorem ipsum")
    Image.new("RGB", (9, 9)).save(tmp_path / "own" / split / "000002.png")
    options = (*SMALL, "--data", "own", "--epochs", 1, "--batch-size", 5, "--out", "r")
    answer = run("train", "detector", *options)
    assert answer.code == 1 and "2 of 20 images cannot be used" in answer.err and "--on-error skip" in answer.err
    assert "000001.png: not an image" in answer.err and "000002.png: " in answer.err and "the image has 9 x 9" in answer.err
    assert not (tmp_path / "r").exists() and not answer.out
    answer = run("train", "detector", *options, "--on-error", "skip")
    assert answer.code == 0 and "2 of 20 images cannot be used and are left out" in caplog.text
    assert json.loads(run("val", "r", "--json").out)["images"] == (8 if split == "val" else 10)
    assert "Pictures that were left out: 2" in (tmp_path / "r" / "report.html").read_text()


def test_an_image_that_is_broken_within_stops_the_run_or_is_left_out(tmp_path):
    """Its header is whole: training meets it, and says how to go on; what cannot begin leaves no folder."""
    write_own(tmp_path / "own")
    path = tmp_path / "own" / "train" / "000003.png"
    path.write_bytes(path.read_bytes()[:400])
    options = (*SMALL, "--data", "own", "--epochs", 1, "--batch-size", 5)
    answer = run("train", "detector", *options, "--out", "r")
    assert answer.code == 1 and "000003.png: the image is broken or truncated" in answer.err and "stopped at epoch 1" in answer.err
    assert last_command(answer.err) == ["train", "--resume", "r", "--on-error", "skip"]
    answer = run(*last_command(answer.err))
    assert answer.code == 0 and "mean average precision" in answer.out
    first = tmp_path / "own" / "val" / "000001.png"
    first.write_bytes(first.read_bytes()[:400])
    answer = run("train", "detector", *options, "--out", "s")
    assert answer.code == 1 and "val/000001.png: the image is broken" in answer.err and not (tmp_path / "s").exists()


def test_data_without_objects(tmp_path):
    """Pictures without any are welcome among others, and no use alone."""
    change = write_own(tmp_path / "own")
    change("train", lambda stored: stored.update(annotations=stored["annotations"][:2]))
    assert run("train", "detector", *SMALL, "--data", "own", "--epochs", 1, "--out", "r").code == 0
    for split, words in (("val", "objects to judge by"), ("train", "objects to learn")):
        change(split, lambda stored: stored.update(annotations=[]))
        answer = run("train", "detector", *SMALL, "--data", "own", "--out", "s")
        assert answer.code == 1 and f"{split}.json: expected {words}, received none on its 10 pictures" in answer.err
        assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("size", "mode"), [((1, 1), "RGB"), ((3000, 2), "RGB"), ((2, 700), "L"), ((50, 60), "RGBA"),
                                            ((50, 60), "I;16")], ids=str)
def test_pictures_of_every_kind(size, mode, whole):
    """Boxes lie on the picture, whatever its proportions and colours are."""
    Image.new(mode, size, 3).save("p.png")
    answer = run("detect", whole[0], "p.png", "--threshold", 0, "--json")
    assert answer.code == 0, answer.err
    (found,) = json.loads(answer.out)
    for one in found["objects"]:
        left, top, right, bottom = one["box"]
        assert 0 <= left <= right <= size[0] and 0 <= top <= bottom <= size[1]
    assert run("detect", whole[0], "p.png", "--threshold", 0, "-o", "drawn.png").code == 0 and Image.open("drawn.png").mode == "RGB"


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (("--data", "nowhere"), 1, "is no folder"), (("--data", "."), 1, "expected COCO's annotations train.json"),
    (("--trunk", "resnet19"), 2, "did you mean"),
    (("--trunk-options", "{depth: 3}"), 2, "--trunk-options: resnet18 cannot be made of"),
    (("--zoom", "[2, 1]"), 2, "--zoom: expected two scales"),
    (("--strides", "[8, 9]"), 2, "strides expects numbers that double"), (("--size", 8), 2, "--size: expected at least 32"),
    (("--strides", "8"), 2, "--strides: expected a list"), (("--lr", 0), 2, "--lr: expected a number above 0"),
    (("--epoch", 3), 2, "did you mean --epochs?")])
def test_what_cannot_be_trained(arguments, code, message):
    answer = run("train", "detector", *SMALL, *arguments)
    assert answer.code == code and message in answer.err, answer


def test_help(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    answer = run("train", "detector", "--help")
    assert answer.code == 0 and "numbanet train detector" in answer.out and max(map(len, answer.out.splitlines())) <= 80
    assert "scenes: digits" in run("train", "detector", "--print-config").out
    assert "trunk_options: {}" in run("train", "detector", "--trunk", "mobilenet_v2", "--print-config").out


def test_shapes(tmp_path):
    answer = run("train", "detector", *SMALL, "--scenes", "shapes", "--epochs", 1, "--out", "r")
    assert answer.code == 0 and "scenes of shapes" in answer.out and "crescent" in answer.out


def test_exporting(whole, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    answer = run("export", whole[0], "d.onnx", "--nms")
    assert answer.code == 0 and "NonMaxSuppression" in answer.out and "selected (M x 3)" in answer.out
    boxes, scores, _ = onnxruntime.InferenceSession("d.onnx").run(None, {"input": np.zeros((1, 3, 64, 64), np.float32)})
    assert boxes.shape == (1, 80, 4) and scores.shape == (1, 80, 10)
    answer = run("export", whole[0], "d.safetensors")
    assert answer.code == 0 and run("detect", "d.safetensors", whole[0] / "samples").code == 0
    answer = run("export", "lenet5", "l.onnx", "--nms")
    assert answer.code == 2 and "--nms: is for detectors" in answer.err
