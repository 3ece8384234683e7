"""From pictures to a network's input, in training and afterwards."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from numbanet.data import ArrayDataset
from numbanet.data import transforms as T
from numbanet.data.datasets import ImageFolder
from numbanet.data.randomness import epoch_scope
from numbanet.errors import CheckpointError
from numbanet.train import pictures as module
from numbanet.train.classifier_data import open_classifier_data
from numbanet.train.pictures import PictureFolder, TransformedPictures, batch_kernel, picture_of
from numbanet.train.preprocessing import DISTORTIONS, Preprocessing
from numbanet.zoo import model_info
from tests.cli.conftest import write_classes, write_digits, write_idx

LENET5 = model_info("lenet5")


@pytest.mark.parametrize(("channels", "size", "pad", "image_size"), [
    (1, (28, 28), True, (28, 28)), (1, (28, 28), False, (32, 32)), (3, (40, 20), True, (32, 32)), (1, (32, 33), True, (32, 32))])
def test_sizes_and_channels_are_adapted_to_the_model(channels, size, pad, image_size):
    made = Preprocessing.for_data(LENET5, channels, size, pad, False)
    assert made.input_size == (channels, 32, 32) and made.image_size == image_size
    assert made.mean == (0.1307,) * channels and made.std == (0.3081,) * channels
    x = made.batch_transform()(np.zeros((2, *image_size, *([3] if channels == 3 else [])), np.uint8))
    assert x.shape == (2, channels, 32, 32)
    np.testing.assert_allclose(x, -0.1307 / 0.3081, rtol=1e-6)


def test_metadata_brings_it_back():
    made = Preprocessing.for_data(LENET5, 3, (28, 28), True, True)
    assert Preprocessing.from_metadata(json.loads(json.dumps(made.as_metadata()))) == made
    for damage in ({"mean": [0.5]}, {"input_size": "abc"}, {"image_size": [28]}, {"std": None}):
        with pytest.raises(CheckpointError, match="damaged or missing"):
            Preprocessing.from_metadata({**made.as_metadata(), **damage})
    with pytest.raises(CheckpointError, match="damaged or missing"):
        Preprocessing.from_metadata(None)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_pixels_of_every_mode_and_size(mode):
    picture = Image.new("RGB", (50, 20), (200, 200, 200)).convert(mode)
    for channels, shape in ((1, (32, 32)), (3, (32, 32, 3))):
        pixels = Preprocessing.for_data(LENET5, channels, (20, 50), False, False).pixels(picture)
        assert pixels.shape == shape and pixels.dtype == np.uint8 and abs(int(pixels[16, 16].max()) - 200) <= 4


def test_older_metadata_means_what_it_meant():
    made = Preprocessing.for_data(LENET5, 1, (28, 28), True, True)
    older = {key: made.as_metadata()[key] for key in ("input_size", "image_size", "mean", "std", "digits")}
    assert Preprocessing.from_metadata(older) == made


def _photo(size, rng):
    return Image.fromarray(rng.integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)


IMAGENET = Preprocessing((3, 32, 32), (32, 32), (104.0, 117.0, 123.0), (1.0, 2.0, 4.0), resize=40, interpolation="bicubic",
                         channel_order="bgr", pixel_scale=255.0)


@pytest.mark.parametrize("size", [(120, 90), (97, 203), (64, 64), (20, 33), (40, 40)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_centre_of_the_scaled_picture(size, interpolation, rng):
    """The shorter side to 40, then the middle 32 x 32: up to the border, and half a pixel where the rest is odd."""
    picture = _photo(size, rng)
    made = Preprocessing((3, 32, 32), (32, 32), (0.0,) * 3, (1.0,) * 3, resize=40, interpolation=interpolation)
    scale = 40 / min(size)
    scaled_size = [round(n * scale / 2) * 2 for n in size]      # even, so that the middle falls on whole pixels
    scaled = picture.resize(scaled_size, Image.Resampling[interpolation.upper()])
    left, top = (n // 2 - 16 for n in scaled_size)
    expected = np.asarray(scaled.crop((left, top, left + 32, top + 32))).astype(int)
    difference = np.abs(made.pixels(picture).astype(int) - expected)[2:-2, 2:-2]
    exact = all(abs(n * scale - whole) < 1e-9 for n, whole in zip(size, scaled_size))
    assert difference.max() <= 1 if exact else difference.mean() <= 6


def test_long_thin_pictures_do_not_grow(rng):
    made = Preprocessing((3, 32, 32), (32, 32), (0.0,) * 3, (1.0,) * 3, resize=40)
    picture = Image.new("RGB", (1, 60_000), (10, 20, 30))
    assert (made.pixels(picture) == (10, 20, 30)).all()


def test_order_and_scale_of_channels():
    """What Caffe's networks expect: blue first, 0 to 255 minus the mean of each channel."""
    pixels = IMAGENET.pixels(Image.new("RGB", (50, 60), (10, 20, 30)))
    assert (pixels == (30, 20, 10)).all() and pixels.flags.c_contiguous
    x = IMAGENET.batch_transform()(pixels[None])
    np.testing.assert_allclose(x[0, :, 5, 7], [(30 - 104) / 1, (20 - 117) / 2, (10 - 123) / 4], rtol=1e-5)


