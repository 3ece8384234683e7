"""Digits drawn in many ways come out as nearly the same picture, and MNIST's as themselves."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from numbanet.data.datasets import MNISTSample
from numbanet.data.transforms import normalize_digit
from numbanet.errors import DataError, DTypeError


def draw(digit, size, ink, paper, height=0.6, shift=(0.0, 0.0), noise=0.0, light=0.0):
    """A digit in the middle of a square picture, with noise and with light that falls off from top to bottom."""
    image = Image.new("L", (size, size), paper)
    font = ImageFont.load_default(size * height)
    ImageDraw.Draw(image).text(((0.5 + shift[0]) * size, (0.5 + shift[1]) * size), str(digit), ink, font, "mm")
    grain = noise * np.random.default_rng(digit).standard_normal((size, size))
    return np.clip(np.asarray(image) + grain + light * np.linspace(-0.5, 0.5, size)[:, None], 0, 255).astype(np.uint8)


VARIANTS = {
    "white on black": {"size": 200, "ink": 255, "paper": 0},
    "small": {"size": 64, "ink": 10, "paper": 240},
    "tiny without margin": {"size": 40, "ink": 0, "paper": 255, "height": 0.9},
    "large, pale and noisy": {"size": 900, "ink": 60, "paper": 200, "noise": 10},
    "light ink in a corner": {"size": 300, "ink": 230, "paper": 40, "height": 0.4, "shift": (0.25, -0.25), "noise": 5},
    "uneven light": {"size": 400, "ink": 40, "paper": 190, "light": 60, "noise": 4},
    "faint pencil": {"size": 300, "ink": 150, "paper": 200, "noise": 3},
}


def difference(a, b):
    return np.abs(a.astype(float) - b).mean()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("digit", range(10))
def test_variants_of_a_drawing_give_one_picture(digit, variant):
    picture = normalize_digit(draw(digit, 200, 0, 255))
    others = [normalize_digit(draw(other, 200, 0, 255)) for other in range(10) if other != digit]
    distance = difference(normalize_digit(draw(digit, **VARIANTS[variant])), picture)
    assert distance < 10
    assert distance < 0.75 * min(difference(other, picture) for other in others)


@pytest.mark.parametrize("digit", range(10))
def test_picture_is_as_mnists(digit):
    picture = normalize_digit(draw(digit, 200, 0, 255))
    assert picture.shape == (28, 28) and picture.dtype == np.uint8 and picture.max() == 255
    rows, columns = (np.flatnonzero((picture > 100).any(axis)) for axis in (1, 0))
    assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
    mass = picture.sum(dtype=float)
    assert abs((picture.sum(1) * np.arange(28)).sum() / mass - 14) < 0.3
    assert abs((picture.sum(0) * np.arange(28)).sum() / mass - 14) < 0.3


def test_digits_of_mnist_stay_as_they_are():
    digits = MNISTSample(train=False).data[::20]
    distances = [difference(normalize_digit(digit), digit) for digit in digits]
    assert np.mean(distances) < 6 and max(distances) < 25
    inverted = [difference(normalize_digit(255 - digit), normalize_digit(digit)) for digit in digits]
    assert max(inverted) < 1


def test_kinds_of_images():
    array = draw(5, 100, 0, 255)
    expected = normalize_digit(array)
    clear = np.zeros((100, 100, 4), np.uint8)
    clear[..., 3] = 255 - array                 # black ink on a transparent sheet
    for image in (array[:, :, None], np.repeat(array[:, :, None], 3, 2), Image.fromarray(array),
                  Image.fromarray(array).convert("RGB"), Image.fromarray(clear)):
        assert difference(normalize_digit(image), expected) < 1


def test_other_shapes_of_sheets():
    array = draw(4, 200, 0, 255)
    wide = np.pad(array, ((0, 0), (300, 100)), constant_values=255)
    assert difference(normalize_digit(wide), normalize_digit(array)) < 10


def test_specks_are_dropped():
    array = draw(3, 200, 0, 255)
    dirty = array.copy()
    dirty[10:14, 10:14] = 0
    dirty[190, 100] = 0
    assert difference(normalize_digit(dirty), normalize_digit(array)) < 2


def test_fine_pens_are_widened():
    def seven(width):
        image = Image.new("L", (300, 300), 255)
        ImageDraw.Draw(image).line([(80, 60), (220, 60), (130, 250)], 0, width)
        return normalize_digit(image)

    thin, thick = seven(2), seven(24)
    assert 0.4 < (thin > 127).sum() / (thick > 127).sum() < 1.1
    assert (thin.max(1) > 127).sum() >= 19      # no gaps in the stroke


@pytest.mark.parametrize("image", [np.full((50, 50), 200, np.uint8), np.zeros((28, 28), np.uint8),
                                   (128 + 8 * np.random.default_rng(0).standard_normal((60, 60))).astype(np.uint8)],
                         ids=["grey", "black", "noise"])
def test_sheets_without_ink(image):
    with pytest.raises(DataError, match="without clear ink"):
        normalize_digit(image)


def test_what_is_no_picture():
    with pytest.raises(DTypeError, match="uint8"):
        normalize_digit(np.zeros((28, 28)))
    with pytest.raises(DataError, match="3 x 3"):
        normalize_digit(np.zeros((2, 28), np.uint8))
