"""CIFAR's binary files, written here byte by byte as their page describes them."""

import re

import numpy as np
import pytest

from numbanet.data import DataLoader
from numbanet.data.datasets import CIFAR10, CIFAR100, create_dataset, open_image_data
from numbanet.data.datasets.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES, CIFAR100_COARSE_CLASSES
from numbanet.errors import DataError, UnsupportedOperationError


def records(rng, count, *highest):
    """Bytes of `count` records, their images (N, 32, 32, 3) and labels (N, len(highest))."""
    data, images, labels = b"", [], []
    for _ in range(count):
        label = [int(rng.integers(h)) for h in highest]
        red, green, blue = (rng.integers(0, 256, (32, 32), np.uint8) for _ in range(3))
        data += bytes(label) + red.tobytes() + green.tobytes() + blue.tobytes()
        images.append(np.dstack([red, green, blue]))
        labels.append(label)
    return data, np.array(images), np.array(labels)


def write_cifar10(folder, rng, each=3):
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        data, images, labels = records(rng, each, 10)
        (folder / name).write_bytes(data)
        parts.append((images, labels[:, 0]))
    return parts


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_cifar10(tmp_path, rng, below):
    parts = write_cifar10(tmp_path / below, rng)
    train, test = CIFAR10(tmp_path), CIFAR10(tmp_path, train=False, target_transform=str)
    np.testing.assert_array_equal(train.data, np.concatenate([images for images, _ in parts[:5]]))
    np.testing.assert_array_equal(train.targets, np.concatenate([labels for _, labels in parts[:5]]))
    image, label = test[2]
    np.testing.assert_array_equal(image, parts[5][0][2])
    assert label == str(parts[5][1][2]) and len(test) == 3
    assert train.classes == CIFAR10_CLASSES and train.class_to_idx["truck"] == 9
    assert len(create_dataset("cifar10", tmp_path)) == 15
    images, labels = next(iter(DataLoader(train, 4)))
    assert tuple(images.shape) == (4, 32, 32, 3) and labels.tolist() == train.targets[:4].tolist()


def test_cifar100_fine_and_coarse(tmp_path, rng):
    data, images, labels = records(rng, 5, 20, 100)
    for name in ("train.bin", "test.bin"):
        (tmp_path / name).write_bytes(data)
    fine, coarse = CIFAR100(tmp_path), CIFAR100(tmp_path, False, coarse=True)
    np.testing.assert_array_equal(fine.data, images)
    np.testing.assert_array_equal(fine.targets, labels[:, 1])
    np.testing.assert_array_equal(coarse.targets, labels[:, 0])
    assert (len(fine.classes), len(coarse.classes)) == (100, 20)
    for names in (CIFAR100_CLASSES, CIFAR100_COARSE_CLASSES):
        assert list(names) == sorted(names) and len({*names}) == len(names)
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"kind{i}" for i in range(100)) + "\n\n")
    assert CIFAR100(tmp_path).classes[99] == "kind99"
    (tmp_path / "fine_label_names.txt").write_text("one\ntwo\n")
    with pytest.raises(DataError, match="expected 100 names of classes, received 2"):
        CIFAR100(tmp_path)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda data: data[:-1], "expected records of 3073 bytes, .* received 9218 bytes, 3072 too many"),
    (lambda data: data + b"\0", "received 9220 bytes, 1 too many"),
    (lambda data: b"", "received 0 bytes"),
    (lambda data: b"\x0a" + data[1:], "expected labels from 0 to 9, received 10")])
def test_damaged_files(tmp_path, rng, damage, message):
    write_cifar10(tmp_path, rng)
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        CIFAR10(tmp_path)
    assert len(CIFAR10(tmp_path, train=False)) == 3


def test_files_that_are_missing(tmp_path, rng):
    with pytest.raises(DataError, match=re.escape("expected data_batch_1.bin of the binary version")):
        CIFAR10(tmp_path / "nowhere")
    with pytest.raises(UnsupportedOperationError, match="downloads nothing"):
        CIFAR10(tmp_path, download=True)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match="-py holds the version for Python"):
        CIFAR10(tmp_path)
    write_cifar10(tmp_path, rng)
    (tmp_path / "data_batch_2.bin").unlink()
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=re.escape("without data_batch_2.bin, data_batch_4.bin")):
        CIFAR10(tmp_path)


def test_folders_are_recognised(tmp_path, rng):
    write_cifar10(tmp_path / "ten", rng)
    data = open_image_data(tmp_path / "ten")
    assert (data.layout, data.channels, data.image_size, data.classes) == ("CIFAR-10 files", 3, (32, 32), CIFAR10_CLASSES)
    assert len(data.train) == 15 and len(data.test) == 3
    (tmp_path / "hundred/cifar-100-binary").mkdir(parents=True)
    for name, count in (("train.bin", 4), ("test.bin", 2)):
        (tmp_path / "hundred/cifar-100-binary" / name).write_bytes(records(rng, count, 20, 100)[0])
    data = open_image_data(tmp_path / "hundred")
    assert data.layout == "CIFAR-100 files" and len(data.classes) == 100 and (len(data.train), len(data.test)) == (4, 2)
