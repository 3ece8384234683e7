"""`numbanet train` on the shipped digits, on IDX files and on folders of pictures, and every way in which data can be bad."""

import contextlib
import errno
import gzip
import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from numbanet.data.datasets import MNISTSample
from numbanet.weights import load_weights
from tests.cli.conftest import last_command, run, write_classes, write_digits, write_idx

QUICK = ("train", "lenet5", "--epochs", "1", "--batch-size", "8")


def metadata(folder="runs/lenet5-1"):
    return load_weights(Path(folder) / "weights" / "best.safetensors")[1]


# The main job

def test_what_is_told(trained):
    lines = trained.out.splitlines()
    assert lines[0] == "lenet5: 61,706 parameters, on cpu"
    assert lines[1] == "data: the MNIST sample of the package"
    assert lines[2].strip() == "10,000 training and 2,000 test images, 10 classes, 28x28 grey -> 1x32x32"
    assert max(map(len, lines[:6])) <= 80
    assert [line.split()[:2] for line in lines[3:6]] == [["epoch", f"{i}/3"] for i in (1, 2, 3)]
    for word in ("loss", "%", "test loss", "test accuracy", "images/s"):
        assert word in (lines[3] if word != "test accuracy" else trained.out)
    accuracy = float(trained.out.partition("test accuracy ")[2].partition("%")[0])
    final = float(next(line for line in lines if "s of training" in line).split()[2].rstrip("%"))
    assert 96 < final <= 100 and accuracy > 85
    start = lines.index("confusion matrix, a row for each true class:")
    rows = [line.split() for line in lines[start + 2:start + 12]]
    counts = np.array([[0 if c == "." else int(c) for c in row[1:]] for row in rows])
    assert [row[0] for row in rows] == list("0123456789") and (counts.sum(1) == 200).all()
    assert round(100 * np.trace(counts) / 2000, 2) == final


def test_what_is_left(trained):
    files = {str(p.relative_to(trained.run)) for p in trained.run.rglob("*") if p.is_file()}
    assert {"config.yaml", "environment.json", "metrics.csv", "curves.png", "weights/best.safetensors", "weights/last.safetensors"} <= files
    assert len([f for f in files if f.startswith("samples/")]) == 10
    assert len([f for f in files if f.startswith("checkpoints/")]) in (6, 9)       # the newest two, and the best
    assert not [p for p in trained.run.rglob(".*")]
    assert yaml.safe_load((trained.run / "config.yaml").read_text())["epochs"] == 3
    assert json.loads((trained.run / "environment.json").read_text())["threads"] >= 1
    assert len((trained.run / "metrics.csv").read_text().splitlines()) == 4


def test_the_line_that_ends_the_output_can_be_pasted(trained):
    with contextlib.chdir(trained.run.parent.parent):
        answer = run(*last_command(trained.out))
    assert answer.code == 0 and len(answer.out.splitlines()) == 10
    right = sum(Path(line.split()[0]).name[0] == line.split()[1] for line in answer.out.splitlines())
    assert right >= 9


# Data of other kinds

def test_idx_files(tmp_path):
    write_digits(tmp_path / "digits")
    answer = run(*QUICK, "--data", "digits")
    assert answer.code == 0
    assert "digits (IDX files)\n      60 training and 20 test images, 10 classes, 28x28 grey -> 1x32x32" in answer.out
    assert metadata()["preprocessing"]["digits"] is True
    assert yaml.safe_load(Path("runs/lenet5-1/config.yaml").read_text())["data"] == str(tmp_path / "digits")


def test_compressed_idx_files_without_test_digits(tmp_path):
    folder = write_digits(tmp_path / "digits")
    for path in list(folder.iterdir()):
        if path.name.startswith("train"):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    answer = run(*QUICK, "--data", "digits", "--val-fraction", "0.5")
    assert answer.code == 0 and "30 training and 30 test images" in answer.out


@pytest.mark.parametrize(("mode", "channels", "words"), [
    ("L", 1, "20x24 grey -> 1x32x32"), ("RGB", 3, "20x24 colour -> 3x32x32")])
def test_class_folders(mode, channels, words, tmp_path):
    write_classes(tmp_path / "photos", ("day", "night", "évening"), mode=mode)
    answer = run(*QUICK, "--data", "photos", "--val-fraction", "0.3", "--epochs", "4", "--out", "my run")
    assert answer.code == 0
    assert "12 training and 6 test images, 3 classes" in answer.out and words in answer.out
    stored = metadata("my run")
    assert stored["classes"] == ["day", "night", "évening"] and stored["in_chans"] == channels and stored["num_classes"] == 3
    assert stored["preprocessing"]["input_size"] == [channels, 32, 32] and stored["preprocessing"]["digits"] is False
    assert "évening" in answer.out                                      # in the confusion matrix
    shutil.rmtree("photos")
    again = run(*last_command(answer.out), "--json", "--top", "9")      # the weights are all that predicting needs
    assert again.code == 0
    results = json.loads(again.out)
    assert len(results) == 6 and all(sorted(p["class"] for p in r["predictions"]) == stored["classes"] for r in results)


