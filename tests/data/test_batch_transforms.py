"""Windows of batches: against NumPy's slices, against the transforms of single images, and what is drawn."""

import numpy as np
import pytest

from numbanet.data import ArrayDataset, DataLoader
from numbanet.data.randomness import enter_sample, epoch_scope, sample_uniforms
from numbanet.data.transforms import (
    BatchCropNormalize,
    BatchResizedCropNormalize,
    CenterCrop,
    RandomResizedCrop,
    ToTensor,
    images_crop_normalize,
)
from numbanet.errors import DTypeError, IndexRangeError, ShapeError, UsageError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


@pytest.fixture
def photos(rng):
    return rng.integers(0, 256, (6, 12, 10, 3), np.uint8)


def normalised(windows, mean=MEAN, std=STD):
    return ((np.asarray(windows) / 255 - mean) / std).transpose(0, 3, 1, 2)


def test_windows_against_slices(photos):
    padded = np.pad(photos, ((0, 0), (9, 9), (9, 9), (0, 0)))
    windows = [(n, top, left, flip) for n in (0, 5) for top in (-3, 0, 4, 9) for left in (-8, 0, 2, 7) for flip in (0, 1)]
    cut = [padded[n, 9 + top:16 + top, 9 + left:14 + left][:, ::-1 if flip else 1] for n, top, left, flip in windows]
    result = images_crop_normalize(photos, windows, (7, 5), MEAN, STD)
    assert result.dtype == np.float32 and result.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_allclose(result, normalised(cut), atol=1e-5)
    rowwise = np.full((len(windows), 3, 7, 5), np.nan, np.float32)
    assert images_crop_normalize(photos, windows, (7, 5), MEAN, STD, out=rowwise) is rowwise
    np.testing.assert_array_equal(rowwise, result)
    turned = photos.transpose(0, 2, 1, 3)                   # pixels of a row are not beside each other
    np.testing.assert_array_equal(images_crop_normalize(turned, [(1, 0, 0, 0)], (10, 12), MEAN, STD),
                                  images_crop_normalize(turned.copy(), [(1, 0, 0, 0)], (10, 12), MEAN, STD))


@pytest.mark.parametrize(("arguments", "error"), [
    ((np.zeros((2, 3, 3), np.int16), [(0, 0, 0, 0)], (2, 2), 0, 1), DTypeError),
    ((np.zeros((3, 3), np.uint8), [(0, 0, 0, 0)], (2, 2), 0, 1), ShapeError),
    ((np.zeros((2, 3, 3), np.uint8), [(0, 0, 0)], (2, 2), 0, 1), ShapeError),
    ((np.zeros((2, 3, 3), np.uint8), [(2, 0, 0, 0)], (2, 2), 0, 1), IndexRangeError),
    ((np.zeros((2, 3, 3), np.uint8), [(-1, 0, 0, 0)], (2, 2), 0, 1), IndexRangeError),
    ((np.zeros((2, 3, 3), np.uint8), [(0, 0, 0, 0)], (2, 2), 0, 0), UsageError),
    ((np.zeros((2, 3, 3, 3), np.uint8), [(0, 0, 0, 0)], (2, 2), (0, 0), 1), ShapeError)])
def test_operands_that_do_not_fit(arguments, error):
    with pytest.raises(error, match="images_crop_normalize"):
        images_crop_normalize(*arguments)


@pytest.mark.parametrize("size", [(12, 10), (7, 5), (15, 4), (16, 17)])
def test_middles_are_those_of_center_crop(photos, size):
    single = [ToTensor()(CenterCrop(size)(photo)).transpose(1, 2, 0) * 255 for photo in photos]
    np.testing.assert_allclose(BatchCropNormalize(size, MEAN, STD)(photos), normalised(single), atol=1e-5)
    np.testing.assert_allclose(BatchCropNormalize(size)(photos[..., 0])[:, 0] * 255, np.array(single)[..., 0], atol=1e-3)


