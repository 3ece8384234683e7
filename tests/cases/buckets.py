"""Cases of arrays in one array."""

import numpy as np

from tests.cases.case import PrimitiveCase, channels_last, integers

SHAPES = ((3, 5), (8,), (0, 2), (2, 3, 4, 4), (), (64,), (16, 8))


def _arrays(rng, shapes):
    made = [integers(rng, *shape) for shape in shapes]
    return [np.asfortranarray(x) if x.ndim == 2 else channels_last(x) if x.ndim == 4 else np.asarray(x) for x in made]


def _case(primitive, label, shapes, gap=0, scale=None):
    def arguments(rng):
        sizes = [int(np.prod(shape)) for shape in shapes]
        begins = tuple(int(sum(sizes[:k])) + gap * (k + 1) for k in range(len(sizes)))
        return integers(rng, sum(sizes) + gap * (len(sizes) + 2)), _arrays(rng, shapes), begins, *([] if scale is None else [scale])
    return PrimitiveCase(primitive, arguments, exact=True, label=label)


PRIMITIVE_CASES = [case for label, shapes, gap in (("several", SHAPES, 0), ("gaps", SHAPES, 3), ("pieces", ((64,), (16, 8), (4,)), 0),
                                                   ("pieces-apart", ((64,), (16, 8), (4,)), 8), ("one", ((70001,),), 0), ("none", (), 0),
                                                   ("empty", ((0,),), 1))
                   for case in (_case("bucket_pack", label, shapes, gap, 0.5), _case("bucket_unpack", label, shapes, gap))]