def test_folders_with_training_and_test_pictures(tmp_path):
    write_classes(tmp_path / "photos" / "train", per_class=8)
    write_classes(tmp_path / "photos" / "val", per_class=3)
    answer = run(*QUICK, "--data", "photos", "--epochs", "6", "--no-distort")
    assert answer.code == 0
    assert "(class folders in train/ and val/)\n      16 training and 6 test images, 2 classes" in answer.out
    assert "test accuracy 100.00%" in answer.out                        # bright and dark are learnt


def test_a_folder_of_digits_is_normalised_in_training_as_in_prediction(tmp_path):
    """Black digits on large white sheets train a network that is then asked about white ones on black."""
    digits = MNISTSample(True)
    for label in range(10):
        (tmp_path / "sheets" / str(label)).mkdir(parents=True)
        for i in np.flatnonzero(digits.targets == label)[:2]:
            Image.fromarray(np.pad(255 - digits.data[i], 30, constant_values=255)).save(tmp_path / "sheets" / str(label) / f"{i}.png")
    assert run(*QUICK, "--data", "sheets", "--val-fraction", "0.5").code == 0
    assert metadata()["preprocessing"]["digits"] is True and metadata()["preprocessing"]["image_size"] == [28, 28]
    for path in Path("runs/lenet5-1/samples").iterdir():
        with Image.open(path) as picture:
            pixels = np.asarray(picture)
        assert pixels.shape == (28, 28) and pixels[0].max() == 0 and pixels.max() > 200


def test_the_1998_network_trains_on_ten_classes_only(tmp_path):
    write_classes(tmp_path / "photos")
    answer = run("train", "lenet5_1998", "--data", "photos")
    assert answer.code == 2 and "num_classes expects 10, received 2; use lenet5" in answer.err
    assert os.listdir() == ["photos"]


def test_eager_steps_learn_what_compiled_ones_do(tmp_path):
    write_digits(tmp_path / "digits", 100)
    for options in (("--out", "compiled"), ("--out", "eager", "--eager")):
        assert run(*QUICK, "--data", "digits", *options).code == 0
    states = [load_weights(f"{name}/weights/last.safetensors")[0] for name in ("compiled", "eager")]
    assert states[0].keys() == states[1].keys()
    for name, weight in states[1].items():                  # compiled steps sum in another order
        np.testing.assert_allclose(states[0][name], weight, rtol=1e-3, atol=2e-5, err_msg=name)
    assert [yaml.safe_load(Path(f"{name}/config.yaml").read_text())["eager"] for name in ("compiled", "eager")] == [False, True]


# Bad data: told before anything is written

def header_of_a_huge_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    size = (60_000).to_bytes(4, "big")
    chunks = (b"IHDR", size + size + b"\x08\0\0\0\0"), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def without(path: Path) -> None:
    path.unlink()


BAD_PICTURES = {
    "broken": (b"\x89PNG\r\n\x1a\n" + b"\xff" * 40, "not an image|broken or truncated"),
    "text": (b"lorem ipsum", "not an image"),
    "empty": (b"", "not an image"),
    "huge": (header_of_a_huge_png(), "more than the 89478485 pixels"),
}


@pytest.mark.parametrize(("contents", "message"), BAD_PICTURES.values(), ids=BAD_PICTURES)
def test_a_picture_that_cannot_be_used(contents, message, tmp_path):
    write_classes(tmp_path / "photos")
    (tmp_path / "photos" / "dark" / "bad.png").write_bytes(contents)
    answer = run(*QUICK, "--data", "photos")
    assert answer.code == 1 and not answer.out
    assert "dark/bad.png" in answer.err
    assert any(m in answer.err for m in message.split("|"))
    assert os.listdir() == ["photos"]


def test_all_broken_pictures_are_counted_and_the_first_are_named(tmp_path):
    write_classes(tmp_path / "photos", per_class=10)
    for i in range(7):
        cut(tmp_path / "photos" / "bright" / f"{i}.png", 200)
    answer = run(*QUICK, "--data", "photos")
    assert answer.code == 1
    assert "7 of 20 images cannot be used; replace or remove them" in answer.err and "and 2 more" in answer.err
    assert answer.err.count("broken or truncated") == 5 and os.listdir() == ["photos"]


def test_a_blank_sheet_among_digits_is_named(tmp_path):
    write_classes(tmp_path / "digits", [str(i) for i in range(10)], per_class=2)
    answer = run(*QUICK, "--data", "digits")
    assert answer.code == 1 and "20 of 20 images cannot be used" in answer.err and "without clear ink" in answer.err


