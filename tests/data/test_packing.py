"""Packed images: what is written, that it is whole or not there, and every way in which it can be damaged."""

import errno
import io
import json

import numpy as np
import pytest
from PIL import Image

from numbanet import files
from numbanet.data import DataLoader
from numbanet.data.datasets import ImageFolder, PackedDataset, create_dataset, image_splits, open_image_data
from numbanet.data.packing import pack
from numbanet.data.transforms import BatchAffineNormalize
from numbanet.errors import CheckpointError, DataError, UsageError
from tests.data.test_image_folder import fill, save


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch):
    monkeypatch.setattr(files.os, "fsync", lambda handle: None)


def write_photos(root, rng, sizes=((20, 30), (33, 20), (21, 21)), classes=("cat", "dog")):
    for name in classes:
        (root / name).mkdir(parents=True)
        for i, size in enumerate(sizes):
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(root / name / f"{i}.png")
    return ImageFolder(root)


def test_pixels_labels_and_classes(tmp_path, rng):
    photos = write_photos(tmp_path / "photos", rng)
    done = pack({"train": photos}, tmp_path / "packed", 16)
    assert done.counts == {"train": 6} and done.shape == (16, 16, 3) and not done.skipped
    packed = PackedDataset(tmp_path / "packed")
    assert isinstance(packed.data, np.memmap) and packed.data.shape == (6, 16, 16, 3) and not packed.data.flags.writeable
    assert packed.classes == ("cat", "dog") and packed.targets.tolist() == photos.targets and packed.class_to_idx["dog"] == 1
    assert packed.paths == [path for path, _ in photos.samples] and packed.sample_path(5).endswith("2.png")
    wide = photos[0][0]                                 # 30 x 20: its middle square, scaled
    expected = wide.resize((16, 16), Image.Resampling.BILINEAR, box=(5, 0, 25, 20))
    np.testing.assert_array_equal(packed[0][0], np.asarray(expected))
    np.testing.assert_array_equal(np.load(tmp_path / "packed/train_images.npy"), packed.data)
    assert json.loads((tmp_path / "packed/classes.json").read_text()) == ["cat", "dog"]
    images, labels = next(iter(DataLoader(PackedDataset(tmp_path / "packed", batch_transform=BatchAffineNormalize(16)), 4, num_workers=1)))
    assert tuple(images.shape) == (4, 3, 16, 16) and labels.tolist() == [0, 0, 0, 1]
    assert len(create_dataset("packed", tmp_path / "packed")) == 6


def test_sizes_that_are_chosen(tmp_path, rng):
    mixed = write_photos(tmp_path / "mixed", rng, ((300, 280), (40, 50)))
    assert pack({"train": mixed}, tmp_path / "a").shape == (256, 256, 3)
    small = write_photos(tmp_path / "small", rng, ((20, 30), (20, 30)))
    assert pack({"train": small}, tmp_path / "b").shape == (20, 30, 3)
    np.testing.assert_array_equal(PackedDataset(tmp_path / "b")[3][0], np.asarray(small[3][0]))
    grey = ImageFolder(fill(tmp_path / "grey", mode="L"))
    assert pack({"train": grey}, tmp_path / "c").shape == (4, 6)


def test_fits(tmp_path):
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[:, :5], picture[:, 5:15], picture[:, 15:] = 200, 100, 50
    (tmp_path / "in/a").mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "in/a/0.png")
    columns = {}
    for fit in ("crop", "stretch", "pad"):
        pack({"train": ImageFolder(tmp_path / "in")}, tmp_path / fit, 10, fit=fit)
        columns[fit] = PackedDataset(tmp_path / fit)[0][0][..., 0]
    assert (columns["crop"] == 100).all()
    assert columns["stretch"][5, 0] == 200 and columns["stretch"][5, 9] == 50
    assert (columns["pad"][0] == 0).all() and columns["pad"][5, 0] == 200 and columns["pad"][5, 9] == 50
    with pytest.raises(UsageError, match="fit"):
        pack({"train": ImageFolder(tmp_path / "in")}, tmp_path / "x", fit="fill")


def test_splits_are_kept_and_recognised(tmp_path, rng):
    for name in ("train", "val", "test"):
        write_photos(tmp_path / "photos" / name, rng, ((8, 8),) * 3)
    splits, _ = image_splits(tmp_path / "photos")
    assert pack(splits, tmp_path / "packed").counts == {"train": 6, "val": 6, "test": 6}
    data = open_image_data(tmp_path / "packed")
    assert data.layout == "packed, train and val" and data.channels == 3 and data.image_size == (8, 8) and data.classes == ("cat", "dog")
    assert isinstance(data.train.data, np.memmap) and len(data.test) == 6
    with pytest.raises(UsageError, match="expected dev_images.npy, received a folder of train, test, val"):
        PackedDataset(tmp_path / "packed", "dev")
    for name in ("val", "test"):
        (tmp_path / f"packed/{name}_images.npy").unlink()
    data = open_image_data(tmp_path / "packed", 0.34)
    assert (len(data.train), len(data.test)) == (4, 2) and "34% of each class held out" in data.layout


def broken_photo(tmp_path, rng):
    photos = write_photos(tmp_path / "photos", rng)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(buffer, "PNG")
    (tmp_path / "photos/cat/1.png").write_bytes(buffer.getvalue()[:2000])      # its header is good
    return photos


