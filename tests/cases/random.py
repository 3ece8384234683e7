"""Cases of random numbers and dropout."""

import numpy as np

from numbanet.ops import dropout
from numbanet.random import Generator
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, strided

KEY = (2**64 - 5, 2**33 + 7)        # all four words of key and stream count


def _case(name, operation, function, shape, p):
    return OperationCase(name, (operation,), lambda x: function(x, p, True, generator=Generator(3)),
                         lambda rng: (floats(rng, *shape, dtype=float),))


OPERATION_CASES = [
    _case("dropout", dropout.Dropout, dropout.dropout, (3, 7), 0.4),
    _case("dropout-all", dropout.Dropout, dropout.dropout, (3, 7), 1.0),
    _case("dropout2d", dropout.ChannelDropout, dropout.dropout2d, (3, 4, 2, 3), 0.4),
    _case("dropout1d-unbatched", dropout.ChannelDropout, dropout.dropout1d, (6, 5), 0.4),
    _case("alpha_dropout", dropout.Dropout, dropout.alpha_dropout, (3, 7), 0.3),
]

F32 = np.dtype(np.float32)


def _dropped(label, shape, p, layout=lambda x: x):
    return PrimitiveCase("dropout", lambda rng: (layout(floats(rng, *shape)), p, KEY), exact=True, label=label)


PRIMITIVE_CASES = [
    PrimitiveCase("random_uniform", lambda rng: ((5, 7), F32, -1.0, 2.5, KEY), exact=True),
    PrimitiveCase("random_uniform", lambda rng: ((9001,), F32, 0.0, 1.0, KEY), exact=True, label="long"),
    PrimitiveCase("random_uniform", lambda rng: ((6,), np.dtype(np.float16), 0.0, 1.0, KEY), exact=True, label="half"),
    PrimitiveCase("random_normal", lambda rng: ((5, 7), F32, 1.0, 2.0, KEY), tolerance=1e-7),
    PrimitiveCase("random_normal", lambda rng: ((9001,), F32, 0.0, 1.0, KEY), tolerance=1e-7, label="long"),
    PrimitiveCase("random_integers", lambda rng: ((5, 7), -3, 11, KEY), exact=True),
    PrimitiveCase("random_permutation", lambda rng: (100, KEY), exact=True),
    _dropped("rows", (13, 417), 0.3),
    _dropped("channels-last", (3, 19, 17, 16), 0.5, channels_last),
    _dropped("channels-last-odd", (2, 5, 7, 3), 0.5, channels_last),
    _dropped("strided", (5, 7), 0.9, strided),
    _dropped("all", (9,), 1.0),
    _dropped("empty", (0, 3), 0.5),
]
