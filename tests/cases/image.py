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