def test_of_a_published_model():
    made = Preprocessing.for_model(model_info("efficientnet_b0"))
    assert (made.input_size, made.image_size, made.resize, made.interpolation) == ((3, 224, 224), (224, 224), 256, "bicubic")
    assert Preprocessing.for_model(model_info("efficientnet_b3")).resize == 320


def test_a_published_model_of_blue_green_red():
    """The same input as with the mean in pixels of 0 to 255."""
    published = Preprocessing.for_model(model_info("squeezenet1_1_tf"))
    assert published.channel_order == "bgr" and published.resize == 227
    pixels = published.pixels(Image.new("RGB", (300, 300), (10, 20, 30)))
    x = published.batch_transform()(pixels[None])
    np.testing.assert_allclose(x[0, :, 100, 100], [30 - 104, 20 - 116.7, 10 - 122.7], rtol=1e-5)


@pytest.mark.parametrize("damage", [{"resize": 31}, {"resize": "x"}, {"interpolation": "cubic"}, {"channel_order": "grb"},
                                    {"pixel_scale": 3}])
def test_what_cannot_be_meant_is_refused(damage):
    with pytest.raises(CheckpointError, match="damaged or missing"):
        Preprocessing.from_metadata({**IMAGENET.as_metadata(), **damage})


@pytest.fixture
def pictures(tmp_path):
    return ImageFolder(write_classes(tmp_path / "photos", size=(32, 32)))


