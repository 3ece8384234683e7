"""Transforms beside torchvision's: pixel for pixel where both use Pillow, and the distributions of what is drawn."""

import inspect

import numpy as np
import pytest
from PIL import Image as PILImage

from numbanet.data import transforms as T
from numbanet.data.randomness import enter_sample, epoch_scope
from numbanet.data.transforms import functional as F
from tests.zoo.torchvision_peer import torchvision

MODES = ["RGB", "L"]


@pytest.fixture(scope="module")
def v2():
    torchvision()
    import torchvision.transforms.v2 as v2
    return v2


@pytest.fixture
def photo(rng):
    """A picture with edges and gradients, larger than wide."""
    coarse = PILImage.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8)).resize((37, 45), PILImage.Resampling.BICUBIC)
    coarse.paste((255, 0, 10), (5, 8, 20, 17))
    return coarse


def kinds(photo, mode):
    """As a Pillow image, an array and an `Image`, each with the way back to (H, W) or (H, W, 3)."""
    picture = photo.convert(mode)
    array = np.asarray(picture)
    return [(picture, np.asarray), (array, np.asarray),
            (T.ToImage()(array), lambda i: np.asarray(i).transpose(1, 2, 0).reshape(i.shape[1:] if i.shape[0] == 1 else (*i.shape[1:], 3)))]


FIXED = [       # transforms that draw nothing, or that draw from a range of one number: (name, arguments)
    ("Resize", (20,)), ("Resize", ((30, 17),)), ("Resize", (50, "bicubic")), ("Resize", (20, "nearest")), ("Resize", ([20],)),
    ("Resize", (30, "lanczos", 33)), ("Resize", ((10, 60), "box")), ("Resize", (None, "hamming", 25)), ("CenterCrop", (20,)),
    ("CenterCrop", ((21, 50),)), ("CenterCrop", ((60, 20),)), ("CenterCrop", (80,)), ("Pad", (3,)), ("Pad", ((1, 2), 7)),
    ("Pad", ((1, 2, 3, 4), 0, "reflect")), ("Pad", (2, 0, "edge")), ("Pad", (4, 0, "symmetric")), ("Pad", ([2], 9)),
    ("RandomHorizontalFlip", (1.0,)), ("RandomVerticalFlip", (1.0,)), ("Grayscale", ()), ("Grayscale", (3,)), ("RandomGrayscale", (1.0,)),
    ("RandomRotation", ((30, 30),)), ("RandomRotation", ((-75, -75), "bilinear", True)), ("RandomRotation", ((200, 200), "bicubic", True)),
    ("RandomRotation", ((90, 90), "nearest", True)), ("RandomRotation", ((40, 40), "bilinear", False, (3, 5), 90)),
    ("RandomAffine", ((25, 25),)), ("RandomAffine", ((25, 25), None, (1.3, 1.3), (10, 10), "bilinear")),
    ("RandomAffine", ((-40, -40), None, (0.7, 0.7), (10, 10, -20, -20), "bicubic", 50)),
    ("RandomAffine", ((10, 10), None, None, (5, 5), "bilinear", 0, (7, 30))), ("RandomResizedCrop", (16, (1, 1), (37 / 45, 37 / 45))),
    ("ColorJitter", ((0.6, 0.6),)), ("ColorJitter", (None, (1.7, 1.7))), ("ColorJitter", (None, None, (0.3, 0.3))),
    ("ColorJitter", (None, None, None, (0.2, 0.2))), ("ColorJitter", (None, None, None, (-0.37, -0.37))), ("RandomCrop", ((45, 37),))]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "arguments"), FIXED, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v)))
def test_pixels_of_transforms(v2, photo, name, arguments, mode):
    expected = np.asarray(getattr(v2, name)(*arguments)(photo.convert(mode)))
    for image, pixels in kinds(photo, mode):
        received = pixels(getattr(T, name)(*arguments)(image))
        agree(received.reshape(expected.shape) if name == "Grayscale" else received, expected, name == "RandomAffine")


def agree(received, expected, by_matrix=False):
    """Equal; where Pillow cuts off fractions after a map, one of whose last bits may differ, a few pixels may differ by one."""
    if by_matrix:
        difference = np.abs(received.astype(int) - expected)
        assert received.shape == expected.shape and difference.max() <= 1 and (difference > 0).mean() < 0.003
    else:
        np.testing.assert_array_equal(received, expected)


