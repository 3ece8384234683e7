"""Cases of fused training primitives."""

import numpy as np

from tests.cases.case import PrimitiveCase, channels_last, floats, integers, strided
from tests.cases.convolution import GEOMETRIES, is_large
from tests.cases.fused import LIMITS


def _slice_of_channels(x):
    """x within a channels-last map of more channels, as a part of a concatenation lies."""
    N, C, *size = x.shape
    whole = np.full((N, *size, C + 48), np.nan, x.dtype)
    whole[..., 16:16 + C] = np.moveaxis(x, 1, -1)
    return np.moveaxis(whole[..., 16:16 + C], -1, 1)


MAPS = (("map", (2, 35, 5, 6), channels_last), ("gaps", (3, 19, 4, 5), strided), ("rows", (70, 21), lambda x: x),
        ("wide", (6, 2048), lambda x: x), ("row-major", (2, 16, 3, 5), lambda x: x), ("few", (4, 3, 9, 7), channels_last),
        ("empty", (0, 3, 2, 2), lambda x: x), ("one-axis", (2, 33, 9), channels_last), ("slice", (2, 64, 9, 8), _slice_of_channels),
        ("long", (5, 16, 31, 33), channels_last))


def _statistics(x):
    axes = (0, *range(2, x.ndim))
    wide = x.astype(np.float64)
    if not x.size:
        return np.zeros(x.shape[1], np.float32), np.ones(x.shape[1], np.float32)
    return wide.mean(axes).astype(np.float32), wide.var(axes).astype(np.float32)


def _batch_norms():
    for i, (label, shape, layout) in enumerate(MAPS):
        for residual in (False, True):
            for limits in LIMITS:
                name, affine = f"{label}-{'residual-' * residual}{limits[0]}-{limits[1]}", i % 3 > 0

                def parts(rng, shape=shape, layout=layout, residual=residual, affine=affine):
                    x = layout(floats(rng, *shape) * 3 + 10)
                    weight, bias = (floats(rng, shape[1]), floats(rng, shape[1])) if affine else (None, None)
                    return x, weight, bias, layout(floats(rng, *shape)) if residual else None

                def forward(rng, parts=parts, limits=limits):
                    return *parts(rng), 1e-5, *limits

                def backward(rng, parts=parts, limits=limits, layout=layout):
                    x, weight, bias, residual = parts(rng)
                    mean, variance = _statistics(x)
                    y = None
                    if residual is not None:        # what was limited: some of it is at the limits
                        y = layout(np.clip(floats(rng, *x.shape) * 4, *limits) if limits != (None, None) else floats(rng, *x.shape))
                    return layout(floats(rng, *x.shape)), y, x, weight, bias, mean, variance, 1e-5, *limits
                yield PrimitiveCase("batch_norm_fused_forward", forward, label=name)
                # a value that rounding moves over a limit lets another gradient pass: in float32 only where y says which
                if residual or limits == (None, None):
                    yield PrimitiveCase("batch_norm_fused_backward", backward, tolerance=3e-5, label=name)


def _far_from_limits():
    """Values that no rounding moves over a limit: each is 0.25 or more away from it."""
    def arguments(rng, shape=(6, 20, 5, 4)):
        n = rng.permuted(np.tile(np.repeat([-1.0, 1.0], 60), (20, 1)), axis=1).reshape(20, 6, 5, 4).transpose(1, 0, 2, 3).astype(np.float32)
        bias = rng.choice([-0.5, 0.5, 3.0], 20).astype(np.float32)
        weight = rng.choice([-1.0, 1.0], 20).astype(np.float32)
        return channels_last(floats(rng, *shape)), None, channels_last(n * 2 + 5), weight, bias, np.full(20, 5, np.float32), \
            np.full(20, 4, np.float32), 1e-5, 0.0, 3.25
    yield PrimitiveCase("batch_norm_fused_backward", arguments, label="from-x")


def _added_gradients():
    for label, (batch, g) in GEOMETRIES.items():
        for layout in (channels_last, strided):
            def arguments(rng, batch=batch, g=g, layout=layout):
                grad_y = layout(integers(rng, batch, g.filters, *g.output_size))
                return grad_y, integers(rng, *g.weight_shape), layout(integers(rng, batch, g.channels, *g.input_size)), g
            yield PrimitiveCase("conv2d_backward_input_added", arguments, exact=True, label=f"{label}-{layout.__name__}",
                                large=is_large(batch, g))


PRIMITIVE_CASES = [*_batch_norms(), *_far_from_limits(), *_added_gradients()]
