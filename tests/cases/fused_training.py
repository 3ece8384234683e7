"""Cases of fused training primitives."""

import numpy as np

from numbanet.backends import get_backend
from numbanet.geometry import conv_geometry, pool_geometry
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
                def given(rng, parts=parts, limits=limits):
                    x, weight, bias, residual = parts(rng)
                    mean, variance = _statistics(x)
                    return x, weight, bias, residual, mean + 0.25, variance * 1.5, 1e-5, *limits
                yield PrimitiveCase("batch_norm_fused_forward", forward, label=name)
                yield PrimitiveCase("batch_norm_given_forward", given, label=name)
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


def _convolutions_with_statistics():
    """y is exact, and so far from 0 that its variance would be lost beside its square."""
    with_gaps = {f"{name}-with-gaps": GEOMETRIES[name] for name in ("few", "pointwise")}
    for i, (label, (batch, g)) in enumerate((GEOMETRIES | with_gaps).items()):
        for residual, limits in ((False, (None, None)), (True, LIMITS[i % 4])):
            layout = strided if label.endswith("gaps") else channels_last

            def arguments(rng, batch=batch, g=g, residual=residual, limits=limits, layout=layout):
                added = layout(integers(rng, batch, g.filters, *g.output_size)) if residual else None
                bias = integers(rng, g.filters) + (0 if residual else 10000)
                return layout(integers(rng, batch, g.channels, *g.input_size)), integers(rng, *g.weight_shape), bias, added, g, *limits
            yield PrimitiveCase("conv2d_with_statistics", arguments, label=f"{label}-{'residual-' * residual}{limits[0]}-{limits[1]}",
                                large=is_large(batch, g))


def _added_gradients():
    for label, (batch, g) in GEOMETRIES.items():
        for layout in (channels_last, strided):
            def arguments(rng, batch=batch, g=g, layout=layout):
                grad_y = layout(integers(rng, batch, g.filters, *g.output_size))
                return grad_y, integers(rng, *g.weight_shape), layout(integers(rng, batch, g.channels, *g.input_size)), g
            yield PrimitiveCase("conv2d_backward_input_added", arguments, exact=True, label=f"{label}-{layout.__name__}",
                                large=is_large(batch, g))


# Batch, channels, filters, size, kernel, stride, padding, dilation, then pooling: window, stride, padding
POOLED = {
    "lenet-1": (5, 1, 6, (32, 32), 5, 1, 0, 1, 2, 2, 0),
    "lenet-2": (19, 6, 16, (14, 14), 5, 1, 0, 1, 2, 2, 0),
    "one-channel-odd": (2, 1, 7, (20, 43), (4, 3), (2, 1), (1, 2), (2, 1), 2, 2, 0),
    "one-channel-tall": (2, 1, 5, (23, 9), (7, 2), 1, ((0, 3), (1, 0)), 1, 2, 2, 0),
    "colours": (3, 3, 6, (32, 30), 5, 1, 2, 1, 2, 2, 0),
    "colours-wide": (2, 4, 12, (9, 75), (3, 11), (3, 1), (4, 5), 1, 2, 2, 0),
    "one-filter": (2, 2, 1, (6, 5), 3, 1, 1, 1, 2, 2, 0),
    "few-filters": (3, 5, 9, (13, 24), (4, 5), 1, 0, 1, 2, 2, 0),
    "many-taps": (2, 9, 15, (12, 15), (3, 6), 1, 0, 1, 2, 2, 0),
    "overlapping": (2, 1, 6, (12, 12), 3, 1, 0, 1, 3, 2, 1),
    "many": (2, 20, 40, (9, 8), 3, 1, 1, 1, 2, 2, 0),
    "empty": (0, 1, 6, (12, 12), 5, 1, 0, 1, 2, 2, 0),
}


# As above, of a few channels and rows of so many pixels that the map is computed, and pooled, in bands of rows; then dilation, ceil_mode
BANDS = {
    "band": (2, 3, 64, (61, 97), 7, 2, 3, 1, 3, 2, 1),
    "band-of-an-image": (1, 3, 35, (150, 99), 11, 4, 2, 1, 3, 2, 0),
    "band-of-pairs": (3, 4, 17, (23, 40), 3, 1, 1, 1, 2, 2, 0),
    "band-of-two-channels": (2, 2, 50, (9, 26), (2, 3), (1, 2), 1, 1, 2, 3, 1),
    "band-read-often": (1, 5, 40, (37, 24), 3, 1, 1, 1, (5, 4), (1, 2), 2),
    "band-dilated": (1, 3, 33, (30, 26), 3, 1, 1, 1, (3, 2), (2, 1), 1, (3, 2), True),
    "band-with-gaps": (2, 3, 20, (24, 25), 3, 1, 1, 1, (2, 3), (5, 4), 0),
    "band-whole": (5, 3, 32, (12, 24), (2, 3), 1, (0, 1), 1, (11, 24), 1, 0),
    "band-of-no-images": (0, 3, 33, (9, 24), 3, 1, 1, 1, 3, 2, 1),
}


def _row_major(x):
    return x


