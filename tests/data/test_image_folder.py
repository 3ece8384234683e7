"""Image files and folders of them, also broken ones."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from numbanet.data import DataLoader, load_image
from numbanet.data.datasets import ImageFolder, open_image_data
from numbanet.data.images import image_header
from numbanet.data.transforms import Compose, Grayscale, ToTensor
from numbanet.errors import DataError, UsageError
from tests.data.test_idx import write_mnist


def save(path, value=100, size=(6, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(path)
    return path


def fill(root, classes=("cat", "dog"), count=3, **options):
    for label, name in enumerate(classes):
        for i in range(count):
            save(root / name / f"{i}.png", 10 * label + i, **options)
    return root


def huge_png(width, height):
    """A PNG of a few bytes whose header announces many pixels."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_classes_samples_and_labels(tmp_path):
    fill(tmp_path)
    save(tmp_path / "dog/more/deep.JPG")
    save(tmp_path / "cat/.hidden.png")
    save(tmp_path / ".git/x.png")
    (tmp_path / "cat/notes.txt").write_text("no image")
    (tmp_path / "readme.txt").write_text("no class")
    folder = ImageFolder(tmp_path, target_transform=lambda label: label + 5)
    assert folder.classes == ["cat", "dog"] and folder.class_to_idx == {"cat": 0, "dog": 1}
    assert folder.targets == [0, 0, 0, 1, 1, 1, 1] and len(folder) == 7 and folder.imgs == folder.samples
    image, label = folder[4]
    assert image.mode == "RGB" and image.size == (6, 4) and image.getpixel((0, 0)) == (11, 0, 0) and label == 6
    assert folder.sample_path(6).endswith("deep.JPG")


def test_own_choice_of_files_and_reader(tmp_path):
    fill(tmp_path)
    folder = ImageFolder(tmp_path, loader=lambda path: path[-5:], is_valid_file=lambda path: path.endswith("1.png"))
    assert [folder[i] for i in range(len(folder))] == [("1.png", 0), ("1.png", 1)]


def test_empty_folders(tmp_path):
    with pytest.raises(DataError, match="missing"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="folder for each class"):
        ImageFolder(tmp_path)
    fill(tmp_path)
    (tmp_path / "bird").mkdir()
    with pytest.raises(DataError, match="bird: expected images"):
        ImageFolder(tmp_path)
    assert ImageFolder(tmp_path, allow_empty=True).classes == ["bird", "cat", "dog"]
    with pytest.raises(DataError, match="0.png: expected a folder"):
        ImageFolder(tmp_path / "cat/0.png")


def broken_files():
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)).save(picture, "PNG")
    picture = picture.getvalue()
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(jpeg, "JPEG")
    return {"text.png": (b"not an image", "not an image"), "empty.png": (b"", "not an image"),
            "cut.png": (picture[:2000], "broken or truncated"),
            "cut.jpg": (jpeg.getvalue()[:-300], "broken or truncated"),
            "flipped.png": (picture[:100] + b"\xff\0\xff" + picture[103:], "broken or truncated"),
            "big.png": (huge_png(10_000, 10_000), "10000 x 10000 is more than"),
            "bomb.png": (huge_png(60_000, 60_000), "more than the")}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", broken_files())
def test_broken_files_are_named(tmp_path, name):
    data, message = broken_files()[name]
    path = tmp_path / "a" / name
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        load_image(path)
    with pytest.raises(DataError, match=rf"sample 0 \(.*{name}\) of ImageFolder failed: .*{message}"):
        list(DataLoader(ImageFolder(tmp_path), num_workers=1))


def test_files_that_are_no_files(tmp_path):
    with pytest.raises(DataError, match="missing"):
        load_image(tmp_path / "x.png")
    with pytest.raises(DataError, match="folder"):
        load_image(tmp_path)
    with pytest.raises(DataError, match="not an image"):
        load_image(io.BytesIO(b"abc"))
    with pytest.raises(DataError, match="6 x 4 is more than the 20"):
        load_image(save(tmp_path / "a.png"), max_pixels=20)


