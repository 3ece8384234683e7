"""Dense targets, augmentation with boxes, and how pictures become inputs."""

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet.data import DataLoader
from numbanet.data.datasets import DigitScenes
from numbanet.detection import DetectorSamples, Fitting, Levels
from numbanet.detection.augment import Augmentation, clipped, flipped, zoomed
from numbanet.detection.targets import BACKGROUND, IGNORED, RADIUS
from numbanet.errors import CheckpointError, DataError, UsageError

LEVELS = Levels((100, 72), (8, 16, 32))


def random_boxes(rng, count):
    corner = rng.uniform(0, 50, (count, 2))
    return np.concatenate([corner, np.minimum(corner + rng.uniform(1, 60, (count, 2)), [72, 100])], 1).astype(np.float32)


def test_positions():
    points, strides = LEVELS.points()
    assert LEVELS.shapes == [(16, 12), (8, 6), (4, 3)] and len(points) == 16 * 12 + 8 * 6 + 4 * 3
    assert points[0].tolist() == [4, 4] and points[1].tolist() == [12, 4] and points[12].tolist() == [4, 12]
    assert points[192].tolist() == [8, 8] and strides[192] == 16


@pytest.mark.parametrize("count", [0, 1, 3, 8, 20])
def test_every_box_is_answered_for(count):
    """By positions of one level, that lie in it and near its middle, or by one next to it."""
    rng = np.random.default_rng(count)
    points, strides = LEVELS.points()
    for _ in range(10):
        boxes, labels = random_boxes(rng, count), rng.integers(0, 5, count)
        targets = LEVELS.encode(boxes, labels)
        assert targets.shape == (len(points), 5) and targets.dtype == np.float32
        answered = 0
        for box, label in zip(boxes, labels):
            mine = (targets[:, 1:] == box).all(1) & (targets[:, 0] == label)
            answered += mine.any()
            assert len({*strides[mine]}) <= 1
            inside = (points > box[:2]).all(1) & (points < box[2:]).all(1)
            if mine.sum() > 1:
                apart = np.abs(points - (box[:2] + box[2:]) / 2).max(1)
                assert (inside & (apart <= RADIUS * strides))[mine].sum() >= mine.sum() - 1
        assert answered == count
        assert (targets[targets[:, 0] == BACKGROUND, 1:] == 0).all()


def test_tiny_and_nested_boxes_keep_a_position():
    boxes = np.float32([[10, 10, 60, 60], [30, 30, 31, 31], [20, 20, 50, 50]])
    targets = LEVELS.encode(boxes, np.array([0, 1, 2]))
    assert {0, 1, 2} <= {*targets[:, 0].astype(int)}


def test_crowds_are_not_looked_at():
    boxes = np.float32([[0, 0, 40, 40], [50, 50, 70, 70]])
    targets = LEVELS.encode(boxes, np.array([0, 1]), np.array([True, False]))
    points, _ = LEVELS.points()
    inside = (points <= 40).all(1)
    assert (targets[inside, 0] == IGNORED).all() and (targets[:, 0] == 1).any() and not (targets[:, 0] == 0).any()