FOLDERS = {
    "missing": (lambda d: shutil.rmtree(d), "photos: the folder is missing"),
    "empty": (lambda d: (shutil.rmtree(d), d.mkdir()), "received a folder without folders"),
    "one class": (lambda d: shutil.rmtree(d / "dark"), "expected two classes or more, received only bright"),
    "empty class": (lambda d: (d / "third").mkdir(), "third: expected images"),
    "one picture": (lambda d: [without(d / "dark" / f"{i}.png") for i in range(5)], "expected two images or more"),
    "unknown class": (lambda d: (write_classes(d / "train"), write_classes(d / "test", ("bright", "blue"))), "received also blue"),
    "a file": (lambda d: (shutil.rmtree(d), d.write_text("x")), "expected a folder of class folders"),
}


@pytest.mark.parametrize(("damage", "message"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_cannot_be_used(damage, message, tmp_path):
    damage(write_classes(tmp_path / "photos"))
    answer = run(*QUICK, "--data", "photos")
    assert answer.code == 1 and message in answer.err and "photos" in answer.err
    assert not answer.out and not os.path.exists("runs")


IDX = {
    "no images": (lambda d: without(d / "train-images-idx3-ubyte"), "without its file of images"),
    "no labels": (lambda d: without(d / "train-labels-idx1-ubyte"), "without its file of labels"),
    "cut images": (lambda d: cut(d / "train-images-idx3-ubyte", 5000), "truncated"),
    "cut header": (lambda d: cut(d / "train-images-idx3-ubyte", 9), "truncated in its header"),
    "cut test labels": (lambda d: cut(d / "t10k-labels-idx1-ubyte", 12), "truncated"),
    "empty": (lambda d: cut(d / "t10k-images-idx3-ubyte", 0), "not an IDX file"),
    "fewer labels": (lambda d: write_idx(d / "train-labels-idx1-ubyte", np.arange(9)), "9 labels for the 60 images"),
    "one class": (lambda d: [write_idx(d / f"{n}-labels-idx1-ubyte", np.zeros(c)) for n, c in (("train", 60), ("t10k", 20))],
                  "expected two classes or more, received only 0"),
}


@pytest.mark.parametrize(("damage", "message"), IDX.values(), ids=IDX)
def test_idx_files_that_cannot_be_used(damage, message, tmp_path):
    damage(write_digits(tmp_path / "digits"))
    answer = run(*QUICK, "--data", "digits")
    assert answer.code == 1 and message in answer.err and "digits" in answer.err
    assert not answer.out and os.listdir() == ["digits"]


@pytest.mark.parametrize("fraction", ["0", "1", "-0.5", "nan"])
def test_a_share_that_is_none(fraction, tmp_path):
    write_classes(tmp_path / "photos")
    answer = run(*QUICK, "--data", "photos", "--val-fraction", fraction)
    assert answer.code == 2 and "expected a number between 0 and 1" in answer.err


# Places that cannot be written, and runs that fail

def test_a_run_folder_that_exists(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    answer = run(*QUICK, "--out", "mine")
    assert answer.code == 2 and "--out: mine exists; choose another folder, or go on with it: --resume mine" in answer.err
    assert os.listdir("mine") == ["thesis.tex"] and (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def test_a_read_only_folder(tmp_path, monkeypatch):
    def refuse(_path, *_args, **_kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(os, "mkdir", refuse)
    answer = run(*QUICK)
    assert answer.code == 1 and "runs/lenet5-1: the run cannot be written there (Read-only file system)" in answer.err
    assert "--out" in answer.err and not answer.out and not os.listdir(tmp_path)


@pytest.mark.parametrize("file", ["config.yaml", "best.safetensors", "step-8", "last.safetensors", "metrics.csv", "curves.png"])
def test_a_disk_that_fills_up(file, tmp_path, monkeypatch):
    write_digits(tmp_path / "digits")

    def full(function):
        def call(source, target, *args, **kwargs):
            if Path(target).name == file:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(source, target, *args, **kwargs)
        return call
    monkeypatch.setattr(os, "replace", full(os.replace))
    monkeypatch.setattr(os, "rename", full(os.rename))
    answer = run(*QUICK, "--data", "digits")
    assert answer.code == 1 and file in answer.err and "No space left on device" in answer.err and "Free space" in answer.err
    assert not [p for p in Path("runs").rglob("*") if p.name == file or p.name.startswith(".")]


def test_a_loss_that_is_no_number(tmp_path):
    write_digits(tmp_path / "digits")
    answer = run(*QUICK, "--data", "digits", "--optimizer", "sgd", "--lr", "1e30")
    assert answer.code == 1
    assert "the loss became" in answer.err and "at step" in answer.err and "A smaller learning rate (--lr) usually helps" in answer.err
    assert not Path("runs/lenet5-1/weights").exists()