def test_fill_of_each_channel(v2, photo):
    for name, arguments in (("Pad", (2, (1, 2, 3))), ("RandomRotation", ((30, 30), "nearest", False, None, (10, 20, 30))),
                            ("RandomAffine", ((30, 30), None, None, None, "bilinear", (10, 20, 30)))):
        expected = np.asarray(getattr(v2, name)(*arguments)(photo))
        for image, pixels in kinds(photo, "RGB"):
            agree(pixels(getattr(T, name)(*arguments)(image)), expected, name == "RandomAffine")


FUNCTIONS = [("adjust_brightness", (1.4,)), ("adjust_contrast", (0.2,)), ("adjust_saturation", (2.5,)), ("adjust_hue", (0.5,)),
             ("adjust_sharpness", (0.0,)), ("adjust_sharpness", (1.9,)), ("posterize", (3,)), ("solarize", (100,)), ("autocontrast", ()),
             ("equalize", ()), ("invert", ()), ("crop", (3, 5, 20, 11)), ("crop", (-3, -5, 60, 60)), ("crop", (40, 30, 20, 20)),
             ("resized_crop", (3, 5, 20, 11, (9, 14))), ("horizontal_flip", ()), ("vertical_flip", ()),
             ("affine", (15.0, (3, -2), 1.1, (4.0, 0.0))), ("affine", (0.0, (0, 0), 1.0, (0.0, -30.0), "nearest", 0, (0, 0)))]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "arguments"), FUNCTIONS, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v)))
def test_pixels_of_functions(v2, photo, name, arguments, mode):
    if name == "affine" and len(arguments) > 4:
        options = dict(zip(("interpolation", "fill", "center"), arguments[4:]))
        expected = v2.functional.affine(photo.convert(mode), *arguments[:4], **options)
    else:
        expected = getattr(v2.functional, name)(photo.convert(mode), *arguments)
    for image, pixels in kinds(photo, mode):
        np.testing.assert_array_equal(pixels(getattr(F, name)(image, *arguments)), np.asarray(expected))


@pytest.mark.parametrize("name", ["RandAugment", "TrivialAugmentWide"])
def test_spaces_of_augmentation(v2, photo, name):
    """Each operation at each of several magnitudes and both signs, against the peer's table and functions."""
    ours, peer = getattr(T, name)(), getattr(v2, name)()
    height, width = photo.size[::-1]
    assert list(ours.space) == list(peer._AUGMENTATION_SPACE)
    for operation, (magnitudes, signed) in peer._AUGMENTATION_SPACE.items():
        table = magnitudes(31, height, width)
        assert signed == ours.space[operation][1]
        for step in (0, 4, 17, 30) if table is not None else (0,):
            magnitude = ours.magnitude_of(operation, step, (height, width))
            assert table is None or magnitude == pytest.approx(float(table[step]), abs=2e-5)
            for sign in (1, -1) if signed else (1,):
                value = sign * (0.0 if table is None else float(table[step]))
                expected = peer._apply_image_or_video_transform(photo, operation, value, interpolation=v2.InterpolationMode.NEAREST,
                                                                fill=peer._fill)
                np.testing.assert_array_equal(np.asarray(ours.change(photo, operation, value)), np.asarray(expected), operation)


@pytest.mark.parametrize(("kernel", "sigma"), [(3, 0.5), ((5, 9), 2.0), ((7, 1), 1.3)])
def test_blur(v2, photo, kernel, sigma):
    expected = np.asarray(v2.GaussianBlur(kernel, sigma)(photo)).astype(int)
    received = np.asarray(T.GaussianBlur(kernel, sigma)(photo)).astype(int)
    assert np.abs(received - expected).max() <= 1 and (received != expected).mean() < 0.01
    torch = pytest.importorskip("torch")
    x = T.ToTensor()(photo)
    np.testing.assert_allclose(T.GaussianBlur(kernel, sigma)(x), v2.GaussianBlur(kernel, sigma)(torch.from_numpy(x)).numpy(), atol=1e-5)


def test_normalize_and_dtypes(v2, photo):
    torch = pytest.importorskip("torch")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])(photo).numpy()
    for first in ([T.ToTensor()], [T.ToImage(), T.ToDtype(np.float32, scale=True)]):
        np.testing.assert_allclose(T.Compose([*first, T.Normalize(mean, std)])(photo), expected, atol=1e-6)


def test_erased_pixels(v2, photo):
    torch = pytest.importorskip("torch")
    x = T.ToTensor()(photo)
    expected = v2.functional.erase(torch.from_numpy(x), 3, 4, 10, 12, torch.tensor([0.1, 0.2, 0.3])[:, None, None]).numpy()
    np.testing.assert_array_equal(F.erase(x, 3, 4, 10, 12, np.float32([0.1, 0.2, 0.3])), expected)


