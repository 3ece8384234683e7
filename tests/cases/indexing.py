"""Cases of indexing by data."""

import numpy as np

from numbanet.ops import indexing
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, integers, strided


def _indices(rng, size, *shape):
    return rng.integers(0, size, shape)


def _assigned(key):
    def run(x, value):
        y = x.clone()
        y[key] = value
        return y
    return run


def _case(name, operation, call, inputs):
    return OperationCase(name, (operation,), call, inputs, call)


OPERATION_CASES = [
    _case("index", indexing.Index, lambda x, i: x[1:, i],
          lambda rng: (floats(rng, 3, 4, 2, dtype=float), _indices(rng, 4, 2, 5))),
    _case("index-apart", indexing.Index, lambda x, i, j: x[i, :, j],
          lambda rng: (floats(rng, 3, 2, 4, dtype=float), _indices(rng, 3, 3, 1), _indices(rng, 4, 2))),
    _case("index-after-integer", indexing.Index, lambda x, i: x[0, :, i],
          lambda rng: (floats(rng, 2, 3, 4, dtype=float), _indices(rng, 4, 3))),
    _case("index-mask", indexing.Index, lambda x, m: x[m],
          lambda rng: (floats(rng, 3, 4, dtype=float), rng.random((3, 4)) > 0.5)),
    _case("index_select", indexing.Index, lambda x, i: x.index_select(1, i),
          lambda rng: (floats(rng, 2, 4, 3, dtype=float), _indices(rng, 4, 6))),
    _case("slice_put", indexing.SlicePut, _assigned((slice(1, None), ..., slice(0, 4, 2))),
          lambda rng: (floats(rng, 3, 2, 5, dtype=float), floats(rng, 1, 2, 1, 2, dtype=float))),
    _case("index_put", indexing.IndexPut, _assigned((0, slice(None), [2, 0])),
          lambda rng: (floats(rng, 2, 3, 4, dtype=float), floats(rng, 3, 1, dtype=float))),
    _case("gather", indexing.Gather, lambda x, i: x.gather(1, i),
          lambda rng: (floats(rng, 3, 4, 2, dtype=float), _indices(rng, 4, 2, 6, 2))),
    _case("scatter", indexing.Scatter, lambda x, s: x.scatter(1, _like(x, [[2, 0], [1, 3]]), s),
          lambda rng: (floats(rng, 3, 4, dtype=float), floats(rng, 2, 2, dtype=float))),
    OperationCase("scatter-part-of-src", (indexing.Scatter,), lambda x, s: x.scatter(1, _like(x, [[2, 0], [1, 3]]), s),
                  lambda rng: (floats(rng, 3, 4, dtype=float), floats(rng, 2, 3, dtype=float))),    # torch: no gradient
    _case("scatter-number", indexing.Scatter, lambda x: x.scatter(0, _like(x, [[2, 0], [0, 1]]), 1.5),
          lambda rng: (floats(rng, 3, 4, dtype=float),)),
    _case("scatter_add", indexing.Scatter, lambda x, i, s: x.scatter_add(2, i, s),
          lambda rng: (floats(rng, 2, 3, 4, dtype=float), _indices(rng, 4, 2, 3, 6),
                       floats(rng, 2, 3, 6, dtype=float))),
    _case("index_add", indexing.Scatter, lambda x, i, s: x.index_add(0, i, s, alpha=2),
          lambda rng: (floats(rng, 3, 4, dtype=float), _indices(rng, 3, 5), floats(rng, 5, 4, dtype=float))),
]


def _like(x, positions):
    """Positions as an integer tensor of the library and on the device of x."""
    if hasattr(x, "backend"):
        import numbanet
        return numbanet.tensor(positions, device=x.device)
    import torch
    return torch.tensor(positions)


def _get(label, shape, indices, axes, layout=lambda x: x):
    return PrimitiveCase("index_get", lambda rng: (layout(floats(rng, *shape)), indices(rng), axes), exact=True,
                         label=label)


