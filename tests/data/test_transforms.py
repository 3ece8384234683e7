"""Transforms of single images: PIL, uint8 arrays and floating-point arrays give the same picture."""

import numpy as np
import pytest
from PIL import Image as PILImage

from numbanet.data.randomness import enter_sample, epoch_scope
from numbanet.data.transforms import (
    CenterCrop,
    Compose,
    Grayscale,
    Image,
    InterpolationMode,
    Lambda,
    Normalize,
    Pad,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    Resize,
    ToDtype,
    ToImage,
    ToTensor,
)
from numbanet.errors import DTypeError, ShapeError, UsageError


@pytest.fixture
def colour(rng):
    return rng.integers(0, 256, (5, 7, 3), np.uint8)


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_to_tensor(rng, channels):
    array = rng.integers(0, 256, (5, 7, *channels), np.uint8)
    expected = (array.reshape(5, 7, -1).transpose(2, 0, 1) / 255).astype(np.float32)
    tensor = ToTensor()(array)
    assert tensor.dtype == np.float32 and tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor, expected, rtol=1e-6)
    if channels != (1,):
        np.testing.assert_array_equal(ToTensor()(PILImage.fromarray(array)), tensor)
    np.testing.assert_array_equal(Compose([ToImage(), ToDtype(np.float32, scale=True)])(array), tensor)
    np.testing.assert_array_equal(ToTensor()(array.astype(np.float64)), array.reshape(5, 7, -1).transpose(2, 0, 1))


def test_other_modes_of_pil():
    assert ToTensor()(PILImage.new("1", (2, 3), 1)).tolist() == [[[1.0] * 2] * 3]
    assert ToTensor()(PILImage.new("P", (2, 3))).shape == (3, 3, 2)


def test_to_dtype_keeps_or_scales(colour):
    image = ToImage()(colour)
    assert isinstance(image, Image) and image.shape == (3, 5, 7) and image.dtype == np.uint8
    assert ToDtype(np.float64)(image).max() == colour.max()
    np.testing.assert_array_equal(ToDtype(np.uint8, scale=True)(ToDtype(np.float32, scale=True)(image)), image)
    with pytest.raises(DTypeError, match="ToImage"):
        ToDtype(np.float32)(colour)
    with pytest.raises(DTypeError, match="scale"):
        ToDtype(np.int64, scale=True)(ToTensor()(colour))


def test_normalize(colour):
    x = ToTensor()(colour)
    mean, std = (0.5, 0.4, 0.3), (0.1, 0.2, 0.4)
    expected = (colour.transpose(2, 0, 1) / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    y = Normalize(mean, std)(x)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)
    assert y.dtype == np.float32 and x.max() <= 1
    assert Normalize(mean, std, inplace=True)(x) is x
    np.testing.assert_array_equal(x, y)
    with pytest.raises(ShapeError, match="1 or 3 values"):
        Normalize((0.5, 0.5), (1, 1))(x)
    with pytest.raises(DTypeError, match="ToTensor"):
        Normalize(0.5, 1)(colour)
    with pytest.raises(UsageError, match="std"):
        Normalize(0.5, (1, 0, 1))


def all_kinds(array):
    """The same picture as every kind of image, each with the way back to a float64 array (H, W, C)."""
    return [(PILImage.fromarray(array), lambda i: np.asarray(i).astype(float)), (array, lambda i: i.astype(float)),
            (ToImage()(array), lambda i: np.asarray(i).transpose(1, 2, 0).astype(float)),
            (array.transpose(2, 0, 1).astype(np.float32), lambda i: i.transpose(1, 2, 0).astype(float))]


@pytest.mark.parametrize("transform, tolerance", [
    (Pad(2), 0), (Pad((1, 2), fill=9), 0), (Pad((1, 0, 2, 3), padding_mode="reflect"), 0),
    (Resize((8, 4)), 1.01), (Resize(3), 1.01), (Resize((9, 9), InterpolationMode.NEAREST), 0),  # PIL rounds bytes twice
    (Resize((3, 4), "bicubic"), 1.01), (CenterCrop((3, 4)), 0), (CenterCrop(8), 0), (RandomCrop(3), 0),
    (RandomCrop((4, 6), padding=2, padding_mode="edge"), 0), (RandomCrop(9, pad_if_needed=True), 0),
    (RandomHorizontalFlip(1.0), 0), (RandomAffine(20, (0.1, 0.1), (0.8, 1.2), 10, "bilinear", fill=7), 1.01),
    (RandomAffine((10, 40)), 0), (Grayscale(), 0.51), (Grayscale(3), 0.51)], ids=lambda t: type(t).__name__)
