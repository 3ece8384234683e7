"""Cases of softmax."""

import numpy as np

import numbanet.ops.softmax as softmax
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, strided


def _case(name, operation, dim, shape):
    def torch(x):
        import torch
        return getattr(torch.nn.functional, name)(x, dim)
    return OperationCase(f"{name}-{dim}-{len(shape)}", (operation,), lambda x: getattr(softmax, name)(x, dim),
                         lambda rng: (rng.standard_normal(shape),), torch)


OPERATION_CASES = [
    _case("softmax", softmax.Softmax, 1, (3, 5)), _case("softmax", softmax.Softmax, -3, (2, 3, 2, 2)),
    _case("softmin", softmax.Softmax, 0, (3, 5)), _case("softmax", softmax.Softmax, 0, ()),
    _case("log_softmax", softmax.LogSoftmax, 1, (3, 5)), _case("log_softmax", softmax.LogSoftmax, 0, (4, 1, 2)),
]


def _special(rng):
    x = floats(rng, 6, 19)
    x[0, 3], x[1, 4], x[2, 2], x[3] = np.nan, np.inf, -np.inf, -np.inf
    x[4] = 1e30
    return x


_INPUTS = {"rows": lambda rng: 5 * floats(rng, 1900, 10), "wide": lambda rng: 5 * floats(rng, 3, 1003),
           "channels": lambda rng: channels_last(floats(rng, 2, 17, 5, 3)), "strided": lambda rng: strided(floats(rng, 5, 7))}

PRIMITIVE_CASES = [
    *[PrimitiveCase(f"{name}_forward", lambda rng, make=make: (make(rng), 1), label=label, tolerance=1e-6, large=label == "rows")
      for name in ("softmax", "log_softmax") for label, make in (*_INPUTS.items(), ("special", _special))],
    *[PrimitiveCase(f"{name}_backward_input", lambda rng, make=make: (x := make(rng), -np.abs(x) / 3, 1), label=label, tolerance=2e-6,
                    large=label == "rows")
      for name in ("softmax", "log_softmax") for label, make in _INPUTS.items()],
    PrimitiveCase("softmax_forward", lambda rng: (floats(rng, 4, 5, 3), 0), label="first-axis"),
    PrimitiveCase("log_softmax_forward", lambda rng: (floats(rng, 0, 5), 1), label="empty"),
]
