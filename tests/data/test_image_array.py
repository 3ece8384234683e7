"""Pixels of Pillow's images without a detour, beside np.asarray."""

import numpy as np
import pytest
from PIL import Image

from numbanet.data import load_image
from numbanet.data.images import image_array


def picture(mode, size):
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 4), np.uint8)
    return Image.fromarray(pixels).convert(mode)


# the largest lies in several blocks of Pillow's
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1, 500), (301, 211), (2300, 2100), (0, 4)])
@pytest.mark.parametrize("mode", ["L", "RGB", "1", "RGBA", "I;16", "F"])
def test_pixels_are_those_of_numpy(mode, size):
    image = picture("L", size).convert("I").convert(mode) if mode == "I;16" else picture(mode, size)
    expected = np.asarray(image)
    found = image_array(image)
    assert found.dtype == expected.dtype and found.shape == expected.shape and np.array_equal(found, expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_out_is_written_where_it_fits(mode):
    image = picture(mode, (9, 5))
    expected = np.asarray(image)
    wide = np.zeros((5, 12, *expected.shape[2:]), np.uint8)
    slot = wide[:, 1:10]                    # not contiguous
    assert image_array(image, slot) is slot and np.array_equal(slot, expected) and not wide[:, 10:].any() and not wide[:, 0].any()
    other = np.zeros((3, 3, 3), np.uint8)
    assert np.array_equal(image_array(image, other), expected) and not other.any()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_outlive_the_image(mode):
    image = picture(mode, (64, 64))
    expected, found = np.array(image), image_array(image)
    del image
    others = [picture(mode, (64, 64)).point(lambda v: 255 - v) for _ in range(8)]
    assert np.array_equal(found, expected) and len(others) == 8


def test_arrays_pass():
    array = np.zeros((2, 3), np.float32)
    assert image_array(array) is array


def test_jpeg_turned_by_its_exif_tag_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    picture("RGB", (8, 4)).save(tmp_path / "plain.jpg")
    assert load_image(tmp_path / "turned.jpg").size == (4, 8) and load_image(tmp_path / "plain.jpg").size == (8, 4)