SIGNATURES = ["Resize", "CenterCrop", "Pad", "RandomCrop", "RandomResizedCrop", "RandomHorizontalFlip", "RandomVerticalFlip",
              "RandomAffine", "RandomRotation", "ColorJitter", "Grayscale", "RandomGrayscale", "RandAugment", "TrivialAugmentWide",
              "RandomErasing", "GaussianBlur", "Normalize", "ToDtype", "Compose", "RandomApply"]


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_and_defaults_of_parameters(v2, name):
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (T, v2))
    assert list(ours)[:len(theirs)] == list(theirs)
    for parameter, expected in theirs.items():
        received = ours[parameter].default
        if expected.default is inspect.Parameter.empty:
            assert received is inspect.Parameter.empty or name == "ToDtype"
        else:
            assert (str(getattr(expected.default, "value", expected.default)) == str(received) or received == expected.default
                    or np.allclose(received, expected.default)), parameter


def drawn(transform, image, measure, count=400):
    values = []
    with epoch_scope(1, 0):
        for index in range(count):
            enter_sample(index)
            values.append(measure(transform(image)))
    return np.array(values)


def close(ours, theirs):
    """Two samples of one distribution: Kolmogorov and Smirnov's distance below its 0.1% point."""
    grid = np.sort(np.concatenate([ours, theirs]))
    shares = [np.searchsorted(np.sort(values), grid, "right") / len(values) for values in (ours, theirs)]
    assert np.abs(shares[0] - shares[1]).max() < 1.95 * np.sqrt(1 / len(ours) + 1 / len(theirs))


@pytest.fixture(scope="module")
def ramp():
    """A picture whose pixel values tell where they come from: red is the column, green the row."""
    rows, columns = np.mgrid[:80, :120]
    return PILImage.fromarray(np.dstack([2 * columns, 3 * rows, np.full_like(rows, 90)]).astype(np.uint8))


MEASURED = [        # (transform, measures of its result)
    ("RandomResizedCrop", (32,), [lambda a: np.ptp(a[..., 0]), lambda a: np.ptp(a[..., 1]), lambda a: a[16, 16, 0],
                                  lambda a: a[16, 16, 1]]),
    ("RandomResizedCrop", (32, (0.9, 1.0), (3.0, 4.0)), [lambda a: np.ptp(a[..., 0]), lambda a: a[16, 16, 1]]),
    ("RandomCrop", (20,), [lambda a: a[0, 0, 0], lambda a: a[0, 0, 1]]),
    ("RandomCrop", (100, None, True), [lambda a: a[50, 50, 0], lambda a: a[50, 50, 1]]),
    ("RandomCrop", (70, 6), [lambda a: a[20, 20, 0], lambda a: a[20, 20, 1]]),
    ("RandomRotation", (60,), [lambda a: a[40, 90, 1]]), ("RandomHorizontalFlip", (0.3,), [lambda a: a[0, 0, 0]]),
    ("RandomAffine", (20, (0.2, 0.1), (0.8, 1.1), (10,) * 2), [lambda a: a[40, 60, 0], lambda a: a[40, 60, 1]]),
    ("ColorJitter", (0.4, 0.3, 0.5, 0.1), [lambda a: a[..., 0].mean(), lambda a: a[40, 60, 2], lambda a: a.std()]),
    ("RandomGrayscale", (0.4,), [lambda a: int(a[40, 60, 0] == a[40, 60, 1])]),
    ("TrivialAugmentWide", (), [lambda a: a[..., 0].mean(), lambda a: a[40, 30, 1]]),
    ("RandAugment", (), [lambda a: a[..., 0].mean(), lambda a: a[40, 30, 1]])]


@pytest.mark.parametrize(("name", "arguments", "measures"), MEASURED, ids=[f"{m[0]}-{i}" for i, m in enumerate(MEASURED)])
def test_distributions(v2, ramp, name, arguments, measures):
    torch = pytest.importorskip("torch")
    torch.manual_seed(7)
    peer = getattr(v2, name)(*arguments)
    theirs = [np.asarray(peer(ramp)).astype(float) for _ in range(400)]
    ours = drawn(getattr(T, name)(*arguments), ramp, lambda i: np.asarray(i).astype(float))
    for measure in measures:
        close(np.array([measure(a) for a in ours]), np.array([measure(a) for a in theirs]))


def test_distribution_of_what_is_erased(v2):
    torch = pytest.importorskip("torch")
    torch.manual_seed(7)
    x = np.ones((3, 40, 60), np.float32)
    theirs = np.array([float(v2.RandomErasing(0.7)(torch.from_numpy(x)).mean()) for _ in range(400)])
    close(drawn(T.RandomErasing(0.7), x, np.mean), theirs)