@pytest.mark.parametrize("kept", [0, 3, 11])
def test_a_folder_gives_the_same_pictures_from_memory_and_from_disk(kept, pictures, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", kept * 32 * 32)
    made = Preprocessing.for_data(LENET5, 1, (32, 32), False, False)
    folder = PictureFolder(pictures, made, made.batch_transform())
    assert list(folder.problems()) == [None] * 12
    for path, _ in pictures.samples[:kept]:
        open(path, "w").close()                     # what is kept is not read again
    batch, labels = folder.__getitems__([11, *range(kept)])
    single, label = folder[11]
    np.testing.assert_array_equal(batch[0], single)
    assert label == labels[0] == 1 and len(batch) == kept + 1
    with Image.open(pictures.samples[11][0]) as picture:
        np.testing.assert_allclose(single[0], (np.asarray(picture) / 255 - 0.1307) / 0.3081, atol=1e-5)


@pytest.mark.parametrize("kept", [0, 12])
def test_problems_are_found_in_headers_where_memory_is_short(kept, pictures, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", kept * 32 * 32)
    open(pictures.samples[5][0], "w").write("no picture")
    made = Preprocessing.for_data(LENET5, 1, (32, 32), False, False)
    problems = list(PictureFolder(pictures, made, made.batch_transform()).problems())
    assert [i for i, p in enumerate(problems) if p is not None] == [5] and "not an image" in str(problems[5])


def test_idx_pictures_of_another_size_are_scaled(tmp_path):
    folder = write_digits(tmp_path / "digits")
    for name, count in (("train", 60), ("t10k", 20)):
        write_idx(folder / f"{name}-images-idx3-ubyte", np.full((count, 50, 40), 128))
    data = open_classifier_data(folder, LENET5, 0.2, 0, None)
    assert "50x40 grey -> 1x32x32" in data.description and not data.preprocessing.digits
    images, labels = data.test.__getitems__([0, 13])
    assert images.shape == (2, 1, 32, 32) and labels.tolist() == [0, 3]
    np.testing.assert_allclose(images, (128 / 255 - 0.1307) / 0.3081, rtol=1e-5)


def test_distortion_is_for_training_only_and_follows_the_seed(tmp_path):
    write_digits(tmp_path / "digits")
    data = open_classifier_data(tmp_path / "digits", LENET5, 0.2, 0, DISTORTIONS)
    plain = open_classifier_data(tmp_path / "digits", LENET5, 0.2, 0, None)
    assert np.array_equal(data.test.__getitems__([0, 1])[0], plain.test.__getitems__([0, 1])[0])
    assert not np.array_equal(data.train.__getitems__([0, 1])[0], plain.train.__getitems__([0, 1])[0])
    shifted = open_classifier_data(tmp_path / "digits", LENET5, 0.2, 0, {"translate": (0.0, 0.0), "scale": (0.5, 0.5)})
    assert np.abs(shifted.train.__getitems__([0, 1])[0] - plain.train.__getitems__([0, 1])[0]).max() > 0.5


def test_samples_show_each_class(tmp_path):
    write_classes(tmp_path / "photos", ("a b", "çedille"), per_class=10)
    data = open_classifier_data(tmp_path / "photos", LENET5, 0.5, 0, None)
    data.save_samples(tmp_path / "samples")
    names = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert len(names) == 10 and sum(n.startswith("a_b-") for n in names) == 5 and sum(n.startswith("çedille-") for n in names) == 5


SMALL = model_info("resnet20_cifar")


def _arrays(rng, shape):
    return ArrayDataset(rng.integers(0, 256, shape, np.uint8), np.arange(len(range(shape[0]))) % 2)


@pytest.mark.parametrize("shape", [(6, 37, 41, 3), (6, 32, 32, 3)])
def test_cutting_an_array_is_one_kernel_and_gives_the_same_pixels(shape, rng):
    """Of a whole batch as of one picture after the other, which torchvision's transforms cut and mirror."""
    source, made = _arrays(rng, shape), Preprocessing.for_data(SMALL, 3, shape[1:3], False, False)
    for listed, choices in (([T.CenterCrop(32)], 1), ([T.RandomCrop(32)], (shape[1] - 31) * (shape[2] - 31)),
                            ([T.CenterCrop(32), T.RandomHorizontalFlip(1.0)], 1)):
        pictures = TransformedPictures(source, listed, made)
        assert pictures.kernel is not None and pictures.kernel.reads_rows
        with epoch_scope(3, 0):
            batch, labels = pictures.__getitems__([5, 0, 3])
            single = [pictures[index][0] for index in (5, 0, 3)]
        assert labels.tolist() == [1, 0, 1] and batch.dtype == np.float32
        for x, alone, index in zip(batch, single, (5, 0, 3)):
            np.testing.assert_array_equal(x, alone)
            back = made.picture(x)
            if isinstance(listed[0], T.RandomCrop):
                windows = np.lib.stride_tricks.sliding_window_view(source.data[index], (32, 32, 3)).reshape(-1, 32, 32, 3)
                assert len(windows) == choices and any(np.array_equal(back, w) for w in windows)
            else:
                np.testing.assert_array_equal(back, pictures.picture(index))


def test_random_windows_of_an_array(rng):
    """Means of windows of any size are those of the picture, and edges stay inside."""
    gradient = np.broadcast_to(np.linspace(0, 255, 40).astype(np.uint8)[:, None], (40, 40))[..., None].repeat(3, 2)
    source = ArrayDataset(np.stack([gradient] * 200), np.zeros(200, int))
    made = Preprocessing.for_data(SMALL, 3, (40, 40), False, False)
    pictures = TransformedPictures(source, [T.RandomResizedCrop(32, scale=(0.5, 1.0)), T.RandomHorizontalFlip()], made)
    assert isinstance(pictures.kernel, T.BatchResizedCropNormalize)
    shown = np.stack([made.picture(x) for x in pictures.__getitems__(range(200))[0]]).astype(float)
    assert abs(shown.mean() - 127.5) < 6 and (np.diff(shown[:, :, 5, 0], axis=1) >= 0).all() and len({s.mean() for s in shown}) > 30
    assert TransformedPictures(source, [T.RandomResizedCrop(16)], Preprocessing.for_data(LENET5, 3, (40, 40), False, False)).kernel is None


@pytest.mark.parametrize("listed", [
    [], [T.RandomHorizontalFlip()], [T.RandomCrop(32), T.Lighting()], [T.RandomCrop(32, padding=4, fill=9)],
    [T.RandomCrop(32, padding=4, padding_mode="reflect")], [T.RandomCrop(30)], [T.RandomCrop(32), T.CenterCrop(32)],
    [T.RandomResizedCrop(32, interpolation="bicubic")]])
def test_what_no_kernel_does_is_done_picture_by_picture(listed):
    made = Preprocessing.for_data(SMALL, 3, (40, 40), False, False)
    assert batch_kernel(listed, (40, 40), made) is None


def test_large_arrays_of_another_size_are_scaled_as_they_are_used(rng, monkeypatch):
    from numbanet.train import classifier_data
    source, made = _arrays(rng, (6, 50, 44, 3)), Preprocessing.for_data(SMALL, 3, (50, 44), False, False)
    kept = classifier_data._prepared(source, made, False)
    monkeypatch.setattr(classifier_data, "KEPT_BYTES", 100)
    read = classifier_data._prepared(source, made, False)
    assert isinstance(kept, ArrayDataset) and isinstance(read, TransformedPictures) and list(read.problems()) == []
    np.testing.assert_array_equal(kept.__getitems__([4, 1])[0], read.__getitems__([4, 1])[0])
    np.testing.assert_array_equal(picture_of(kept, 2), picture_of(read, 2))


def test_digits_of_a_list_are_made_as_those_of_class_folders(tmp_path):
    """Black on white, and much larger than MNIST's."""
    lines = ["path,label"]
    for label in range(10):
        for i in range(2):
            picture = Image.new("L", (90, 80), 255)
            ImageDraw.Draw(picture).text((20, 10), str(label), fill=0, font_size=50 + 10 * i)
            (tmp_path / "folders" / str(label)).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "folders" / str(label) / f"{i}.png")
            lines.append(f"folders/{label}/{i}.png,{label}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    listed, folders = (open_classifier_data(path, LENET5, 0.5, 0, None) for path in (tmp_path / "labels.csv", tmp_path / "folders"))
    assert listed.preprocessing == folders.preprocessing and listed.preprocessing.digits
    for part in ("train", "test"):
        a, b = getattr(listed, part), getattr(folders, part)
        order = np.argsort(a.targets, kind="stable")
        np.testing.assert_array_equal(a.__getitems__(order)[0], b.__getitems__(range(len(b)))[0])
