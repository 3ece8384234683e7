"""Cases of pooling."""

import numpy as np

import numbanet.ops.pooling as pooling
from numbanet.geometry import pool_geometry
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, integers, strided


def _distinct(rng, *shape):
    """No two elements closer than 0.1, so that a maximum stays the maximum under small steps."""
    return rng.permutation(np.prod(shape)).reshape(shape) * 0.1


def _case(function, label, operation, shape, *arguments, inputs=floats, **options):
    def run(*tensors):
        import torch
        return getattr(torch.nn.functional, function)(*tensors, *arguments, **options)

    return OperationCase(f"{function}-{label}", (operation,),
                         lambda x: getattr(pooling, function)(x, *arguments, **options),
                         lambda rng: (inputs(rng, *shape).astype(float),), run)


def _maximum(function, label, shape, *arguments, **options):
    operation = pooling.AdaptiveMaxPool2d if "adaptive" in function else pooling.MaxPool2d
    return _case(function, label, operation, shape, *arguments, inputs=_distinct, **options)


def _average(function, label, shape, *arguments, **options):
    operation = pooling.AdaptiveAvgPool2d if "adaptive" in function else pooling.AvgPool2d
    return _case(function, label, operation, shape, *arguments, **options)


OPERATION_CASES = [
    _maximum("max_pool2d", "plain", (2, 3, 6, 5), 2),
    _maximum("max_pool2d", "overlapping", (1, 2, 7, 6), 3, 2, 1),
    _maximum("max_pool2d", "dilated-ceil", (2, 2, 8, 7), (3, 2), (2, 1), 1, (2, 3), ceil_mode=True),
    _maximum("max_pool2d", "unbatched", (3, 5, 4), 2, 1),
    _maximum("max_pool1d", "padded", (2, 3, 9), 3, 2, 1),
    _maximum("max_pool3d", "plain", (1, 2, 5, 4, 4), (3, 2, 2), (2, 2, 1), (1, 1, 0)),
    _maximum("adaptive_max_pool2d", "uneven", (2, 3, 7, 5), (3, 4)),
    _maximum("adaptive_max_pool1d", "uneven", (1, 2, 7), 3),
    _maximum("adaptive_max_pool3d", "uneven", (1, 2, 5, 3, 4), (2, 2, 3)),
    _average("avg_pool2d", "plain", (2, 3, 6, 5), 2),
    _average("avg_pool2d", "padded-ceil", (1, 2, 7, 6), 3, 2, 1, True),
    _average("avg_pool2d", "without-padding", (2, 2, 6, 6), (3, 2), (2, 3), 1, True, False),
    _average("avg_pool2d", "divisor", (1, 2, 5, 5), 3, 1, 1, divisor_override=5),
    _average("avg_pool1d", "padded", (2, 3, 9), 4, 3, 2),
    _average("avg_pool3d", "padded", (1, 2, 5, 4, 5), 3, 2, 1, count_include_pad=False),
    _average("avg_pool3d", "divisor", (1, 1, 4, 4, 4), 2, divisor_override=3),
    _average("adaptive_avg_pool2d", "uneven", (2, 3, 7, 5), (3, 4)),
    _average("adaptive_avg_pool2d", "global", (2, 5, 4, 3), 1),
    _average("adaptive_avg_pool2d", "one-axis", (2, 5, 4, 3), (None, 2)),
    _average("adaptive_avg_pool1d", "uneven", (2, 3, 7), 3),
    _average("adaptive_avg_pool3d", "uneven", (1, 2, 5, 3, 4), (2, 2, 3)),
]

GEOMETRIES = {
    "2x2": pool_geometry((6, 8), 2),
    "2x2-odd": pool_geometry((7, 5), 2),
    "3x3-overlapping": pool_geometry((9, 8), 3, 2, 1),
    "asymmetric": pool_geometry((7, 6), (3, 4), (1, 3), ((0, 1), (2, 1))),
    "ceil": pool_geometry((8, 5), (3, 2), (3, 2), ceil_mode=True),
    "gaps": pool_geometry((9, 9), 2, 3),
}
DILATED = pool_geometry((9, 11), (3, 2), (2, 1), 1, (2, 3))
EMPTY_WINDOW = pool_geometry((2, 4), 2, 1, (1, 0), (3, 1))          # rows -1 and 2 of a map of two rows


