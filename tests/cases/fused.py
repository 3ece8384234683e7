"""Cases of fused inference primitives."""

import numpy as np

from numbanet.backends.contract.fused import ACTIVATIONS
from numbanet.geometry import conv_geometry, pool_geometry
from tests.cases.case import PrimitiveCase, channels_last, floats, integers, strided
from tests.cases.convolution import GEOMETRIES, is_large
from tests.cases.pooling import GEOMETRIES as POOL_GEOMETRIES

LIMITS = ((0.0, None), (0.0, 6.0), (None, 4.0), (None, None))


def _convolution(label, batch, g, layout, residual, limits):
    def arguments(rng):
        x = layout(integers(rng, batch, g.channels, *g.input_size))
        added = layout(integers(rng, batch, g.filters, *g.output_size)) if residual else None
        return x, integers(rng, *g.weight_shape), integers(rng, g.filters), added, g, *limits
    return PrimitiveCase("conv2d_fused", arguments, exact=True, label=f"{label}-{'residual-' * residual}{limits[0]}-{limits[1]}",
                         large=is_large(batch, g))


def _convolutions():
    for i, (label, (batch, g)) in enumerate(GEOMETRIES.items()):
        yield _convolution(label, batch, g, channels_last, True, (0.0, None))
        yield _convolution(label, batch, g, channels_last, False, LIMITS[i % 4])
    for label in ("few", "strip-and-lanes", "depthwise", "lenet-2", "groups-of-four", "bands"):
        yield _convolution(f"{label}-with-gaps", *GEOMETRIES[label], strided, True, (-5.0, 5.0))


# Stages: filters (0: depthwise), kernel, stride, padding, dilation
CHAINS = {
    "inverted-residual": ((3, 24, 31, 17), ((144, 1, 1, 0, 1), (0, 3, 1, 1, 1), (24, 1, 1, 0, 1)), channels_last),
    "in-bands": ((1, 20, 19, 211), ((100, 1, 1, 0, 1), (0, 3, 1, 1, 1), (20, 1, 1, 0, 1)), strided),
    "in-bands-strided": ((2, 3, 45, 150), ((40, 3, 2, 1, 1), (90, 1, 1, 0, 1), (0, 5, 2, 2, 1), (17, 1, 1, 0, 1)), lambda x: x),
    "segments": ((2, 7, 61, 40), ((19, 3, 1, 3, 2), (0, 3, 1, 0, 1), (5, 1, 1, 0, 1)), strided),
    "rows-left-out": ((2, 9, 33, 14), ((0, 3, 1, 1, 1), (6, 1, 3, 0, 1), (0, 1, 2, 0, 1)), channels_last),
    "beyond-the-map": ((2, 5, 9, 9), ((0, 3, 1, 4, 1), (8, 3, 4, 0, 1), (256, 1, 1, 0, 1), (33, 1, 1, 0, 1)), channels_last),
    "one": ((2, 6, 5, 4), ((8, 3, 1, 1, 1),), channels_last),
    "no-chain": ((1, 1100, 4, 5), ((3, 3, 1, 1, 1), (0, 3, 1, 1, 1)), channels_last),
    "empty": ((0, 4, 5, 5), ((8, 1, 1, 0, 1), (0, 3, 1, 1, 1)), channels_last),
}


