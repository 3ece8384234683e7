"""Cases of images on their way into a network."""

import numpy as np

from tests.cases.case import PrimitiveCase, strided

OPERATION_CASES = []        # nothing here has a gradient


def _matrices(rng, count):
    """Maps that turn, shear and shift by about a pixel, one that leads far away, and one to nowhere."""
    matrices = np.array([[1.0, 0, 0], [0, 1, 0]]) + rng.normal(0, [[0.2, 0.2, 1.5]] * 2, (count, 2, 3))
    matrices[-1, 0, 2], matrices[-2, 1, 2] = 1e30, np.nan
    return matrices


def _case(label, size, output_size, channels, layout=lambda x: x):
    def arguments(rng):
        images = layout(rng.integers(0, 256, (4, *size, *channels), np.uint8))
        C = channels[0] if channels else 1
        return images, _matrices(rng, 4), output_size, tuple(rng.random(C)), tuple(0.2 + rng.random(C))
    return PrimitiveCase("images_affine_normalize", arguments, float64=False, label=label)      # float32 is its only output


PRIMITIVE_CASES = [
    _case("digits", (28, 28), (32, 32), ()),
    _case("colours", (9, 6), (7, 11), (3,)),
    _case("strided", (5, 8), (5, 8), (4,), strided),
    _case("one-pixel", (1, 1), (3, 2), (2,)),
    _case("nothing-in", (0, 3), (2, 2), ()),
    _case("nothing-out", (4, 3), (0, 2), (3,)),
]


def _windows(rng, count, images, size, output_size):
    """Windows inside, across each border, mirrored or not, and one far away."""
    windows = np.stack([rng.integers(0, images, count), rng.integers(-output_size[0] - 1, size[0] + 2, count),
                        rng.integers(-output_size[1] - 1, size[1] + 2, count), rng.integers(0, 2, count)], 1)
    if count > 2:
        windows[-1, 1:3] = 2**62, -2**62
        windows[0, 1:3] = 0
        windows[1, 1:] = 0, 0, 5        # any number but 0 mirrors
    return windows


def _crop_case(label, images, size, output_size, channels, count=9, layout=lambda x: x):
    def arguments(rng):
        pixels = layout(rng.integers(0, 256, (images, *size, *channels), np.uint8))
        C = channels[0] if channels else 1
        return pixels, _windows(rng, count, images, size, output_size), output_size, tuple(rng.random(C)), tuple(0.2 + rng.random(C))
    return PrimitiveCase("images_crop_normalize", arguments, float64=False, label=label)


PRIMITIVE_CASES += [
    _crop_case("digits", 3, (28, 28), (32, 32), ()),
    _crop_case("colours", 4, (9, 6), (7, 5), (3,), 40),
    _crop_case("four-channels", 2, (5, 8), (5, 8), (4,)),
    _crop_case("strided", 2, (5, 8), (3, 9), (3,), layout=strided),
    _crop_case("one-pixel", 1, (1, 1), (3, 2), (2,)),
    _crop_case("no-windows", 2, (4, 3), (2, 2), (3,), 0),
    _crop_case("nothing-in", 1, (0, 3), (2, 2), ()),
    _crop_case("nothing-out", 3, (4, 3), (0, 2), (3,)),
]


def _rgbx_case(label, shape, layout=lambda x: x):
    return PrimitiveCase("images_rgbx_to_rgb", lambda rng: (layout(rng.integers(0, 256, (*shape, 4), np.uint8)),), float64=False,
                         label=label)


PRIMITIVE_CASES += [
    _rgbx_case("odd", (3, 7, 5)),
    _rgbx_case("one-pixel", (1, 1, 1)),
    _rgbx_case("strided", (2, 5, 9), strided),
    _rgbx_case("nothing", (2, 0, 3)),
]