def _max_cases():
    for label, geometry in {**GEOMETRIES, "dilated": DILATED, "empty-window": EMPTY_WINDOW}.items():
        for C, layout in ((6, channels_last), (19, channels_last), (5, strided), (3, lambda x: x)):
            def forward(rng, geometry=geometry, C=C, layout=layout):
                return layout(integers(rng, 3, C, *geometry.input_size)), geometry

            def backward(rng, geometry=geometry, C=C, layout=layout):
                shape = (3, C, *geometry.output_size)
                argmax = rng.integers(0, geometry.input_size[0] * geometry.input_size[1], shape).astype(np.int32)
                return layout(integers(rng, *shape)), layout(_inside(argmax, geometry)), geometry
            yield PrimitiveCase("max_pool2d_forward", forward, exact=True, label=f"{label}-{C}")
            yield PrimitiveCase("max_pool2d_backward_input", backward, exact=True, label=f"{label}-{C}")


def _inside(argmax, geometry):
    """Positions drawn at random, moved into the windows that they stand for."""
    from numbanet.backends.reference.pooling import windows
    for oh, ow, rows, columns in windows(geometry):
        choices = np.array([h * geometry.input_size[1] + w for h in rows for w in columns] or [-1], np.int32)
        argmax[:, :, oh, ow] = choices[argmax[:, :, oh, ow] % len(choices)]
    return argmax


def _average_cases():
    for label, geometry in GEOMETRIES.items():
        for C, layout, include, divisor in ((6, channels_last, True, None), (19, strided, False, None),
                                            (3, channels_last, False, 7)):
            def forward(rng, g=geometry, C=C, layout=layout, options=(include, divisor)):
                return layout(integers(rng, 2, C, *g.input_size)), g, *options

            def backward(rng, g=geometry, C=C, layout=layout, options=(include, divisor)):
                return layout(floats(rng, 2, C, *g.output_size)), g, *options
            yield PrimitiveCase("avg_pool2d_forward", forward, exact=True, label=f"{label}-{C}")
            yield PrimitiveCase("avg_pool2d_backward_input", backward, label=f"{label}-{C}")


def _adaptive_cases():
    for C, input_size, output_size, layout in ((6, (7, 5), (3, 4), channels_last), (19, (7, 9), (1, 1), channels_last),
                                               (5, (3, 2), (5, 7), strided), (3, (4, 6), (2, 3), lambda x: x)):
        label = f"{C}-{output_size[0]}x{output_size[1]}"

        def forward(rng, C=C, input_size=input_size, output_size=output_size, layout=layout):
            return layout(integers(rng, 2, C, *input_size)), output_size

        def backward(rng, C=C, input_size=input_size, output_size=output_size, layout=layout):
            return layout(floats(rng, 2, C, *output_size)), input_size

        def backward_max(rng, C=C, input_size=input_size, output_size=output_size, layout=layout):
            x = floats(rng, 2, C, *input_size)
            from numbanet.backends import get_backend
            _, argmax = get_backend("reference").adaptive_max_pool2d_forward(x, output_size)
            return layout(integers(rng, 2, C, *output_size)), argmax, input_size
        yield PrimitiveCase("adaptive_avg_pool2d_forward", forward, label=label)
        yield PrimitiveCase("adaptive_avg_pool2d_backward_input", backward, label=label)
        yield PrimitiveCase("adaptive_max_pool2d_forward", forward, exact=True, label=label)
        yield PrimitiveCase("adaptive_max_pool2d_backward_input", backward_max, exact=True, label=label)


PRIMITIVE_CASES = [*_max_cases(), *_average_cases(), *_adaptive_cases()]