def _chains():
    for label, ((N, C, *size), stages, layout) in CHAINS.items():
        geometries = []
        for filters, kernel, stride, padding, dilation in stages:
            channels, size = (geometries[-1].filters, geometries[-1].output_size) if geometries else (C, size)
            groups = 1 if filters else channels
            geometries.append(conv_geometry(channels, filters or channels, size, (kernel, kernel), stride, padding, dilation, groups))
        for residual in (False, True):
            def arguments(rng, N=N, geometries=tuple(geometries), layout=layout, residual=residual):
                first, last = geometries[0], geometries[-1]
                x = layout(integers(rng, N, first.channels, *first.input_size, low=-2, high=3))
                weights = [integers(rng, *g.weight_shape, low=-1, high=2) for g in geometries]
                added = layout(integers(rng, N, last.filters, *last.output_size)) if residual else None
                pairs = tuple(LIMITS[i % 4] for i in range(1, len(geometries) + 1))
                return x, weights, [integers(rng, g.filters) for g in geometries], added, geometries, pairs
            yield PrimitiveCase("conv2d_chain", arguments, exact=True, label=f"{label}{'-residual' * residual}")

        def activated(rng, arguments=arguments):
            x, weights, biases, added, geometries, pairs = arguments(rng)
            names = list(ACTIVATIONS)
            mixed = tuple(names[(i + 2) % len(names)] if i % 3 != 1 else pair for i, pair in enumerate(pairs))
            return x / 4, [w / w[0].size ** 0.5 for w in weights], biases, added, geometries, mixed
        yield PrimitiveCase("conv2d_chain", activated, label=f"{label}-activated")


def _linears():
    for M, K, O, limits in ((1, 70, 33, (0.0, None)), (5, 17, 40, (0.0, 6.0)), (37, 64, 64, (None, 3.0)), (0, 3, 4, (0.0, None))):
        def arguments(rng, M=M, K=K, O=O, limits=limits, bias=O != 40):
            return integers(rng, M, K), integers(rng, O, K), integers(rng, O) if bias else None, *limits
        for name in ("linear_fused", "linear_fused_bfloat16"):
            yield PrimitiveCase(name, arguments, exact=True, label=f"{M}-{K}-{O}", large=M * K * O > 100_000)
    for M in (1, 3, 5, 7, 14):                              # many weights, more than one chunk of them, nothing a multiple of anything
        yield PrimitiveCase("linear_fused", exact=True, label=f"{M}-many", large=True, arguments=lambda rng, M=M: (
            integers(rng, M, 8300), integers(rng, 67, 8300), integers(rng, 67), -90.0, 95.0))
    yield PrimitiveCase("linear_fused_bfloat16", lambda rng: (floats(rng, 4, 8300), floats(rng, 67, 8300), floats(rng, 67), None, 20.0),
                        float64=False, label="rounded", large=True)
    yield PrimitiveCase("round_to_bfloat16", _awkward, exact=True)
    yield PrimitiveCase("round_to_bfloat16", lambda rng: (floats(rng, 7, 33),), exact=True, label="normal")


def _awkward(rng):
    """NaN of both kinds, infinities, what rounds up to one, ties, zeros, denormals."""
    bits = [0x7F800001, 0x7FC00000, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x3F808000, 0x3F818000, 0x80000000, 0x00008001,
            0x3F807FFF]
    return np.array(bits, np.uint32).view(np.float32),


def _affines():
    for label, shape, layout in (("map", (2, 35, 5, 6), channels_last), ("gaps", (3, 19, 4, 5), strided), ("rows", (7, 21), lambda x: x),
                                 ("row-major", (2, 16, 3, 5), lambda x: x), ("few", (4, 3, 9, 7), channels_last),
                                 ("empty", (0, 3, 2, 2), lambda x: x), ("one-axis", (2, 33, 9), channels_last)):
        for limits in LIMITS:
            def arguments(rng, shape=shape, layout=layout, limits=limits):
                return layout(floats(rng, *shape)), floats(rng, shape[1]), floats(rng, shape[1]), *limits
            yield PrimitiveCase("channel_affine", arguments, label=f"{label}-{limits[0]}-{limits[1]}")


def _foldings():
    for label, shape in (("convolution", (20, 3, 3, 2)), ("linear", (5, 7))):
        for bias, affine in ((True, True), (False, True), (True, False)):
            def arguments(rng, shape=shape, bias=bias, affine=affine):
                K = shape[0]
                gamma, beta = (floats(rng, K), floats(rng, K)) if affine else (None, None)
                return (floats(rng, *shape), floats(rng, K) if bias else None, gamma, beta, floats(rng, K),
                        rng.uniform(0.1, 2, K).astype(np.float32), 1e-5)
            yield PrimitiveCase("fold_batch_norm", arguments, label=f"{label}-{bias}-{affine}")
            yield PrimitiveCase("batch_norm_scale_shift", lambda rng, arguments=arguments: arguments(rng)[2:],
                                label=f"{label}-{bias}-{affine}")


