"""Cases of views and rearrangements."""

import numpy as np

from numbanet.ops import rearrange, shape
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, strided


def _method(name, operation, call, *shapes):
    """The same methods, called on our tensors and on PyTorch's."""
    return OperationCase(name, (operation,), call, lambda rng: tuple(floats(rng, *s, dtype=float) for s in shapes),
                         call)


def _joined(ours, theirs):
    def torch_call(*tensors):
        import torch
        return getattr(torch, theirs)(tensors, dim=1)
    return lambda *tensors: ours(tensors, dim=1), torch_call


_cat, _torch_cat = _joined(rearrange.cat, "cat")
_stack, _torch_stack = _joined(rearrange.stack, "stack")

OPERATION_CASES = [
    _method("reshape", shape.Reshape, lambda x: x.reshape(3, -1), (2, 3, 5)),
    _method("reshape-permuted", shape.Reshape, lambda x: x.permute(0, 3, 1, 2).flatten(1) * 2, (2, 3, 4, 5)),
    _method("permute", shape.Transpose, lambda x: x.permute(2, 0, 3, 1), (2, 3, 4, 5)),
    _method("expand", shape.Expand, lambda x: x.expand(4, 2, 3, -1), (2, 1, 5)),
    _method("slice", shape.Slice, lambda x: x[1, ..., None, 1::2], (3, 2, 6)),
    OperationCase("cat", (rearrange.Concatenate,), _cat,
                  lambda rng: (floats(rng, 2, 3, 4, dtype=float), floats(rng, 2, 1, 4, dtype=float)), _torch_cat),
    OperationCase("stack", (rearrange.Concatenate,), _stack,
                  lambda rng: (floats(rng, 2, 3, dtype=float), floats(rng, 2, 3, dtype=float)), _torch_stack),
    _method("split", rearrange.Split, lambda x: x.split(2, 1), (2, 5, 3)),
    _method("split-one-part-used", rearrange.Split, lambda x: x.chunk(3, 1)[1], (2, 5, 3)),
    _method("flip", rearrange.Flip, lambda x: x.flip(0, 2), (2, 3, 4)),
    _method("clone", rearrange.Clone, lambda x: x.transpose(0, 1).contiguous().clone(), (2, 3)),
    _method("roll", rearrange.Concatenate, lambda x: x.roll((1, -2), (0, 2)), (2, 3, 5)),
    _method("repeat", rearrange.Clone, lambda x: x.repeat(2, 1, 3), (2, 3)),
]


def _one(primitive, label, make, *attributes, layout=lambda x: x):
    return PrimitiveCase(primitive, lambda rng: (layout(floats(rng, *make)), *attributes), exact=True, label=label)


def _reversed(x):
    return x[::-1, :, ::-1]


