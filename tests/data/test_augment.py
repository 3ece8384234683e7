"""Colour and augmentation: what is drawn, from what, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image as PILImage

from numbanet.data import ArrayDataset, DataLoader
from numbanet.data import transforms as T
from numbanet.data.randomness import enter_sample, epoch_scope
from numbanet.data.transforms import functional as F
from numbanet.errors import DTypeError, ShapeError, UsageError


@pytest.fixture
def colour(rng):
    return rng.integers(0, 256, (12, 15, 3), np.uint8)


RANDOM = [T.RandomResizedCrop(9), T.RandomCrop(8, padding=2), T.RandomHorizontalFlip(), T.RandomVerticalFlip(), T.RandomRotation(30),
          T.RandomAffine(20, (0.1, 0.1)), T.ColorJitter(0.4, 0.4, 0.4, 0.1), T.RandomGrayscale(0.5), T.GaussianBlur(3), T.Lighting(0.5),
          T.RandAugment(), T.TrivialAugmentWide(), T.RandomErasing(0.9, value="random"), T.RandomApply([T.Pad(1)], 0.5)]


@pytest.mark.parametrize("transform", RANDOM, ids=lambda t: type(t).__name__)
def test_what_is_drawn_depends_on_seed_epoch_and_index_alone(colour, transform):
    dataset = ArrayDataset(np.stack([colour] * 12), range(12), transform=transform)
    runs = [[np.asarray(image).tolist() for batch in DataLoader(dataset, size, num_workers=workers, collate_fn=list, seed=3)
             for image, _ in batch] for workers, size in ((0, 1), (2, 5), (3, 12))]
    assert runs[0] == runs[1] == runs[2]
    assert len({str(image) for image in runs[0]}) > 1
    other = DataLoader(dataset, 12, collate_fn=list, seed=3)
    other.set_epoch(1)
    assert [np.asarray(image).tolist() for image, _ in next(iter(other))] != runs[0]


@pytest.mark.parametrize("transform", RANDOM, ids=lambda t: type(t).__name__)
def test_arrays_and_pillow_images_give_the_same(colour, transform):
    results = []
    before = colour.copy()
    for image in (colour, PILImage.fromarray(colour), T.ToImage()(colour)):
        with epoch_scope(0, 0):
            enter_sample(5)
            result = transform(image)
        results.append(np.asarray(result).transpose(1, 2, 0) if isinstance(result, T.Image) else np.asarray(result))
        assert results[-1].dtype == np.uint8
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(colour, before)


def test_lighting_is_along_the_principal_components():
    """The covariance of what is added is V diag((0.1 lambda)^2) V^T, for floats and, rounded, for bytes."""
    shifts = {np.float32: [], np.uint8: []}
    with epoch_scope(0, 0):
        for index in range(3000):
            for dtype, values in shifts.items():
                enter_sample(index)
                image = np.full((3, 1, 1), 0.5, np.float32) if dtype is np.float32 else np.full((1, 1, 3), 100, np.uint8)
                result = T.Lighting()(image)
                assert result.dtype == dtype
                values.append(result.ravel() - 0.5 if dtype is np.float32 else (result.ravel() - 100.0) / 255)
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    expected = vectors @ np.diag((0.1 * np.array([0.2175, 0.0188, 0.0045])) ** 2) @ vectors.T
    received = np.cov(np.array(shifts[np.float32]).T)
    np.testing.assert_allclose(received, expected, atol=0.06 * expected.max())
    assert np.abs(np.array(shifts[np.uint8]) - np.array(shifts[np.float32])).max() < 0.51 / 255
    np.testing.assert_allclose(np.mean(shifts[np.float32], 0), 0, atol=4 * np.sqrt(expected.max() / 3000))
    with pytest.raises(ShapeError, match="3 channels"):
        T.Lighting()(np.zeros((4, 4), np.uint8))


def test_windows_that_do_not_fit_become_the_middle():
    crop = T.RandomResizedCrop(4, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert crop.window((10, 30)) == (0, 10, 10, 10) and crop.window((30, 10)) == (10, 0, 10, 10)
    assert T.RandomResizedCrop(4, (1, 1), (5, 5)).window((30, 10)) == (14, 0, 2, 10)
    assert crop.window((1, 1)) == (0, 0, 1, 1)


def test_erasing(colour):
    x = np.ones((3, 20, 30), np.float32)
    with epoch_scope(0, 0):
        for index in range(50):
            enter_sample(index)
            result = T.RandomErasing(1.0, value=(0.25, 0.5, 0.75))(x)
            rows, columns = np.nonzero(result[0] != 1)
            assert 0.01 < len(rows) / 600 < 0.36 and len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            assert {0.25, 1.0} == {*np.unique(result[0]).tolist()} and {0.75, 1.0} == {*np.unique(result[2]).tolist()}
    assert x.min() == 1
    assert T.RandomErasing(1.0, inplace=True)(x) is x and x.min() == 0
    noise = T.RandomErasing(1.0, (0.3, 0.33), value="random")(np.zeros((3, 60, 60), np.float32))
    assert abs(noise[noise != 0].std() - 1) < 0.1
    with pytest.raises(ShapeError, match="one a channel"):
        T.RandomErasing(1.0, value=(1, 2))(colour)


def test_colours_of_floats_are_refused(colour):
    x = T.ToTensor()(colour)
    for transform in (T.ColorJitter(0.5), T.TrivialAugmentWide(), T.RandAugment(8)):
        with pytest.raises(DTypeError, match="put it before ToTensor"):
            with epoch_scope(0, 0):
                for index in range(40):
                    enter_sample(index)
                    transform(x)
    with pytest.raises(ShapeError, match="channels"):
        F.adjust_brightness(np.zeros((4, 4, 2), np.uint8), 1.2)
    with pytest.raises(UsageError, match="-0.5"):
        F.adjust_hue(colour, 0.6)


def test_floats_and_other_channels_move_as_bytes_do(rng):
    image = rng.integers(0, 256, (9, 11, 4), np.uint8)
    floats = image.transpose(2, 0, 1).astype(np.float64)
    for transform in (T.Resize((5, 6)), T.RandomRotation((30, 30)), T.RandomAffine((20, 20), fill=(1, 2, 3, 4))):
        bytes_, values = transform(image), transform(floats)
        assert values.dtype == np.float64
        np.testing.assert_allclose(values.transpose(1, 2, 0), bytes_, atol=1.01)


def test_modes_of_pillow_in_transforms():
    deep = PILImage.fromarray(np.full((6, 6), 40 * 257, np.uint16))
    assert np.asarray(T.Resize(3)(deep)).tolist() == [[40] * 3] * 3
    clear = PILImage.new("RGBA", (6, 6), (10, 20, 30, 0))
    assert np.asarray(T.CenterCrop(2)(clear)).tolist() == [[[255] * 3] * 2] * 2
    buffer = io.BytesIO()
    PILImage.new("CMYK", (6, 6), (0, 255, 255, 0)).save(buffer, "TIFF")
    red = np.asarray(T.RandomHorizontalFlip(1.0)(PILImage.open(buffer)))
    assert red.shape == (6, 6, 3) and red[0, 0, 0] > 200 > 100 > red[0, 0, 1]
    palette = PILImage.new("RGB", (6, 6), (200, 0, 0)).convert("P")
    assert np.asarray(T.Pad(1)(palette)).shape == (8, 8, 3)


@pytest.mark.parametrize("make", [
    lambda: T.RandomResizedCrop(0), lambda: T.RandomResizedCrop(8, scale=(0.5, 1.5)), lambda: T.RandomResizedCrop(8, ratio=(0, 1)),
    lambda: T.RandomResizedCrop(8, antialias=False), lambda: T.Resize(None), lambda: T.Resize(9, max_size=9),
    lambda: T.Resize((3, 4), max_size=9), lambda: T.Resize(3, "cubic"),
    lambda: T.RandomVerticalFlip(-0.1), lambda: T.RandomRotation(-1), lambda: T.RandomRotation(10, "lanczos"), lambda: T.ColorJitter(-0.1),
    lambda: T.ColorJitter(hue=0.6), lambda: T.ColorJitter(contrast=(2, 1)), lambda: T.ColorJitter(saturation=(1, 2, 3)),
    lambda: T.GaussianBlur(4), lambda: T.GaussianBlur(3, (0, 1)), lambda: T.GaussianBlur(3, (2, 1)), lambda: T.Lighting(-1),
    lambda: T.Lighting(0.1, (1, 2)), lambda: T.RandAugment(-1), lambda: T.RandAugment(2, 31), lambda: T.TrivialAugmentWide(1),
    lambda: T.RandomErasing(2), lambda: T.RandomErasing(value="black"), lambda: T.RandomErasing(scale=(0.5, 0.1)),
    lambda: T.RandomGrayscale(3), lambda: T.RandomApply([], 7), lambda: T.Pad(1, fill=(1, 2))(np.zeros((3, 3), np.uint8)),
    lambda: T.RandomRotation((9, 9), fill=(1, 2))(np.zeros((3, 3, 3), np.uint8))])
def test_parameters_that_cannot_be_meant(make):
    with pytest.raises(UsageError) as raised:
        make()
    assert str(raised.value)


def test_transforms_show_their_parameters():
    text = repr(T.Compose([T.RandomResizedCrop(8), T.RandAugment(), T.ToTensor()]))
    assert "RandomResizedCrop(size=(8, 8), scale=(0.08, 1.0)" in text and "num_ops=2, magnitude=9" in text and "ToTensor()" in text