def test_flipping_twice_is_nothing():
    scenes = DigitScenes(1, 64)
    pixels, truth = scenes[0]
    once = flipped(pixels, truth)
    twice = flipped(*once)
    np.testing.assert_array_equal(twice[0], pixels)
    np.testing.assert_array_equal(twice[1]["boxes"], truth["boxes"])
    left, top, right, bottom = once[1]["boxes"][0].astype(int)
    a, b, c, d = truth["boxes"][0].astype(int)
    np.testing.assert_array_equal(once[0][top:bottom, left:right], pixels[b:d, a:c][:, ::-1])


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 1.3, 2.0])
@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (0.5, 1.0), (0.3, 0.7)])
def test_boxes_follow_what_they_are_around(scale, x, y):
    """A bright rectangle on black: its box is that of the bright pixels afterwards."""
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[20:40, 30:50] = 255
    truth = {"boxes": np.float32([[30, 20, 50, 40]]), "labels": np.array([3]), "crowd": np.array([False])}
    made, moved = zoomed(pixels, truth, scale, x, y)
    bright = (made > 180).all(2)
    assert made.shape == pixels.shape
    if not len(moved["boxes"]):
        assert not bright.any()
        return
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    np.testing.assert_allclose(moved["boxes"][0], [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=1.01 * max(1, scale))


def test_boxes_of_which_little_is_left_are_ignored():
    truth = {"boxes": np.float32([[-90, 0, 10, 10], [-5, 0, 15, 10], [50, 50, 60, 60]]), "labels": np.array([0, 1, 2]),
             "crowd": np.zeros(3, bool)}
    left = clipped(truth, 40, 40)
    assert left["labels"].tolist() == [0, 1] and left["crowd"].tolist() == [True, False]
    assert left["boxes"].tolist() == [[0, 0, 10, 10], [0, 0, 15, 10]]


@pytest.mark.parametrize("options", [{"flip": 2}, {"zoom": (2.0, 1.0)}, {"zoom": (0.0, 1.0)}, {"flip": -1}])
def test_augmentation_out_of_range(options):
    with pytest.raises(UsageError, match="--flip|--zoom"):
        Augmentation(**options)


def test_fitting_keeps_proportions():
    fitting = Fitting((64, 96))
    pixels = fitting.pixels(Image.new("RGB", (200, 100), "white"))
    assert pixels.shape == (64, 96, 3) and (pixels[:48] == 255).all() and (pixels[48:] == 114).all() and fitting.scale(200, 100) == 0.48
    x = fitting.normalized(pixels[None])
    assert x.shape == (1, 3, 64, 96) and x.dtype == np.float32
    np.testing.assert_allclose(x[0, :, 0, 0], (1 - np.float32(fitting.mean)) / np.float32(fitting.std), rtol=1e-5)
    assert Fitting.from_metadata(fitting.as_metadata()) == fitting


@pytest.mark.parametrize("stored", [None, {}, {"size": [1], "mean": [0] * 3, "std": [1] * 3},
                                    {"size": [9, 9], "mean": [0] * 3, "std": [0] * 3},
                                    {"size": [9, 10**9], "mean": [0] * 3, "std": [1] * 3}])
def test_stored_fittings_that_are_none(stored):
    with pytest.raises(CheckpointError, match="do not say how pictures become"):
        Fitting.from_metadata(stored)


def test_batches_are_the_same_whatever_the_workers():
    scenes = DetectorSamples(DigitScenes(10, 64), Fitting((64, 64)), Levels((64, 64), (8, 16)), Augmentation(0.5, (0.7, 1.4)))
    batches = [[(x.numpy().copy(), y.numpy().copy()) for x, y in DataLoader(scenes, 4, shuffle=True, num_workers=n, seed=0)]
               for n in (0, 2)]
    assert [len(b[0]) for b in batches[0]] == [4, 4, 2]
    for (x, y), (u, v) in zip(*batches):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


def test_a_sample_that_fails_is_named():
    class Broken(DigitScenes):
        def __getitem__(self, index):
            raise ValueError("no picture")
    samples = DetectorSamples(Broken(3, 64), Fitting((64, 64)), Levels((64, 64), (8,)))
    with pytest.raises(DataError, match="sample 0 failed: ValueError: no picture"):
        next(iter(DataLoader(samples, 2)))


def test_scenes_of_digits():
    """A function of the seed and the index; training and test digits apart; boxes are those of the masks."""
    scenes = DigitScenes(20, (70, 90), seed=3, objects=(0, 5))
    for i in range(20):
        scene = scenes.scene(i)
        assert scene.image.shape == (70, 90, 3) and len(scene.boxes) == len(scene.labels) == len(scene.masks) <= 5
        for box, mask in zip(scene.boxes.astype(int), scene.masks):
            assert mask[box[1]:box[3], box[0]:box[2]].sum() == mask.sum() and mask[box[1]].any() and mask[:, box[2] - 1].any()
        assert scene.masks.sum(0).max(initial=0) <= 1
        np.testing.assert_array_equal(DigitScenes(25, (70, 90), seed=3, objects=(0, 5)).scene(i).image, scene.image)
    assert not np.array_equal(scenes.scene(0).image, DigitScenes(20, (70, 90), seed=4).scene(0).image)
    assert numbanet.data.datasets.create_dataset("digit_scenes", 2)[0][0].shape == (128, 128, 3)
    with pytest.raises(IndexError):
        scenes.scene(20)


@pytest.mark.parametrize("options", [{"size": 8}, {"target": "boxes"}, {"objects": (3, 1)}, {"scale": (0.5, 0.1)}, {"overlap": 2},
                                     {"noise": -1}])
def test_scenes_that_cannot_be(options):
    with pytest.raises(UsageError, match="DigitScenes: expected"):
        DigitScenes(3, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_each_epoch_has_scenes_of_its_own(workers):
    samples = DetectorSamples(DigitScenes(5, 48, anew=True), Fitting((48, 48)), Levels((48, 48), (8, 16)))
    fixed = DetectorSamples(DigitScenes(10, 48), Fitting((48, 48)), Levels((48, 48), (8, 16)))
    loader = DataLoader(samples, 5, num_workers=workers)
    for epoch in range(2):
        x, targets = next(iter(loader))
        expected = fixed.__getitems__(range(5 * epoch, 5 * epoch + 5))
        np.testing.assert_array_equal(x.numpy(), expected[0])
        np.testing.assert_array_equal(targets.numpy(), expected[1])
    loader.set_epoch(1)
    np.testing.assert_array_equal(next(iter(loader))[0].numpy(), x.numpy())