def test_forms_of_images(tmp_path):
    deep = np.array([[0, 257 * 40, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.asarray(load_image(tmp_path / "deep.png", "L")).tolist() == [[0, 40, 255]]
    clear = np.zeros((1, 2, 4), np.uint8)
    clear[0, 0, 3] = 255                        # black ink, and a transparent pixel
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert np.asarray(load_image(tmp_path / "clear.png", "L")).tolist() == [[0, 255]]
    turned = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    exif = Image.Exif()
    exif[0x0112] = 6                            # to be shown turned by 90 degrees
    turned.save(tmp_path / "turned.png", exif=exif)
    assert load_image(tmp_path / "turned.png").size == (2, 3)
    assert image_header(tmp_path / "deep.png") == ((1, 3), True)
    assert image_header(tmp_path / "clear.png") == ((1, 2), False)


def test_loader_over_a_folder(tmp_path):
    folder = ImageFolder(fill(tmp_path), Compose([Grayscale(), ToTensor()]))
    images, labels = next(iter(DataLoader(folder, 6, num_workers=2)))
    assert tuple(images.shape) == (6, 1, 4, 6) and labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_splits_are_used_as_they_are(tmp_path, held_out):
    fill(tmp_path / "train", ("ant", "bee", "cow"), mode="L")
    fill(tmp_path / held_out, ("bee", "cow"), 2, mode="L")
    data = open_image_data(tmp_path)
    assert data.classes == ("ant", "bee", "cow") and data.channels == 1 and data.image_size == (4, 6)
    assert len(data.train) == 9 and data.test.targets == [1, 1, 2, 2] and data.test[2][1] == 2
    assert held_out in data.layout


def test_held_out_class_that_is_not_trained(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "val", ("cat", "emu"))
    with pytest.raises(DataError, match="val: expected the classes of .* emu"):
        open_image_data(tmp_path)


@pytest.mark.parametrize("below", ["", "train"])
def test_class_folders_are_split_by_class(tmp_path, below):
    fill(tmp_path / below, ("cat", "dog", "train"), 10)
    data = open_image_data(tmp_path, 0.3, seed=1)
    paths = [{p for p, _ in part.samples} for part in (data.train, data.test)]
    assert not paths[0] & paths[1] and len(paths[0] | paths[1]) == 30
    assert np.bincount(data.train.targets).tolist() == [7] * 3 and np.bincount(data.test.targets).tolist() == [3] * 3
    assert data.channels == 3 and data.train is not data.test
    again, other = (open_image_data(tmp_path, 0.3, seed) for seed in (1, 2))
    assert again.test.samples == data.test.samples != other.test.samples


def test_class_with_one_image_cannot_be_split(tmp_path):
    fill(tmp_path)
    save(tmp_path / "emu/0.png")
    with pytest.raises(DataError, match="emu: expected two images"):
        open_image_data(tmp_path)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2])
def test_fraction_to_hold_out(tmp_path, fraction):
    with pytest.raises(UsageError, match="val_fraction"):
        open_image_data(tmp_path, fraction)


def test_idx_folder(tmp_path):
    images, labels = write_mnist(tmp_path, 20)
    data = open_image_data(tmp_path)
    assert len(data.train) == len(data.test) == 20 and data.channels == 1 and data.image_size == (2, 3)
    assert data.classes == tuple("0123456789")
    np.testing.assert_array_equal(data.train.data, images)
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / name).unlink()
    data = open_image_data(tmp_path, 0.5)
    assert sorted(data.train.targets) == sorted(data.test.targets) == list(range(10))
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="without its file of labels"):
        open_image_data(tmp_path)


def test_empty_and_missing_folder(tmp_path):
    with pytest.raises(DataError, match="folder for each class"):
        open_image_data(tmp_path)
    with pytest.raises(DataError, match="missing"):
        open_image_data(tmp_path / "nowhere")