F32 = np.dtype(np.float32)
PRIMITIVE_CASES = [
    _one("transpose", "", (2, 3, 4), (2, 0, 1)),
    _one("reshape", "view", (2, 3, 4), (4, 6)),
    _one("reshape", "channels-last", (3, 17, 5, 7), (3, 17 * 35), layout=channels_last),
    _one("reshape", "channels-last-merged", (2, 5, 3, 3), (10, 9), layout=channels_last),
    _one("reshape", "strided", (3, 5, 3), (9, 5), layout=strided),
    _one("reshape", "one-pixel", (3, 5, 1, 1), (3, 5), layout=channels_last),
    _one("reshape", "empty", (0, 5, 3, 3), (0, 45), layout=channels_last),
    _one("expand", "", (3, 1, 2), (4, 3, 5, 2)),
    _one("slice_view", "", (4, 5, 6), (1, None, (1, 4, 2), (6, 6, 1))),
    _one("slice_view_backward_input", "", (2, 3), ((0, 4, 2), 1, (1, 4, 1)), (4, 5, 6)),
    _one("slice_view_backward_input", "channels-last", (2, 3, 4, 4), ((0, 2, 1), (1, 4, 1)), (2, 5, 4, 4),
         layout=channels_last),
    _one("slice_view_backward_input", "maps", (5, 19, 6, 5), ((0, 5, 1), (0, 19, 1), (1, 12, 2), (0, 9, 2)), (5, 19, 13, 9),
         layout=channels_last),
    _one("slice_view_backward_input", "maps-of-views", (3, 33, 7, 5), ((0, 3, 1), (2, 35, 1), (0, 7, 1), (1, 6, 1)), (3, 40, 7, 6),
         layout=lambda x: strided(channels_last(x))),
    _one("slice_view_backward_input", "every-other-map", (3, 20, 7, 6), ((0, 6, 2), (0, 20, 1), (0, 7, 1), (0, 6, 1)), (6, 20, 7, 6),
         layout=channels_last),
    PrimitiveCase("concatenate", lambda rng: ([channels_last(floats(rng, 2, c, 5, 3)) for c in (3, 0, 20)], 1),
                  exact=True,
                  label="channels"),
    *(PrimitiveCase("interleave_channels", lambda rng, g=g, shape=shape, layout=layout: ([layout(floats(rng, *shape)) for _ in range(g)],),
                    exact=True, label=f"{g}-{'x'.join(map(str, shape))}-{layout.__name__}")
      for g, shape in ((2, (2, 37, 5, 3)), (2, (1, 16, 40, 40)), (2, (3, 3, 2, 2)), (3, (2, 20, 5, 4)), (1, (1, 4, 3, 2)),
                       (2, (0, 4, 3, 3)), (2, (2, 5, 7)), (40, (2, 2, 4, 5)))
      for layout in (channels_last, strided)),
    *(PrimitiveCase("separate_channels", lambda rng, g=g, shape=shape, layout=layout: (layout(floats(rng, *shape)), g), exact=True,
                    label=f"{g}-{'x'.join(map(str, shape))}-{layout.__name__}")
      for g, shape in ((2, (2, 74, 5, 3)), (2, (1, 32, 40, 40)), (2, (3, 6, 2, 2)), (3, (2, 60, 5, 4)), (1, (1, 4, 3, 2)),
                       (2, (0, 4, 3, 3)), (2, (2, 10, 7)), (40, (2, 80, 4, 5)))
      for layout in (channels_last, strided)),
    PrimitiveCase("concatenate", lambda rng: ([channels_last(floats(rng, 3, c, 21, 32)) for c in (3, 0, 20, 1)], 1), exact=True,
                  label="maps"),
    PrimitiveCase("concatenate", lambda rng: ([channels_last(floats(rng, 2, 40, 9, 8))[:, i:i + 19] for i in (0, 21)], 1), exact=True,
                  label="slices-of-maps"),
    PrimitiveCase("concatenate", lambda rng: ([strided(floats(rng, n, 3)) for n in (2, 1)], 0), exact=True,
                  label="rows"),
    _one("flip", "", (3, 4, 5), (0, 2), layout=strided),
    _one("reorder", "to-rows", (2, 19, 9, 8), None, layout=channels_last),
    _one("reorder", "to-rows-in-tiles", (3, 37, 5, 14), None, layout=channels_last),
    _one("reorder", "to-channels-last-in-tiles", (3, 37, 5, 14), (0, 2, 3, 1)),
    _one("reorder", "to-channels-last", (2, 19, 9, 8), (0, 2, 3, 1)),
    _one("reorder", "volumes", (2, 3, 2, 5, 3), (0, 2, 3, 4, 1)),
    _one("reorder", "reversed", (2, 3, 4), None, layout=_reversed),
    PrimitiveCase("arange", lambda rng: (3, -2, 7, np.dtype(np.int64)), exact=True),
    PrimitiveCase("arange", lambda rng: (0.5, 0.25, 6, F32), exact=True, label="floats"),
]