def test_random_windows_reach_everything_and_nothing_else():
    rows, columns = np.mgrid[:6, :5]
    images = np.stack([np.dstack([rows + 1, columns + 1, np.ones_like(rows)]).astype(np.uint8)] * 900)
    with epoch_scope(0, 0):
        result = np.rint(BatchCropNormalize((4, 3), random=True, padding=(1, 2), flip=0.3)(images) * 255).astype(int)
    tops = np.array([int(r[0][r[0] > 0].min()) - 1 - np.flatnonzero((r[0] > 0).any(1))[0] for r in result])
    inside = result[:, 2] > 0
    mirrored = np.array([np.ptp(r[1][r[1] > 0]) > 0 and r[1].max(0)[r[1].max(0) > 0][0] > r[1].max(0)[r[1].max(0) > 0][-1] for r in result])
    assert sorted({*tops.tolist()}) == list(range(-2, 5)) and inside.all((1, 2)).any() and not inside.all((1, 2)).all()
    counts = np.bincount(tops + 2)
    assert counts.min() > 90 and abs(mirrored.mean() - 0.3) < 0.06
    with pytest.raises(ShapeError, match="use more padding"):
        BatchCropNormalize(9, random=True)(images)


@pytest.mark.parametrize("transform", [BatchCropNormalize(8, MEAN, STD, random=True, padding=1, flip=0.5),
                                       BatchResizedCropNormalize(8, MEAN, STD)], ids=lambda t: type(t).__name__)
def test_what_is_drawn_depends_on_seed_epoch_and_index_alone(photos, transform):
    dataset = ArrayDataset(photos, range(6), batch_transform=transform)
    runs = [np.concatenate([images.numpy() for images, _ in DataLoader(dataset, size, num_workers=workers, seed=3)])
            for workers, size in ((0, 1), (2, 2), (1, 6))]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])
    loader = DataLoader(dataset, 6, seed=3)
    loader.set_epoch(1)
    assert not np.array_equal(next(iter(loader))[0].numpy(), runs[0])
    shuffled = DataLoader(dataset, 6, shuffle=True, seed=3)
    images, labels = next(iter(shuffled))
    np.testing.assert_array_equal(images.numpy(), runs[0][labels.numpy()])


def test_resized_windows_are_those_of_the_single_transform(rng):
    """The distribution of areas, shapes and places, and no window outside."""
    batch, single = BatchResizedCropNormalize(8), RandomResizedCrop(8)
    windows = batch.windows(rng.random((3000, 22)), (40, 60))
    with epoch_scope(0, 0):
        others = []
        for index in range(3000):
            enter_sample(index)
            others.append(single.window((40, 60)))
    top, left, height, width = windows.T
    assert (windows >= 0).all() and (top + height <= 40).all() and (left + width <= 60).all() and (height > 0).all()
    for ours, theirs in zip(windows.T, np.array(others).T):
        grid = np.arange(61)
        shares = [np.searchsorted(np.sort(values), grid, "right") / 3000 for values in (ours, theirs)]
        assert np.abs(shares[0] - shares[1]).max() < 1.95 * np.sqrt(2 / 3000)       # Kolmogorov and Smirnov, at 0.1%
    narrow = BatchResizedCropNormalize(8, scale=(1, 1), ratio=(1, 1))
    assert narrow.windows(rng.random((2, 22)), (10, 30)).tolist() == [[0, 10, 10, 10]] * 2


def test_resized_pixels(rng):
    """Corners lie on corners: a linear ramp stays one."""
    rows, columns = np.mgrid[:30, :40]
    ramp = np.dstack([6 * columns, 8 * rows, np.full_like(rows, 200)]).astype(np.uint8)[None].repeat(40, 0)
    transform = BatchResizedCropNormalize((9, 7), flip=0.5)
    with epoch_scope(0, 0):
        result = transform(ramp) * 255
        uniforms = sample_uniforms(range(40), 23)
    for values, u, (top, left, height, width) in zip(result, uniforms, transform.windows(uniforms[:, 1:], (30, 40))):
        across = 6 * (left + np.linspace(0, width - 1, 7))
        expected = across[::-1] if u[0] < 0.5 else across
        np.testing.assert_allclose(values[0], np.broadcast_to(expected, (9, 7)), atol=1e-2)
        np.testing.assert_allclose(values[1].T, np.broadcast_to(8 * (top + np.linspace(0, height - 1, 9)), (7, 9)), atol=1e-2)
        np.testing.assert_allclose(values[2], 200, atol=1e-3)