def _backward(label, shape, grad_shape, indices, axes, layout=lambda x: x):
    return PrimitiveCase("index_get_backward_input", lambda rng: (layout(integers(rng, *grad_shape)), indices(rng),
                                                                  axes, shape),
                         exact=True, label=label)


def _signed(rng, size, *shape):
    return rng.integers(-size, size, shape)


def _put(label, accumulate):
    return PrimitiveCase("index_put", lambda rng: (integers(rng, 3, 4, 5), [_signed(rng, 4, 6)], (1,),
                                                   integers(rng, 6, 1), accumulate),
                         exact=True, label=label)


def _scatter(label, x, index, src, accumulate, layout=lambda x: x):
    """src: a shape or a number."""
    return PrimitiveCase("scatter", lambda rng: (layout(integers(rng, *x)), 1, _indices(rng, x[1], *index),
                                                 integers(rng, *src) if isinstance(src, tuple) else src, accumulate),
                         exact=True, label=label)


PRIMITIVE_CASES = [
    _get("axis", (3, 4, 5), lambda rng: [_signed(rng, 4, 7)], (1,)),
    _get("axis-2d", (3, 4, 5), lambda rng: [_signed(rng, 3, 2, 3)], (0,)),
    _get("channels-last", (3, 4, 5, 2), lambda rng: [_signed(rng, 4, 7)], (1,), channels_last),
    _get("strided", (3, 4, 5), lambda rng: [strided(_signed(rng, 5, 7))], (2,), strided),
    _get("neighbours", (3, 4, 5), lambda rng: [_signed(rng, 4, 2, 1), _signed(rng, 5, 3)], (1, 2)),
    _get("apart", (3, 4, 5), lambda rng: [_signed(rng, 3, 2), _signed(rng, 5, 2)], (0, 2)),
    _get("none", (3, 4), lambda rng: [np.zeros(0, np.int64)], (0,)),
    PrimitiveCase("index_get", lambda rng: (rng.integers(0, 9, (3, 4)), [_signed(rng, 4, 5)], (1,)), exact=True,
                  label="integers"),
    _backward("repeated", (3, 4, 5), (3, 20, 5), lambda rng: [_signed(rng, 4, 20)], (1,)),
    _backward("channels-last", (3, 4, 5, 2), (3, 9, 5, 2), lambda rng: [_signed(rng, 4, 9)], (1,), channels_last),
    _backward("neighbours", (3, 4, 5), (3, 2, 7), lambda rng: [_signed(rng, 4, 2, 1), _signed(rng, 5, 7)], (1, 2)),
    _backward("apart", (3, 4, 5), (6, 4), lambda rng: [_signed(rng, 3, 6), _signed(rng, 5, 6)], (0, 2)),
    _backward("all", (3, 4), (9,), lambda rng: [_signed(rng, 3, 9), _signed(rng, 4, 9)], (0, 1)),
    _put("write", False),
    _put("add", True),
    PrimitiveCase("slice_put", lambda rng: (floats(rng, 3, 4, 5), (1, (0, 4, 3)), floats(rng, 1, 5)), exact=True),
    PrimitiveCase("gather", lambda rng: (floats(rng, 3, 4, 5), 1, _indices(rng, 4, 2, 7, 5)), exact=True,
                  label="shorter"),
    PrimitiveCase("gather", lambda rng: (strided(floats(rng, 3, 4)), 1, strided(_indices(rng, 4, 3, 2))), exact=True,
                  label="strided"),
    PrimitiveCase("gather", lambda rng: (rng.integers(0, 99, (3, 4)), 0, _indices(rng, 3, 5, 4)), exact=True,
                  label="integers"),
    _scatter("write", (3, 4, 5), (2, 3, 5), (3, 4, 5), False),
    _scatter("write-number", (3, 4), (3, 2), 2.5, False),
    _scatter("add", (3, 4, 5), (3, 9, 5), (3, 9, 6), True),
    _scatter("add-shorter", (3, 4, 5), (2, 9, 5), (2, 9, 5), True),
    _scatter("add-channels-last", (3, 4, 5, 2), (3, 9, 5, 2), (3, 9, 5, 2), True, channels_last),
]