def _maxima():
    geometries = {**POOL_GEOMETRIES, "dilated": pool_geometry((9, 11), (3, 2), (2, 1), 1, (2, 3)),
                  "empty-window": pool_geometry((2, 4), 2, 1, (1, 0), (3, 1)),
                  "three-by-two": pool_geometry((11, 9), 3, 2, 1), "three": pool_geometry((7, 6), 3, 1, 1)}
    for label, geometry in geometries.items():
        for C, layout in ((6, channels_last), (19, channels_last), (80, channels_last), (21, strided), (3, lambda x: x)):
            def arguments(rng, geometry=geometry, C=C, layout=layout):
                x = layout(integers(rng, 3, C, *geometry.input_size))
                x[0, 0, 0, 0], x[1, -1, -1, -1], x[2, 1] = np.nan, -np.inf, -np.inf
                return x, geometry
            yield PrimitiveCase("max_pool2d_values", arguments, exact=True, label=f"{label}-{C}")


def _activated():
    """Every function through every algorithm that applies it itself, and through others."""
    geometries = {
        "pixels": (3, conv_geometry(19, 37, (5, 7), (1, 1))), "many-pixels": (2, conv_geometry(7, 130, (40, 31), (1, 1))),
        "windows": (2, conv_geometry(5, 33, (9, 8), (3, 2), 2, 1)), "groups": (2, conv_geometry(36, 72, (6, 5), (3, 3), 1, 1, 1, 2)),
        "winograd": (2, conv_geometry(64, 48, (11, 13), (3, 3), 1, 1)), "winograd-few": (1, conv_geometry(128, 144, (7, 7), (3, 3), 1, 1)),
        "depthwise": (2, conv_geometry(37, 37, (9, 7), (3, 3), 1, 1, 1, 37)), "one-map": (2, conv_geometry(1, 6, (12, 11), (5, 5))),
        "few-filters": (2, conv_geometry(6, 16, (10, 10), (5, 5))), "pairs": (2, conv_geometry(8, 8, (7, 6), (3, 3), 1, 1, 1, 4)),
        "bands": (2, conv_geometry(3, 35, (19, 26), (3, 3), 2, 1)), "empty": (0, conv_geometry(3, 4, (5, 5), (3, 3)))}
    for i, (label, (batch, g)) in enumerate(geometries.items()):
        for activation in ACTIVATIONS if label in ("pixels", "depthwise") else (list(ACTIVATIONS)[i % len(ACTIVATIONS)],):
            for layout, residual in ((channels_last, False), (strided, True)):
                def arguments(rng, batch=batch, g=g, activation=activation, layout=layout, residual=residual):
                    x, added = layout(floats(rng, batch, g.channels, *g.input_size)), layout(floats(rng, batch, g.filters, *g.output_size))
                    weight = floats(rng, *g.weight_shape)
                    if batch:
                        x[0, 0, 0, 0] = np.nan if activation == "silu" else 30.0
                    return x, weight, floats(rng, g.filters), added if residual else None, g, activation
                yield PrimitiveCase("conv2d_activated", arguments, label=f"{label}-{activation}{'-residual' * residual}",
                                    tolerance=3e-5 if "winograd" in label else 1e-5, large=is_large(batch, g))
    for M, K, O in ((1, 70, 33), (5, 17, 40), (37, 64, 64), (0, 3, 4), (3, 0, 5), (2, 8300, 67)):
        for activation in ACTIVATIONS if M == 5 else ("gelu", "silu"):
            yield PrimitiveCase("linear_activated", lambda rng, M=M, K=K, O=O, activation=activation: (
                floats(rng, M, K), floats(rng, O, K), floats(rng, O) if activation != "silu" else None, activation),
                label=f"{M}-{K}-{O}-{activation}", large=M * K * O > 100_000)


PRIMITIVE_CASES = [*_convolutions(), *_activated(), *_chains(), *_linears(), *_affines(), *_foldings(), *_maxima()]
