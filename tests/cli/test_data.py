"""`numbanet data`: pictures of data, packed data, made-up data."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from numbanet.cli import data
from numbanet.data.datasets import PackedDataset
from numbanet.zoo import model_info
from tests.cli.conftest import last_command, run, write_classes, write_digits


def test_pack_and_train_with_it(tmp_path):
    write_classes(tmp_path / "photos", ("day", "night"), per_class=10, mode="RGB")
    answer = run("data", "pack", "photos", "--size", "16")
    assert answer.code == 0 and not answer.err
    assert "photos (class folders, 20% of each class held out): 16 train, 4 val images, 2 classes" in answer.out
    assert "wrote" in answer.out and "photos-packed: 16 train, 4 val images of 16x16x3" in answer.out
    assert last_command(answer.out) == ["train", "resnet18", "--data", str(tmp_path / "photos-packed")]
    answer = run("train", "lenet5", "--epochs", "4", "--batch-size", "8", "--data", "photos-packed")
    assert answer.code == 0 and "(packed, train and val)\n      16 training and 4 test images, 2 classes" in answer.out
    packed = PackedDataset(tmp_path / "photos-packed")
    assert packed.classes == ("day", "night") and packed[0][0].mean() > 150 > packed[15][0].mean()


def test_pack_refuses_what_it_would_destroy(tmp_path):
    write_classes(tmp_path / "photos")
    assert run("data", "pack", "photos").code == 0
    answer = run("data", "pack", "photos", "--size", "8")
    assert answer.code == 2 and "photos-packed: exists already; choose another folder with --out, or give --overwrite" in answer.err
    assert run("data", "pack", "photos", "--size", "8", "--overwrite", "--val-fraction", "0").code == 0
    assert PackedDataset("photos-packed").data.shape == (12, 8, 8)


def test_broken_images_are_named_and_skipped_on_request(tmp_path):
    write_classes(tmp_path / "photos", per_class=8)
    Path("photos/dark/3.png").write_bytes(b"no image")
    answer = run("data", "pack", "photos", "--out", "packed")
    assert answer.code == 1 and "1 of 16 images cannot be used" in answer.err and "dark/3.png" in answer.err and not Path("packed").exists()
    answer = run("data", "pack", "photos", "--out", "packed", "--on-error", "skip")
    assert answer.code == 0 and "skipped 1 images:" in answer.err and "dark/3.png" in answer.err


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["pack", "nowhere"], 1, "nowhere: the folder is missing"), (["show", "nowhere"], 1, "nowhere: the folder is missing"),
    (["pack", ".", "--size", "0"], 2, "--size"), (["pack", ".", "--workers", "0"], 2, "--workers"),
    (["pack", ".", "--val-fraction", "1"], 2, "--val-fraction"),
    (["show", ".", "--columns", "0"], 2, "--columns"), (["scenes", "out", "--train", "0"], 2, "--train"),
    (["scenes", "out", "--classes", "star,cube"], 2, "different classes out of circle"),
    (["scenes", "out", "--size", "4"], 2, "16 or more"),
    ([], 2, "ACTION"), (["pakc", "x"], 2, "invalid choice: 'pakc'")])
def test_requests_that_cannot_be_met(arguments, code, words):
    answer = run("data", *arguments)
    assert answer.code == code and words in answer.err


def test_scenes_are_shown_and_trained(tmp_path):
    answer = run("data", "scenes", "scenes", "--train", "120", "--test", "24", "--size", "16", "--classes", "ring,star", "--seed", "5")
    assert answer.code == 0 and "wrote scenes: 120 train, 24 test images of 16x16x3" in answer.out
    verb, model, *options = last_command(answer.out)
    assert verb == "train" and model_info(model) and options == ["--data", "scenes"]
    answer = run("data", "show", "scenes", "--columns", "3")
    assert answer.code == 0 and max(map(len, answer.out.splitlines())) <= 80
    assert "scenes (packed, train and test): 120 training and 24 test images,\n  2 classes, most are 16x16 colour" in answer.out
    sheet = np.asarray(Image.open("sheet.png"))
    assert sheet.shape == (101 + 2 * 173, 1200, 3)                          # a title, and a heading and a row for each class
    first = sheet[130:250, 24:144].reshape(120, 120, 3)
    assert first.std() > 20 and (first[:7, :7] == first[0, 0]).all()        # a picture, enlarged, not smoothed
    answer = run("train", "lenet5", "--epochs", "1", "--data", "scenes")
    assert answer.code == 0 and "120 training and 24 test images, 2 classes, 16x16 colour" in answer.out
    again = run("data", "scenes", "again", "--train", "120", "--test", "24", "--size", "16", "--classes", "ring,star", "--seed", "5")
    assert again.code == 0 and Path("again/train_images.npy").read_bytes() == Path("scenes/train_images.npy").read_bytes()


def test_show_of_other_layouts(tmp_path):
    write_digits(tmp_path / "digits")
    assert run("data", "show", "digits", "--out", "pictures/digits.png").code == 0
    write_classes(tmp_path / "photos", [f"class {i:02}" for i in range(42)], per_class=3)
    answer = run("data", "show", "photos", "--columns", "2")
    assert answer.code == 0 and "the first 40 classes" in answer.out
    digits, photos = Image.open("pictures/digits.png"), Image.open("sheet.png")
    assert digits.size[0] == photos.size[0] == 1200 and (digits.height - 101) % 10 == (photos.height - 101) % 40 == 0
    assert min((digits.height - 101) // 10, (photos.height - 101) // 40) > 100


def test_models_of_the_examples_exist():
    for example in (data.EXAMPLE, *data.EXAMPLES.values()):
        for line in example.splitlines():
            words = line.split()
            assert words[0] == "numbanet" and (words[1] != "train" or model_info(words[2]))