def _pooled_bands():
    for i, (label, (batch, channels, filters, size, kernel, stride, padding, dilation, *pooling)) in enumerate(BANDS.items()):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        geometry = conv_geometry(channels, filters, size, kernel, stride, padding, dilation)
        for j, layout in enumerate((channels_last, strided, _row_major)):
            limits = LIMITS[(i + j) % 4]
            given = pooled_forward(batch, geometry, pool_geometry(geometry.output_size, *pooling), layout, limits, bias=(i + j) % 3 > 0)

            def with_extremes(rng, given=given, batch=batch):
                x, *rest = given(rng)
                if batch:
                    x[0, 0, 3, 4], x[-1, -1, 6, 7], x[0, 1, 5, 9], x[-1, 0, -1, -1] = np.nan, np.nan, np.inf, -np.inf
                return x, *rest
            for suffix, arguments in (("", given), ("-extremes", with_extremes)):
                yield PrimitiveCase("conv2d_max_pool_values", arguments, exact=True, large=is_large(batch, geometry),
                                    label=f"{label}-{layout.__name__.strip('_')}-{limits[0]}-{limits[1]}{suffix}")


def _pooled_geometries():
    for label, (batch, channels, filters, size, kernel, stride, padding, dilation, *pooling) in POOLED.items():
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        geometry = conv_geometry(channels, filters, size, kernel, stride, padding, dilation)
        yield label, batch, geometry, pool_geometry(geometry.output_size, *pooling)


def pooled_forward(batch, geometry, pooling, layout=channels_last, limits=(0.0, None), bias=True):
    """A function of a generator: arguments of small integers, so that all sums are exact and many maxima are ties."""
    def arguments(rng):
        x = layout(integers(rng, batch, geometry.channels, *geometry.input_size))
        return x, integers(rng, *geometry.weight_shape), integers(rng, geometry.filters) if bias else None, geometry, pooling, *limits
    return arguments


def _pooled():
    for i, (label, batch, geometry, pooling) in enumerate(_pooled_geometries()):
        for j, layout in enumerate((channels_last, strided)):
            for limits in LIMITS if label.startswith("lenet") else (LIMITS[(i + j) % 4],):
                name, forward = f"{label}-{layout.__name__}-{limits[0]}-{limits[1]}", pooled_forward(
                    batch, geometry, pooling, layout, limits, bias=(i + j) % 3 > 0)
                yield PrimitiveCase("conv2d_max_pool_forward", forward, exact=True, label=name)
                yield PrimitiveCase("conv2d_max_pool_values", forward, exact=True, label=name)

                def backward(rng, forward=forward, of_input=False, layout=layout):
                    x, weight, *rest = forward(rng)
                    y, argmax = get_backend("reference").conv2d_max_pool_forward(x, weight, *rest)
                    grad_y = layout(integers(rng, *y.shape)) if layout is strided else integers(rng, *y.shape)
                    return grad_y, y, argmax, weight if of_input else x, *rest[1:]
                yield PrimitiveCase("conv2d_max_pool_backward_weight", backward, exact=True, label=name)
                yield PrimitiveCase("conv2d_max_pool_backward_input", lambda rng, backward=backward: backward(rng, of_input=True),
                                    exact=True, label=name)


def _extremes():
    """NaN and infinities in x: the first NaN of a window wins, whatever the limits."""
    for label, batch, geometry, pooling in _pooled_geometries():
        if label not in ("lenet-1", "lenet-2", "colours"):
            continue
        for limits in LIMITS:
            def arguments(rng, batch=batch, geometry=geometry, pooling=pooling, limits=limits):
                x, *rest = pooled_forward(batch, geometry, pooling, limits=limits)(rng)
                x[0, 0, 3, 4], x[1, -1, 6, 7], x[1, 0, 9, 3], x[-1, 0, 2, 2] = np.nan, np.nan, np.inf, -np.inf
                return x, *rest
            for name in ("conv2d_max_pool_forward", "conv2d_max_pool_values"):
                yield PrimitiveCase(name, arguments, exact=True, label=f"{label}-extremes-{limits[0]}-{limits[1]}")


def _linears():
    for M, I, O, limits in ((64, 400, 120, (0.0, None)), (257, 84, 10, (None, None)), (3, 17, 33, (-2.0, 5.0)), (1, 1, 1, (0.0, 6.0)),
                            (1030, 5, 7, (0.0, None)), (5, 600, 500, (None, 3.0)), (0, 3, 4, (0.0, None)), (33, 70, 16, (0.0, None))):
        for of_input in (True, False):
            def arguments(rng, M=M, I=I, O=O, limits=limits, of_input=of_input):
                x, weight, grad_y, y = integers(rng, M, I), integers(rng, O, I), integers(rng, M, O), integers(rng, M, O, low=-3, high=7)
                if O == 33:
                    x, grad_y = strided(x), strided(grad_y)
                if O == 16:
                    weight, y = weight.T.copy().T, y.T.copy().T
                return grad_y, None if limits == (None, None) else y, x, weight if of_input else None, *limits
            yield PrimitiveCase("linear_fused_backward", arguments, exact=True, label=f"{M}-{I}-{O}-{of_input}")


PRIMITIVE_CASES = [*_linears(), *_batch_norms(), *_far_from_limits(), *_convolutions_with_statistics(), *_added_gradients(), *_pooled(),
                   *_pooled_bands(),
                   *_extremes()]
