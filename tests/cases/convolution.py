"""Cases of convolution."""

import numbanet.ops.convolution as convolution
from numbanet.geometry import conv_geometry
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, integers


def _torch_conv(**options):
    def run(*tensors):
        import torch
        return torch.nn.functional.conv2d(*tensors, **options)
    return run


def _conv(name, options, x, weight, bias=True):
    return OperationCase(
        f"conv2d-{name}", (convolution.Conv2d,), lambda *t: convolution.conv2d(*t, **options),
        lambda rng: tuple(floats(rng, *s, dtype=float) for s in ((x, weight, weight[:1]) if bias else (x, weight))),
        _torch_conv(**options))


OPERATION_CASES = [
    _conv("plain", {}, (2, 3, 6, 5), (4, 3, 3, 2)),
    _conv("strided-padded", {"stride": (2, 1), "padding": (1, 2)}, (2, 3, 7, 5), (2, 3, 3, 3)),
    _conv("dilated-grouped-no-bias", {"dilation": (1, 2), "groups": 2, "padding": 1}, (1, 4, 5, 7), (6, 2, 2, 3), bias=False),
    _conv("depthwise-same", {"groups": 3, "padding": "same"}, (1, 3, 5, 5), (3, 1, 4, 3)),
]


def _forward(label, batch, geometry, layout=lambda x: x):
    def arguments(rng):
        return (layout(integers(rng, batch, geometry.channels, *geometry.input_size)), integers(rng, *geometry.weight_shape),
                integers(rng, geometry.filters), geometry)
    return PrimitiveCase("conv2d_forward", arguments, exact=True, label=label)


PRIMITIVE_CASES = [
    _forward("odd", 3, conv_geometry(5, 7, (9, 8), (3, 2), padding=1), channels_last),
]
