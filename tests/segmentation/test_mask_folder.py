"""Folders of pictures and masks: what is read, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from numbanet.data.datasets import MaskFolder, load_mask
from numbanet.errors import DataError, UsageError
from numbanet.random import seed_everything
from numbanet.segmentation.data import MaskedPictures, distorted, open_segmentation_data
from numbanet.segmentation.losses import VOID
from numbanet.train.recipe import Recipe
from numbanet.zoo import model_info


def write(root, count=5, size=(12, 9), names="background\ncat\ndog\n", masks=None):
    """A folder of pictures whose colour is ten times their mask's number."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        mask = rng.integers(0, 3, size[::-1]).astype(np.uint8) if masks is None else masks[i]
        Image.fromarray(np.repeat(mask[..., None] * np.uint8(10), 3, 2)).save(root / "images" / f"{i}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    if names:
        (root / "classes.txt").write_text(names)
    return root


def opened(root, **fields):
    return open_segmentation_data(Recipe("unet", task="segmentation", data=str(root), **{"distort": False, **fields}), model_info("unet"))


def test_what_is_read(tmp_path):
    data = MaskFolder(write(tmp_path / "d"))
    assert data.classes == ["background", "cat", "dog"] and len(data) == 5
    image, mask = data[3]
    np.testing.assert_array_equal(np.asarray(image)[..., 0], mask * 10)
    made = opened(tmp_path / "d", val_fraction=0.4)
    assert (len(made.train), len(made.test), made.preprocessing.input_size) == (3, 2, (3, 9, 12))
    seen = sorted([*made.train.positions, *made.test.positions])
    assert seen == list(range(5))
    x, y = made.train.__getitems__([0, 2])
    assert x.shape == (2, 3, 9, 12) and y.shape == (2, 9, 12) and y.dtype == np.int64
    np.testing.assert_allclose(x[:, 0], (y * 10 / 255 - 0.5) / 0.25, atol=1e-5)


def test_palettes_void_and_classes_by_their_values(tmp_path):
    masks = [np.array([[0, 1], [2, 255]], np.uint8)] * 2
    root = write(tmp_path / "d", 2, names="", masks=masks)
    palette = Image.fromarray(masks[0], "P")
    palette.putpalette(list(range(256)) * 3)
    palette.save(root / "masks" / "1.png")
    data = MaskFolder(root)
    assert data.classes == ["0", "1", "2"]
    np.testing.assert_array_equal(data.mask(1), masks[0])
    y = MaskedPictures(data, opened(root).preprocessing)[0][1]
    assert y.tolist() == [[0, 1], [2, VOID]]


def test_black_and_white_masks_are_a_foreground(tmp_path):
    data = MaskFolder(write(tmp_path / "d", 2, names="", masks=[np.array([[0, 255, 255]], np.uint8)] * 2))
    assert data.classes == ["background", "foreground"] and data.mask(0).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(("break_it", "message"), [
    (lambda r: (r / "masks" / "2.png").unlink(), "1 pictures have no mask of the same name: 2.png"),
    (lambda r: (r / "images" / "2.png").unlink(), "1 masks have no picture of the same name: 2.png"),
    (lambda r: Image.new("L", (9, 12)).resize((7, 7)).save(r / "masks" / "2.png"), r"2.png: expected a mask of 12 x 9 pixels as .*7 x 7"),
    (lambda r: Image.fromarray(np.full((9, 12), 77, np.uint8)).save(r / "masks" / "2.png"), "pixels of 0 to 2 for the classes background, "
                                                                                           "cat, dog, or 255 for none, received 77"),
    (lambda r: Image.new("RGB", (12, 9)).save(r / "masks" / "2.png"), "expected a mask of class numbers.*received RGB colours"),
    (lambda r: (r / "masks" / "2.png").write_bytes(b"no picture"), "2.png: not an image"),
    (lambda r: (r / "masks" / "2.png").write_bytes((r / "masks" / "2.png").read_bytes()[:60]), "2.png.*(broken|truncated|not an image)"),
    (lambda r: (r / "classes.txt").write_text("one\none\n"), "two to 255 different names"),
    (lambda r: (r / "classes.txt").write_bytes(b"\xff\xfe\x00"), "classes.txt: cannot be read"),
    (lambda r: Image.new("RGB", (12, 9)).save(r / "images" / "2.jpg"), "2.jpg and 2.png have one name"),
])
def test_what_is_refused(tmp_path, break_it, message):
    root = write(tmp_path / "d")
    break_it(root)
    with pytest.raises(DataError, match=message):
        opened(root)


def test_broken_ones_can_be_left_out(tmp_path):
    root = write(tmp_path / "d")
    (root / "masks" / "2.png").write_bytes(b"no picture")
    assert len(opened(root, on_error="skip").train) == 4


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match="images: the folder is missing; expected images/ with pictures"):
        opened(tmp_path)
    root = write(tmp_path / "d")
    with pytest.raises(UsageError, match="--data-options: are of a data set by name"):
        opened(root, data_options={"size": 3})
    with pytest.raises(UsageError, match="--train-transforms: would leave masks behind"):
        opened(root, train_transforms=["RandomHorizontalFlip"])
    with pytest.raises(UsageError, match="--distortions: are ranges for classifiers"):
        opened(root, distortions={"degrees": 3})
    with pytest.raises(UsageError, match="--data synthetic_scenes with options.*colour"):
        open_segmentation_data(Recipe("unet", task="segmentation", data_options={"colour": 3}), model_info("unet"))
    with pytest.raises(UsageError, match="did you mean synthetic_scenes"):
        open_segmentation_data(Recipe("unet", task="segmentation", data="synthetic_scene"), model_info("unet"))


def test_masks_with_16_bits(tmp_path):
    Image.fromarray(np.array([[0, 3]], np.uint16)).save(tmp_path / "a.png")
    assert load_mask(tmp_path / "a.png").tolist() == [[0, 3]]
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="from 0 to 255, received 0 to 300"):
        load_mask(tmp_path / "b.png")


def test_distorting_moves_pictures_and_masks_together():
    seed_everything(0)
    mask = np.zeros((32, 40), np.uint8)
    mask[8:20, 5:30] = 2
    picture = np.repeat(mask[..., None] * np.uint8(100), 3, 2)
    moved = False
    for seed in range(8):
        p, m = distorted(picture, mask, np.random.default_rng(seed))
        assert p.shape == picture.shape and set(np.unique(m)) <= {0, 2}
        # half of the colour is where the nearest pixel changes, but at corners
        assert ((p[..., 0] > 100) != (m == 2)).mean() < 0.01
        moved |= not np.array_equal(m, mask)
    assert moved
