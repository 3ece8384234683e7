"""Plain JPEGs are decoded in one go, to the bits of Pillow's own way; all others are left to it."""

import io

import numpy as np
import pytest
from PIL import Image

from numbanet.data.images import load_image, load_pixels
from numbanet.data.jpeg import plain_size, read_plain_jpeg
from numbanet.errors import DataError


def written(path, mode="RGB", size=(37, 23), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], len(Image.new(mode, (1, 1)).getbands())), np.uint8)
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels, mode).save(path, "JPEG", **options)
    return path


PLAIN = {"usual": {}, "grey": {"mode": "L"}, "progressive": {"progressive": True}, "whole chroma": {"subsampling": 0, "quality": 97},
         "a pixel": {"size": (1, 1)}, "profile": {"icc_profile": b"x" * 70_000}, "comment": {"comment": b"by hand"},
         "restarts": {"restart_marker_rows": 1}}


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_plain_files(tmp_path, options):
    path = written(tmp_path / "a.jpg", **options)
    found = read_plain_jpeg(path, 10_000)
    with Image.open(path) as expected:
        assert found.mode == expected.mode and plain_size(path.read_bytes())[:2] == expected.size
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
        np.testing.assert_array_equal(np.asarray(load_image(path)), np.asarray(expected.convert("RGB")))
        np.testing.assert_array_equal(np.asarray(load_image(path, "L")), np.asarray(expected.convert("L")))


def test_what_is_not_plain_is_left_alone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, inks = written(tmp_path / "t.jpg", exif=exif), written(tmp_path / "c.jpg", mode="CMYK")
    assert read_plain_jpeg(turned, 10_000) is None and load_image(turned).size == (23, 37)
    assert read_plain_jpeg(inks, 10_000) is None and load_image(inks).mode == "RGB"
    usual = written(tmp_path / "u.jpg")
    assert read_plain_jpeg(usual, 37 * 23) is not None and read_plain_jpeg(usual, 37 * 23 - 1) is None
    with pytest.raises(DataError, match="more than the 100 pixels"):
        load_image(usual, max_pixels=100)
    Image.new("RGB", (5, 4)).save(tmp_path / "png.jpg", "PNG")
    assert read_plain_jpeg(tmp_path / "png.jpg", 100) is None and load_image(tmp_path / "png.jpg").size == (5, 4)
    assert read_plain_jpeg(tmp_path / "missing.jpg", 100) is None and read_plain_jpeg(tmp_path, 100) is None


def test_every_truncation_is_an_error_as_before(tmp_path):
    whole = written(tmp_path / "w.jpg", size=(16, 16)).read_bytes()
    for length in range(0, len(whole) - 2, 3):
        (tmp_path / "p.jpg").write_bytes(whole[:length])
        assert read_plain_jpeg(tmp_path / "p.jpg", 1000) is None, length
        with pytest.raises(DataError):
            load_image(tmp_path / "p.jpg")


def test_damaged_files_give_pixels_or_none(tmp_path):
    """Whatever the bytes, both ways agree: the same pixels, or an error."""
    rng = np.random.default_rng(1)
    whole = np.frombuffer(written(tmp_path / "w.jpg").read_bytes(), np.uint8)
    for _ in range(300):
        data = whole.copy()
        data[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        (tmp_path / "d.jpg").write_bytes(data.tobytes())
        found = read_plain_jpeg(tmp_path / "d.jpg", 1 << 20)
        try:
            with Image.open(io.BytesIO(data.tobytes())) as image:
                image.load()
                expected = image
        except Exception:
            expected = None
        if found is not None:
            assert expected is not None and expected.size == found.size
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_lent_pictures_are_of_one_memory_and_pixels_are_not(tmp_path):
    paths = [written(tmp_path / f"{i}.jpg", quality=20 + 30 * i) for i in range(2)] + [written(tmp_path / "2.jpg", size=(5, 9))]
    expected = [np.asarray(load_image(path)) for path in paths]
    out = [np.zeros(pixels.shape, np.uint8) for pixels in expected]
    for path, into in zip(paths, out):
        assert load_pixels(path, into) is into
    for into, pixels in zip(out, expected):
        np.testing.assert_array_equal(into, pixels)
    first, second = (read_plain_jpeg(path, 1000, lent=True) for path in paths[:2])
    assert first is second and read_plain_jpeg(paths[0], 1000) is not first
    other = np.zeros((3, 3, 3), np.uint8)               # does not fit
    np.testing.assert_array_equal(load_pixels(paths[0], other), expected[0])
    assert not other.any()
