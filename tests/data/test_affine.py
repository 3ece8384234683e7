"""Affine maps and sampling: against torch's grid_sample, loops, and exact cases."""

import math

import numpy as np
import pytest

from numbanet.data.randomness import enter_sample, epoch_scope
from numbanet.data.transforms import (
    AffineRanges,
    BatchAffineNormalize,
    RandomAffine,
    affine_matrices,
    images_affine_normalize,
)
from numbanet.errors import DTypeError, ShapeError, UsageError

IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])


def affine_by_loops(images, matrices, output_size, mean, std):
    count, height, width, channels = images.shape
    out = np.empty((count, channels, *output_size))
    for n, c, i, j in np.ndindex(out.shape):
        x, y = matrices[n] @ [j, i, 1]
        total = 0.0
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    total += (1 - abs(y - row)) * (1 - abs(x - column)) * images[n, row, column, c]
        out[n, c, i, j] = (total / 255 - mean[c]) / std[c]
    return out


@pytest.mark.parametrize("channels, size, output_size", [(1, (5, 7), (9, 4)), (3, (6, 3), (6, 3)), (2, (1, 1), (3, 2))])
def test_sampling_against_loops(rng, channels, size, output_size):
    images = rng.integers(0, 256, (3, *size, channels), np.uint8)
    matrices = IDENTITY + 0.4 * rng.standard_normal((3, 2, 3)) + [[0, 0, -1.5], [0, 0, 0.5]]
    mean, std = rng.random(channels), 0.5 + rng.random(channels)
    out = np.full((3, channels, *output_size), np.nan, np.float32)
    assert images_affine_normalize(images, matrices, output_size, mean, std, out) is out
    np.testing.assert_allclose(out, affine_by_loops(images, matrices, output_size, mean, std), rtol=1e-5, atol=1e-5)


def test_sampling_against_torch(rng):
    torch = pytest.importorskip("torch")
    images = rng.integers(0, 256, (4, 9, 6), np.uint8)
    theta = torch.tensor(np.eye(2, 3) + 0.3 * rng.standard_normal((4, 2, 3)))
    grid = torch.nn.functional.affine_grid(theta, (4, 1, 8, 7), align_corners=True)
    expected = torch.nn.functional.grid_sample(torch.tensor(images[:, None] / 255), grid, align_corners=True)
    # The same maps from pixels to pixels instead of from -1 ... 1 to -1 ... 1.
    to_unit = np.array([[2 / 6, 0, -1], [0, 2 / 7, -1], [0, 0, 1]])
    from_unit = np.array([[5 / 2, 0, 5 / 2], [0, 8 / 2, 8 / 2], [0, 0, 1]])
    square = np.concatenate([theta.numpy(), np.tile([[[0, 0, 1.0]]], (4, 1, 1))], 1)
    ours = images_affine_normalize(images, (from_unit @ square @ to_unit)[:, :2], (8, 7), 0.0, 1.0)
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5)


def test_whole_pixel_maps_are_exact(rng):
    images = rng.integers(0, 256, (2, 4, 5), np.uint8)
    matrices = np.stack([IDENTITY, IDENTITY + [[0, 0, 1], [0, 0, -1]]])
    moved = images_affine_normalize(images, matrices, (4, 5), 0.0, 1 / 255)
    np.testing.assert_array_equal(np.rint(moved[0, 0]), images[0])
    expected = np.zeros((4, 5))
    expected[1:, :4] = images[1, :3, 1:]
    np.testing.assert_array_equal(np.rint(moved[1, 0]), expected)


def test_far_outside_is_black(rng):
    images = rng.integers(1, 256, (1, 4, 5), np.uint8)
    for far in (1e3, -1e3, 1e30, -1e30):
        out = images_affine_normalize(images, (IDENTITY + [[0, 0, far], [0, 0, 0]])[None], (4, 5), 0.5, 0.25)
        np.testing.assert_array_equal(out, -2.0)


def test_sampling_runs_on_the_reference_where_that_is_the_default(rng, monkeypatch):
    from numbanet.backends import get_backend

    images, matrices = rng.integers(0, 256, (2, 4, 5, 3), np.uint8), np.stack([IDENTITY + 0.3, IDENTITY - 0.2])
    monkeypatch.setenv("NUMBANET_DEVICE", "reference")
    received = images_affine_normalize(images, matrices, (5, 4), 0.5, 0.25)
    expected = get_backend("reference").images_affine_normalize(images, matrices, (5, 4), (0.5,) * 3, (0.25,) * 3)
    np.testing.assert_array_equal(received, expected)
    monkeypatch.delenv("NUMBANET_DEVICE")
    np.testing.assert_allclose(images_affine_normalize(images, matrices, (5, 4), 0.5, 0.25), expected, rtol=1e-4, atol=1e-5)


def test_empty_batch_and_strided_images(rng):
    nothing = images_affine_normalize(np.zeros((0, 4, 4), np.uint8), np.zeros((0, 2, 3)), (3, 3), 0, 1)
    assert nothing.shape == (0, 1, 3, 3)
    images = rng.integers(0, 256, (6, 8, 5), np.uint8)
    matrices = np.tile(IDENTITY, (3, 1, 1))
    np.testing.assert_array_equal(images_affine_normalize(images[::2, ::-1], matrices, (8, 5), 0, 1),
                                  images_affine_normalize(images[::2, ::-1].copy(), matrices, (8, 5), 0, 1))