def test_broken_image(tmp_path, rng):
    photos = broken_photo(tmp_path, rng)
    with pytest.raises(DataError, match="1 of 6 images cannot be used.*\n.*cat/1.png: the image is broken"):
        pack({"train": photos}, tmp_path / "packed", 8)
    assert not (tmp_path / "packed").exists() and [p.name for p in tmp_path.iterdir()] == ["photos"]
    done = pack({"train": photos}, tmp_path / "packed", 8, on_error="skip")
    assert done.counts == {"train": 5} and len(done.skipped) == 1 and "cat/1.png" in done.skipped[0]
    packed = PackedDataset(tmp_path / "packed")
    assert len(packed) == 5 and packed.targets.tolist() == [0, 0, 1, 1, 1] and packed.paths[1].endswith("cat/2.png")
    np.testing.assert_array_equal(np.load(tmp_path / "packed/train_images.npy")[1], packed[1][0])


def test_header_that_cannot_be_read(tmp_path, rng):
    photos = write_photos(tmp_path / "photos", rng)
    (tmp_path / "photos/dog/0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="dog/0.png: not an image"):
        pack({"train": photos}, tmp_path / "packed", 8)
    assert pack({"train": photos}, tmp_path / "packed", 8, on_error="skip").counts == {"train": 5}
    for path, _ in photos.samples:
        (tmp_path / path).write_bytes(b"no image")
    with pytest.raises(DataError, match="train: none of the images can be used; .*cat/0.png"):
        pack({"train": photos}, tmp_path / "other", 8, on_error="skip")


def test_nothing_that_stands_there_is_lost(tmp_path, rng):
    photos = write_photos(tmp_path / "photos", rng)
    pack({"train": photos}, tmp_path / "packed", 8)
    with pytest.raises(UsageError, match="exists already"):
        pack({"train": photos}, tmp_path / "packed", 9)
    assert pack({"train": photos}, tmp_path / "packed", 9, overwrite=True).shape == (9, 9, 3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="no folder of packed images, so it is not overwritten"):
        pack({"train": photos}, tmp_path / "mine", 9, overwrite=True)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_full_disk(tmp_path, rng, monkeypatch):
    photos = write_photos(tmp_path / "photos", rng)
    with pytest.raises(DataError, match="GB of free disk"):
        pack({"train": photos}, tmp_path / "packed", 1_000_000)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("numbanet.data.packing._write_header", full)
    with pytest.raises(CheckpointError, match="No space left"):
        pack({"train": photos}, tmp_path / "packed", 8)
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


def test_classes_that_differ(tmp_path):
    splits = {name: ImageFolder(fill(tmp_path / name, classes)) for name, classes in (("train", ("a", "b")), ("test", ("a", "c")))}
    with pytest.raises(DataError, match="other ones in test than in train"):
        pack(splits, tmp_path / "packed")
    with pytest.raises(DataError, match="received none"):
        pack({}, tmp_path / "packed")


def replaced(old, new):
    return lambda data: data.replace(old, new)


@pytest.mark.parametrize(("name", "damage", "message"), [
    ("train_images.npy", lambda data: data[:-1], "not a readable .npy file"),
    ("train_images.npy", lambda data: data[:40], "not a readable .npy file"),
    ("train_images.npy", lambda data: b"", "not a readable .npy file"),
    ("train_images.npy", replaced(b"|u1", b"|b1"), "expected uint8 .* received bool"),
    ("train_images.npy", replaced(b"'fortran_order': False", b"'fortran_order':  True"), "in C order"),
    ("train_images.npy", replaced(b"(6, 4, 6, 3)", b"(6, 4, 3, 6)"), r"received uint8 \(6, 4, 3, 6\)"),
    ("train_images.npy", replaced(b"|u1", b"|O8"), "not a readable .npy file"),
    ("train_labels.csv", lambda data: b"", "expected the columns path, label, class"),
    ("train_labels.csv", lambda data: data[:data.rstrip().rindex(b"\n") + 1], "each of the 6 images beside it, received 5"),
    ("train_labels.csv", replaced(b",1,dog", b",x,dog"), "expected a row path,label,class"),
    ("train_labels.csv", replaced(b",1,dog", b",9,dog"), "expected labels from 0 to 1, received 0 to 9"),
    ("train_labels.csv", replaced(b",1,dog", b",-1,dog"), "received -1 to 0"),
    ("train_labels.csv", replaced(b",1,dog", b",99999999999999999999,dog"), "expected a row path,label,class"),
    ("classes.json", lambda data: b"{", "expected a JSON list"),
    ("classes.json", lambda data: b'["a", "a"]', "JSON list of different names"),
    ("classes.json", lambda data: b"[]", "JSON list of different names"),
    ("classes.json", lambda data: b"[1, 2]", "JSON list of different")])
def test_damaged_folders(tmp_path, name, damage, message):
    pack({"train": ImageFolder(fill(tmp_path / "in"))}, tmp_path / "packed")
    path = tmp_path / "packed" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        open_image_data(tmp_path / "packed")


@pytest.mark.parametrize("name", ["train_labels.csv", "classes.json"])
def test_files_that_are_missing(tmp_path, name):
    pack({"train": ImageFolder(fill(tmp_path / "in"))}, tmp_path / "packed")
    (tmp_path / "packed" / name).unlink()
    with pytest.raises(DataError, match=f"{name}: .*missing"):
        PackedDataset(tmp_path / "packed")
    with pytest.raises(DataError, match="without packed images"):
        PackedDataset(tmp_path / "in")
    save(tmp_path / "packed/train/x.png")