def test_all_kinds_of_images_give_the_same_picture(colour, transform, tolerance):
    pictures = []
    for image, back in all_kinds(colour):
        with epoch_scope(1, 0):
            enter_sample(4)
            result = transform(image)
        assert type(result) is type(image) or isinstance(result, PILImage.Image)
        pictures.append(back(result).reshape(*back(result).shape[:2], -1))
    for picture in pictures[1:]:
        np.testing.assert_allclose(picture, pictures[0], atol=max(tolerance, 1e-4))
    for index in range(3):      # two-dimensional arrays too
        with epoch_scope(1, 0):
            enter_sample(index)
            flat = transform(colour[:, :, 0])
            enter_sample(index)
            np.testing.assert_array_equal(flat.reshape(*flat.shape[:2], -1), transform(colour[:, :, :1]))


def test_pad_agrees_with_numpy(colour):
    expected = np.pad(colour, ((2, 4), (1, 3), (0, 0)), constant_values=5)
    np.testing.assert_array_equal(Pad((1, 2, 3, 4), fill=5)(colour), expected)
    for options in ({"padding": -1}, {"padding": (1, 2, 3)}, {"padding": 1, "padding_mode": "wrap"}):
        with pytest.raises(UsageError, match="Pad"):
            Pad(**options)


def test_resize_agrees_with_pil(colour):
    expected = PILImage.fromarray(colour).resize((4, 3), PILImage.Resampling.BILINEAR)
    np.testing.assert_array_equal(Resize((3, 4))(colour), np.asarray(expected))
    assert Resize(10)(colour).shape == (10, 14, 3) and Resize(10)(colour.transpose(1, 0, 2)).shape == (14, 10, 3)
    assert Resize((5, 7))(colour) is colour
    with pytest.raises(UsageError, match="antialias"):
        Resize(3, antialias=False)
    with pytest.raises(UsageError, match="size"):
        Resize((0, 3))


def test_center_crop(colour):
    np.testing.assert_array_equal(CenterCrop(3)(colour), colour[1:4, 2:5])
    np.testing.assert_array_equal(CenterCrop((7, 7))(colour), np.pad(colour, ((1, 1), (0, 0), (0, 0))))


def test_random_crop_reaches_every_window_and_nothing_else():
    image = np.arange(20, dtype=np.uint8).reshape(4, 5)
    corners = set()
    with epoch_scope(0, 0):
        for index in range(100):
            enter_sample(index)
            crop = RandomCrop((2, 3))(image)
            corner = int(crop[0, 0])
            np.testing.assert_array_equal(crop, image[corner // 5:corner // 5 + 2, corner % 5:corner % 5 + 3])
            corners.add(corner)
    assert corners == {r * 5 + c for r in range(3) for c in range(3)}
    with pytest.raises(ShapeError, match="pad_if_needed"):
        RandomCrop(5)(image)


def test_flip_with_its_probability(colour):
    with epoch_scope(0, 0):
        flipped = 0
        for index in range(400):
            enter_sample(index)
            flipped += np.array_equal(RandomHorizontalFlip(0.25)(colour), colour[:, ::-1])
    assert 70 < flipped < 130
    assert RandomHorizontalFlip(0.0)(colour) is colour
    with pytest.raises(UsageError, match="probability"):
        RandomHorizontalFlip(1.5)


def test_random_affine_without_ranges_changes_nothing(colour):
    for interpolation in ("nearest", "bilinear"):
        np.testing.assert_array_equal(RandomAffine(0, interpolation=interpolation)(colour), colour)
    np.testing.assert_array_equal(RandomAffine((180, 180))(colour), colour[::-1, ::-1])
    assert (RandomAffine(0, scale=(0.1, 0.1), fill=50)(colour)[0] == 50).all()
    with pytest.raises(UsageError, match="lanczos"):
        RandomAffine(0, interpolation="lanczos")


def test_grayscale(colour):
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 200
    assert Grayscale()(red).tolist() == [[[60]]]
    grey = np.asarray(PILImage.fromarray(colour).convert("L"))
    assert np.abs(Grayscale()(colour)[..., 0].astype(int) - grey).max() <= 1
    assert Grayscale(3)(colour[:, :, :1]).shape == (5, 7, 3)
    with pytest.raises(ShapeError, match="channels"):
        Grayscale()(colour[:, :, :2])
    with pytest.raises(UsageError, match="1 or 3"):
        Grayscale(2)


def test_compose_and_lambda():
    assert Compose([Lambda(lambda x: x + 1), lambda x: x * 2])(3) == 8


@pytest.mark.parametrize("image", [np.zeros((2, 2), np.int32), np.zeros((2, 2)), np.zeros(3, np.uint8), "x.png", None])
def test_what_is_no_image(image):
    with pytest.raises(DTypeError, match="expected a PIL image"):
        Pad(1)(image)