@pytest.mark.parametrize("change, error, message", [
    ({"images": np.zeros((1, 4, 4), np.float32)}, DTypeError, "uint8"),
    ({"images": np.zeros((4, 4), np.uint8)}, ShapeError, "N, H, W"),
    ({"matrices": IDENTITY}, ShapeError, "matrices"), ({"mean": [0.0, 0.0]}, ShapeError, "mean"),
    ({"std": 0.0}, UsageError, "std"), ({"out": np.zeros((1, 1, 4, 3), np.float32)}, ShapeError, "out"),
    ({"out": np.zeros((1, 1, 4, 4))}, ShapeError, "out"),
])
def test_operands_that_do_not_fit(change, error, message):
    arguments = {"images": np.zeros((1, 4, 4), np.uint8), "matrices": IDENTITY[None], "output_size": (4, 4),
                 "mean": 0.0, "std": 1.0}
    with pytest.raises(error, match=message):
        images_affine_normalize(**{**arguments, **change})


def one_map(angle=0.0, translate=(0.0, 0.0), scale=1.0, shear=(0.0, 0.0), size=(5, 5), output_size=(5, 5)):
    parameters = (np.array([value]) for value in (angle, translate, scale, shear))
    return affine_matrices(*parameters, size, output_size)


def test_turning_by_a_right_angle_is_numpys_rot90(rng):
    image = rng.integers(0, 256, (1, 5, 5), np.uint8)
    turned = images_affine_normalize(image, one_map(angle=90.0), (5, 5), 0.0, 1 / 255)
    np.testing.assert_allclose(turned[0, 0], np.rot90(image[0], -1), atol=1e-3)     # clockwise


def test_padding_puts_the_picture_into_the_middle(rng):
    image = rng.integers(0, 256, (1, 28, 28), np.uint8)
    padded = images_affine_normalize(image, one_map(size=(28, 28), output_size=(32, 32)), (32, 32), 0.0, 1 / 255)
    np.testing.assert_array_equal(np.rint(padded[0, 0]), np.pad(image[0], 2))


def test_maps_of_points():
    centre = np.array([3.0, 1.0])          # of 3 x 7 pixels
    for options, point, image in [({"translate": (2.0, -1.0)}, [3, 1], [5, 0]), ({"scale": 2.0}, [4, 1], [5, 1]),
                                  ({"angle": 90.0}, [4, 1], [3, 2]), ({"shear": (45.0, 0.0)}, [3, 2], [2, 2])]:
        back = one_map(size=(3, 7), output_size=(3, 7), **options)[0]
        np.testing.assert_allclose(back @ [*image, 1], point, atol=1e-12, err_msg=str(options))
    turned = one_map(angle=33.0, scale=1.2, size=(3, 7), output_size=(3, 7))[0]
    np.testing.assert_allclose(turned @ [*centre, 1], centre)


def test_random_parameters_stay_in_their_ranges(rng):
    ranges = AffineRanges(10, (0.1, 0.2), (0.8, 1.25), (-5, 5))
    uniforms = np.array([[0.5] * 6, [1.0, 0.5, 0.5, 0.0, 0.5, 0.5], [0.5, 1.0, 0.0, 0.2, 0.5, 0.5]])
    corners = ranges.matrices(uniforms, (10, 20), (10, 20))
    half = np.sqrt(np.linalg.det(corners[:, :, :2]))
    np.testing.assert_allclose(half, 1 / np.array([1.025, 0.8, 0.89]), rtol=1e-6)
    np.testing.assert_allclose(np.degrees(np.arctan2(corners[1, 0, 1], corners[1, 0, 0])), 10)
    middle = corners[2] @ [9.5 + 2, 4.5 - 2, 1]         # the centre went 0.1 of 20 right and 0.2 of 10 up
    np.testing.assert_allclose(middle, [9.5, 4.5])


@pytest.mark.parametrize("options", [{"degrees": -1}, {"degrees": (3, 1)}, {"translate": (0.1, 1.5)},
                                     {"translate": (0.1,)}, {"scale": (0, 1)}, {"shear": 90}, {"shear": (1, 2, 3)}])
def test_impossible_ranges(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        AffineRanges(**options)


OPTIONS = {"degrees": 12, "translate": (0.1, 0.1), "scale": (0.9, 1.1), "shear": 8}


@pytest.mark.parametrize("channels", [(), (3,)])
def test_batches_see_the_maps_of_single_images(rng, channels):
    # Black around the pictures: at the border of an image, Pillow repeats its pixels and the kernel fades to black.
    images = np.zeros((4, 9, 8, *channels), np.uint8)
    images[:, 3:6, 3:6] = rng.integers(0, 256, (4, 3, 3, *channels), np.uint8)
    batch, single = BatchAffineNormalize((9, 8), **OPTIONS), RandomAffine(**OPTIONS, interpolation="bilinear")
    with epoch_scope(3, 1):
        together = batch(images, [5, 0, 2, 9])
        for n, index in enumerate([5, 0, 2, 9]):
            enter_sample(index)
            alone = single(images[n]).reshape(9, 8, -1).transpose(2, 0, 1)
            np.testing.assert_allclose(together[n] * 255, alone, atol=1.01)     # Pillow cuts fractions off
        np.testing.assert_array_equal(batch(images[1:3], [0, 2]), together[1:3])
        assert not np.array_equal(batch(images, [6, 0, 2, 9])[0], together[0])


def test_batch_without_ranges_pads_and_normalises(rng):
    images = rng.integers(0, 256, (3, 28, 28), np.uint8)
    out = BatchAffineNormalize(32, mean=0.1307, std=0.3081)(images)
    expected = (np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, None] / 255 - 0.1307) / 0.3081
    assert out.dtype == np.float32 and out.shape == (3, 1, 32, 32)
    np.testing.assert_allclose(out, expected, atol=1e-6)
