"""Made-up scenes: the same for the same (seed, index), with truths that fit their pictures."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from numbanet.data import DataLoader
from numbanet.data.datasets import SyntheticScenes, create_dataset
from numbanet.data.datasets.shapes import SHAPES, draw_mask
from numbanet.data.transforms import BatchAffineNormalize, ToTensor
from numbanet.errors import UsageError


def test_samples_depend_on_seed_split_and_index_alone():
    scenes, longer = SyntheticScenes(4, 32, seed=3), SyntheticScenes(40, 32, seed=3)
    for i in (3, 0):
        np.testing.assert_array_equal(scenes[i][0], longer[i][0])
        assert scenes[i][1] == longer[i][1]
    pictures = [SyntheticScenes(4, 32, train, seed=seed)[0][0] for train in (True, False) for seed in (3, 4)]
    assert len({p.tobytes() for p in pictures} | {longer[i][0].tobytes() for i in range(10)}) == 4 + 9
    with ThreadPoolExecutor(4) as pool:
        for i, picture in enumerate(pool.map(lambda i: longer[i][0], range(20))):
            np.testing.assert_array_equal(picture, longer[i][0])


def test_targets_are_the_labels_and_all_classes_come():
    scenes = SyntheticScenes(200, 24)
    assert [scenes[i][1] for i in range(20)] == scenes.targets[:20].tolist()
    counts = np.bincount(scenes.targets, minlength=8)
    assert len(counts) == 8 and counts.min() > 10
    few = SyntheticScenes(30, 24, classes=("ring", "star"))
    assert few.classes == ("ring", "star") and {*few.targets.tolist()} == {0, 1} and few.class_to_idx == {"ring": 0, "star": 1}


@pytest.mark.parametrize("size", [(32, 48), 96, 16])
def test_truths_fit_each_other(size):
    scenes = SyntheticScenes(40, size, objects=(2, 6))
    height, width = scenes.size
    several = 0
    for i in range(40):
        scene = scenes.scene(i)
        assert scene.image.shape == (height, width, 3) and scene.image.dtype == np.uint8
        assert scene.masks.shape == (len(scene.labels), height, width) and scene.masks.sum(0).max() <= 1
        assert scene.label == scenes.targets[i] == scene.labels[-1]
        areas = scene.masks.sum((1, 2))
        assert areas.min() > 0 and (len(areas) == 1 or areas[-1] > areas[:-1].max()), "the salient shape is the largest"
        for mask, (left, top, right, bottom) in zip(scene.masks, scene.boxes.astype(int)):
            assert mask[top:bottom, left:right].sum() == mask.sum(), "nothing outside of the box"
            for edge in (mask[top, left:right], mask[bottom - 1, left:right], mask[top:bottom, left], mask[top:bottom, right - 1]):
                assert edge.any(), "the box is tight"
        classes = scene.segmentation
        assert (classes == 0).sum() == height * width - areas.sum() and (classes[scene.masks[-1]] == 1 + scene.label).all()
        several += len(areas) > 1
    assert several > 20


def test_shapes_are_drawn_where_their_masks_are():
    """Without noise, the pixels of the salient shape differ from those of the same picture's background."""
    scenes = SyntheticScenes(30, 64, noise=0, objects=(1, 1))
    for i in range(30):
        scene = scenes.scene(i)
        inside, outside = scene.image[scene.masks[-1]].mean(0), scene.image[~scene.masks[-1]].mean(0)
        assert np.abs(inside - outside).max() > 20


@pytest.mark.parametrize("name", SHAPES)
def test_masks_of_shapes(name):
    mask, (left, top) = draw_mask(name, 20.0, 0.3, 1.0, (40.25, 30.5))
    rows, columns = np.nonzero(np.asarray(mask) >= 128)
    distance = np.hypot(columns + left + 0.5 - 40.25, rows + top + 0.5 - 30.5)
    assert 17 < distance.max() < 21, "reaches the circle around it"
    turned = np.asarray(draw_mask(name, 20.0, 0.3 + np.pi / 2, 1.0, (40.0, 30.0))[0])
    np.testing.assert_allclose(np.rot90(np.asarray(draw_mask(name, 20.0, 0.3, 1.0, (40.0, 30.0))[0]), -1).sum(), turned.sum(), rtol=0.03)


def test_areas_of_shapes():
    """Against the formulas of circle, ring, square and regular triangle of circumradius r."""
    r = 30.0
    for name, area in (("circle", np.pi * r**2), ("ring", 0.64 * np.pi * r**2), ("square", 2 * r**2), ("triangle", 3**1.5 / 4 * r**2)):
        assert abs(np.asarray(draw_mask(name, r, 0.0, 1.0, (0.0, 0.0))[0]).sum() / 255 / area - 1) < 0.03, name


def test_forms_of_targets():
    image, target = SyntheticScenes(2, 32, target="detection")[1]
    assert {key: value.dtype.name for key, value in target.items()} == {"boxes": "float32", "labels": "int64", "masks": "bool"}
    image, classes = SyntheticScenes(2, 32, target="segmentation", transform=ToTensor())[1]
    assert image.shape == (3, 32, 32) and classes.shape == (32, 32) and classes.dtype == np.uint8
    images, classes = next(iter(DataLoader(SyntheticScenes(4, 32, target="segmentation"), 3, num_workers=2)))
    assert tuple(images.shape) == (3, 32, 32, 3) and tuple(classes.shape) == (3, 32, 32)


def test_batches_and_arrays():
    scenes = SyntheticScenes(6, 32, batch_transform=BatchAffineNormalize(32, 0.5, 0.5), target_transform=lambda label: label + 1)
    images, labels = next(iter(DataLoader(scenes, 6)))
    arrays = SyntheticScenes(6, 32).to_arrays(batch_transform=BatchAffineNormalize(32, 0.5, 0.5))
    np.testing.assert_array_equal(arrays.data, [scenes.scene(i).image for i in range(6)])
    np.testing.assert_array_equal(next(iter(DataLoader(arrays, 6)))[0].numpy(), images.numpy())
    np.testing.assert_array_equal(scenes[2][0], images.numpy()[2])
    assert (labels.numpy() - 1).tolist() == arrays.targets.tolist()
    assert len(SyntheticScenes(0)) == 0 and len(create_dataset("synthetic_scenes", 5)) == 5
    with pytest.raises(IndexError):
        SyntheticScenes(3)[3]


@pytest.mark.parametrize("options", [{"count": -1}, {"size": 15}, {"size": (32,)}, {"classes": ()}, {"classes": ("cube",)},
                                     {"classes": ("star", "star")}, {"target": "boxes"}, {"objects": (0, 2)}, {"objects": (3, 2)},
                                     {"noise": 300}, {"target": "detection", "batch_transform": id}])
def test_options_out_of_range(options):
    with pytest.raises(UsageError, match="SyntheticScenes"):
        SyntheticScenes(**options)


def test_each_epoch_has_pictures_of_its_own():
    many = SyntheticScenes(9, 32, seed=2)
    loader = DataLoader(SyntheticScenes(3, 32, seed=2, anew=True, transform=ToTensor()), 3)
    for epoch in range(3):
        pictures = next(iter(loader))[0].numpy()
        expected = np.stack([many.scene(3 * epoch + i).image for i in range(3)]).transpose(0, 3, 1, 2) / np.float32(255)
        np.testing.assert_array_equal(pictures, expected)
    held_out = DataLoader(SyntheticScenes(3, 32, train=False, anew=True, transform=ToTensor()), 3)
    np.testing.assert_array_equal(next(iter(held_out))[0].numpy(), next(iter(held_out))[0].numpy())
