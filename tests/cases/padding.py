"""Cases of padding."""

import numpy as np

from numbanet.ops.padding import Pad, pad
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, integers, strided


def _case(label, shape, padding, mode="constant", value=None):
    def run(x):
        import torch
        return torch.nn.functional.pad(x, padding, mode, value)
    return OperationCase(f"pad-{label}", (Pad,), lambda x: pad(x, padding, mode, value),
                         lambda rng: (floats(rng, *shape, dtype=float),), run)


OPERATION_CASES = [
    _case("constant", (2, 3, 4, 5), (1, 2, 0, 3), value=1.5),
    _case("constant-channels", (2, 3, 4), (0, 0, 1, 2)),
    _case("cut-and-fill", (3, 5, 6), (-1, 2, 3, -2, -1, 0), value=-2.0),
    *[_case(f"{mode}-map", (2, 2, 4, 5), (3, 2, 1, 3), mode) for mode in ("reflect", "replicate", "circular")],
    _case("reflect-signal", (2, 3, 5), (4, 1), "reflect"),
    _case("circular-unbatched", (3, 4, 5), (2, 5, 4, 0), "circular"),
    _case("replicate-unbatched-signal", (3, 4), (6, 1), "replicate"),
    *[_case(f"{mode}-volume", (1, 2, 3, 4, 3), (1, 2, 3, 1, 2, 1), mode) for mode in ("reflect", "replicate", "circular")],
]


def _primitives():
    for mode in ("constant", "reflect", "replicate", "circular"):
        for C, layout in ((6, channels_last), (21, strided), (1, lambda x: x)):
            padding = ((0, 0), (0, 0), (3, 1), (0, 4))
            options = (padding, mode, 3.0)

            def forward(rng, C=C, layout=layout, options=options):
                return layout(integers(rng, 2, C, 5, 6)), *options

            def backward(rng, C=C, layout=layout, options=options):
                return layout(integers(rng, 2, C, 9, 10)), *options[:2]
            yield PrimitiveCase("pad_forward", forward, exact=True, label=f"{mode}-{C}")
            yield PrimitiveCase("pad_backward_input", backward, exact=True, label=f"{mode}-{C}")
    for label, padding in (("cut", ((0, 0), (-1, 1), (2, -3), (-2, -2))), ("cut-all", ((0, 0), (0, 0), (-3, -2), (1, 1))),
                           ("cut-beyond-one-side", ((0, 0), (0, 0), (-7, 9), (9, -7)))):
        yield PrimitiveCase("pad_forward", lambda rng, p=padding: (channels_last(integers(rng, 2, 3, 5, 6)), p, "constant", -1.0),
                            exact=True, label=label)
    yield PrimitiveCase("pad_forward", lambda rng: (rng.integers(0, 9, (2, 3, 4, 5)), ((0, 0), (0, 0), (1, 1), (2, 0)), "reflect", 0),
                        exact=True, label="integers")
    yield PrimitiveCase("pad_forward", lambda rng: (np.arange(5) > 2, ((2, 1),), "constant", True), exact=True, label="mask")


PRIMITIVE_CASES = list(_primitives())
