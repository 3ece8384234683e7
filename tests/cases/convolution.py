"""Cases of convolution."""

import numbanet.ops.convolution as convolution
from numbanet.geometry import conv_geometry
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, integers, strided


def _case(function, operation, name, options, x, weight, bias=0):
    """`bias`: how many; 0 is none."""
    def torch_twin(*tensors):
        import torch
        return getattr(torch.nn.functional, function.__name__)(*tensors, **options)
    shapes = (x, weight, (bias,)) if bias else (x, weight)
    return OperationCase(f"{function.__name__}-{name}", (operation,), lambda *t: function(*t, **options),
                         lambda rng: tuple(floats(rng, *s, dtype=float) for s in shapes), torch_twin)


def _conv2d(name, options, x, weight, bias=0):
    return _case(convolution.conv2d, convolution.Conv2d, name, options, x, weight, bias)


def _joined(name, operation, call, *layers):
    """A convolution and what runs with it, beside PyTorch's separate layers."""
    def torch_twin(x, weight, bias):
        import torch
        y = torch.nn.functional.conv2d(x, weight, bias, padding=1)
        for layer in layers:
            y = getattr(torch.nn.functional, layer[0])(y, *layer[1:])
        return y
    shapes = (2, 3, 6, 5), (4, 3, 3, 2), (4,)
    return OperationCase(name, (operation,), call, lambda rng: tuple(floats(rng, *s, dtype=float) for s in shapes), torch_twin)


def _conv1d(name, options, x, weight, bias=0):
    return _case(convolution.conv1d, convolution.Conv2d, name, options, x, weight, bias)


def _conv3d(name, options, x, weight, bias=0):
    return _case(convolution.conv3d, convolution.Conv2d, name, options, x, weight, bias)


def _transposed(name, options, x, weight, bias=0):
    return _case(convolution.conv_transpose2d, convolution.ConvTranspose2d, name, options, x, weight, bias)


OPERATION_CASES = [
    _conv2d("plain", {}, (2, 3, 6, 5), (4, 3, 3, 2), 4),
    _conv2d("strided-padded", {"stride": (2, 1), "padding": (1, 2)}, (2, 3, 7, 5), (2, 3, 3, 3), 2),
    _conv2d("dilated-grouped", {"dilation": (1, 2), "groups": 2, "padding": 1}, (1, 4, 5, 7), (6, 2, 2, 3)),
    _conv2d("depthwise-same", {"groups": 3, "padding": "same"}, (1, 3, 5, 5), (3, 1, 4, 3)),
    _joined("conv2d_relu", convolution.Conv2dReLU, lambda *t: convolution.conv2d_relu(*t, padding=1), ("relu",)),
    _joined("conv2d_relu_max_pool2d", convolution.Conv2dReLUMaxPool2d,
            lambda *t: convolution.conv2d_relu_max_pool2d((3, 2, 1, 1, False), *t, padding=1), ("relu",), ("max_pool2d", 3, 2, 1)),
    _conv2d("no-batch", {"padding": "valid"}, (3, 5, 4), (2, 3, 2, 2), 2),
    _conv1d("strided", {"stride": 2, "padding": 1, "dilation": 2}, (2, 3, 9), (4, 3, 3), 4),
    _conv1d("grouped-same", {"padding": "same", "groups": 2}, (2, 4, 6), (2, 2, 4)),
    _conv3d("strided", {"stride": (2, 1, 2), "padding": (1, 0, 2), "dilation": (1, 2, 1)}, (2, 2, 5, 5, 4),
            (3, 2, 3, 2, 2), 3),
    _conv3d("grouped-same", {"padding": "same", "groups": 2}, (1, 4, 3, 3, 2), (2, 2, 2, 3, 2)),
    _transposed("plain", {}, (2, 3, 4, 3), (3, 2, 3, 2), 2),
    _transposed("strided", {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)}, (2, 4, 3, 3), (4, 3, 3, 2),
                3),
    _transposed("dilated-grouped", {"dilation": (2, 1), "groups": 2, "padding": 1}, (1, 4, 4, 4), (4, 3, 3, 3)),
    _transposed("padded-by-a-stride", {"dilation": 3, "output_padding": 1, "padding": 2}, (1, 2, 4, 4), (2, 2, 3, 3)),
    _case(convolution.conv_transpose1d, convolution.ConvTranspose2d, "strided",
          {"stride": 3, "padding": 1, "output_padding": 1, "groups": 2}, (2, 4, 4), (4, 1, 3), 2),
]

# One geometry for each path and edge of the CPU kernels; channels and filters straddle the vector width, and strips of
# two vectors.
GEOMETRIES = {
    "few": (3, conv_geometry(5, 7, (9, 8), (3, 2), padding=1)),
    "lenet-1": (2, conv_geometry(1, 6, (14, 13), (5, 5))),
    "lenet-1-wide": (3, conv_geometry(1, 6, (7, 40), (3, 5), padding=((1, 0), (0, 1)))),
    "narrow-tall": (1, conv_geometry(2, 5, (29, 40), (3, 7), padding=1)),
    "narrow": (3, conv_geometry(3, 10, (9, 40), (3, 4), (2, 1), ((1, 2), (2, 1)), (2, 1))),
    "lenet-2": (2, conv_geometry(6, 16, (11, 14), (5, 5))),
    "windows": (17, conv_geometry(5, 11, (4, 20), (3, 5))),             # odd channels, filters and ends of rows
    "windows-of-eight": (2, conv_geometry(5, 7, (5, 15), (2, 3))),
    "one-strip": (2, conv_geometry(18, 32, (7, 6), (3, 3), padding=1)),
    "strip-and-lanes": (2, conv_geometry(40, 50, (7, 9), (3, 3), (1, 2), ((0, 2), (3, 1)))),
    "three-vectors": (1, conv_geometry(17, 48, (6, 6), (2, 3), dilation=(2, 1), padding=(1, 0))),
    "deep": (1, conv_geometry(130, 33, (5, 5), (3, 3), padding=1)),
    "channels-in-chunks": (1, conv_geometry(700, 35, (4, 3), (3, 3), padding=1)),     # whose windows no second-level cache holds
    "strided": (2, conv_geometry(20, 24, (11, 9), (3, 3), 2, 1)),
    "stride-beyond-kernel": (2, conv_geometry(17, 20, (11, 10), (2, 1), (3, 2))),
    "dilated": (2, conv_geometry(19, 16, (11, 9), (3, 3), 1, 2, (2, 3))),
    "padded-beyond-kernel": (2, conv_geometry(20, 8, (3, 4), (2, 2), 1, 5)),
    "pointwise": (2, conv_geometry(33, 65, (5, 7), (1, 1))),
    "pointwise-few-pixels": (3, conv_geometry(130, 129, (5, 7), (1, 1))),
    "pointwise-strided-padded": (2, conv_geometry(17, 20, (5, 7), (1, 1), 2, 1)),
    "whole": (5, conv_geometry(3, 21, (5, 4), (5, 4))),
    "whole-and-stride": (2, conv_geometry(40, 18, (3, 4), (3, 4), 2)),
    "whole-pixel": (3, conv_geometry(33, 7, (1, 1), (1, 1))),
    "first-layer": (1, conv_geometry(3, 20, (23, 21), (7, 7), 2, 3)),
    "bands": (3, conv_geometry(3, 35, (41, 50), (11, 11), 4, 2)),                   # few channels: ends of rows of every length
    "bands-of-one": (2, conv_geometry(1, 33, (9, 26), (3, 3), padding=1)),
    "bands-of-two": (1, conv_geometry(2, 21, (3, 5), (2, 2), 1, 5)),
    "bands-of-four": (2, conv_geometry(4, 50, (7, 19), (2, 3), (1, 3), ((0, 2), (3, 1)))),
    "bands-and-stride-beyond-kernel": (2, conv_geometry(3, 17, (13, 40), (1, 2), (2, 3))),
    "bands-beyond-map": (1, conv_geometry(3, 64, (2, 3), (5, 4), (3, 1), ((6, 7), (11, 9)))),
    "bands-of-no-images": (0, conv_geometry(3, 32, (9, 12), (3, 3), padding=1)),
    "large-kernel": (1, conv_geometry(2, 9, (25, 24), (11, 11), 4, 2)),
    "grouped": (2, conv_geometry(24, 36, (7, 6), (3, 3), (1, 2), 1, groups=2)),
    "many-groups": (2, conv_geometry(24, 48, (5, 6), (3, 3), padding=1, groups=12)),
    "groups-of-two": (2, conv_geometry(22, 22, (5, 6), (3, 3), padding=1, groups=11)),
    "groups-of-four": (2, conv_geometry(24, 24, (7, 8), (3, 2), 2, 1, groups=6)),
    "groups-of-eight": (2, conv_geometry(40, 40, (7, 8), (3, 3), (2, 1), (2, 1), (2, 3), groups=5)),
    "wide-groups": (2, conv_geometry(36, 36, (5, 6), (3, 3), padding=1, groups=2)),
    "depthwise": (2, conv_geometry(35, 35, (9, 13), (3, 3), padding=1, groups=35)),
    "depthwise-dilated": (1, conv_geometry(17, 17, (9, 13), (5, 3), 1, (2, 4), (2, 3), groups=17)),
    "depthwise-strided": (2, conv_geometry(35, 35, (9, 13), (5, 3), (2, 3), 2, groups=35)),
    "depthwise-two-vectors-strided": (2, conv_geometry(48, 48, (15, 9), (3, 3), 2, 1, groups=48)),
    "depthwise-wide": (1, conv_geometry(130, 130, (8, 7), (3, 3), padding=1, groups=130)),
    "depthwise-5": (1, conv_geometry(66, 66, (13, 11), (5, 5), padding=2, groups=66)),
    "depthwise-5-strided": (1, conv_geometry(50, 50, (15, 14), (5, 5), 2, 2, groups=50)),
    "depthwise-larger-than-map": (2, conv_geometry(34, 34, (4, 3), (5, 5), padding=2, groups=34)),
    "depthwise-beyond-map": (2, conv_geometry(18, 18, (3, 4), (2, 2), 1, 5, groups=18)),
    "depthwise-multiplier": (2, conv_geometry(5, 15, (6, 5), (3, 3), padding=1, groups=5)),
    "one-pixel": (5, conv_geometry(20, 40, (1, 1), (1, 1))),
    "one-row": (1, conv_geometry(4, 6, (3, 9), (3, 3))),
    "no-images": (0, conv_geometry(4, 8, (5, 5), (3, 3))),
}


def is_large(batch, g) -> bool:
    """Whether it takes a simulated GPU more than a tenth of a second a pass."""
    return g.multiply_adds(batch) > 100_000


def _primitive_cases(label, batch, g, layout):
    """Small integers, so that float32 sums are exact in whichever order: every pass must agree bit for bit."""
    def x(rng):
        return layout(integers(rng, batch, g.channels, *g.input_size))

    def grad_y(rng):
        return layout(integers(rng, batch, g.filters, *g.output_size))

    def weight(rng):
        return integers(rng, *g.weight_shape)

    def case(primitive, arguments, suffix=""):
        return PrimitiveCase(primitive, arguments, exact=True, label=label + suffix, large=is_large(batch, g))

    return [
        case("conv2d_forward", lambda rng: (x(rng), weight(rng), integers(rng, g.filters), g)),
        case("conv2d_forward", lambda rng: (x(rng), weight(rng), None, g), "-no-bias"),
        case("conv2d_backward_input", lambda rng: (grad_y(rng), weight(rng), g)),
        case("conv2d_backward_weight", lambda rng: (grad_y(rng), x(rng), g)),
        case("conv2d_backward_bias", lambda rng: (grad_y(rng),)),
    ]


PRIMITIVE_CASES = [
    *(case for label, (batch, g) in GEOMETRIES.items() for case in _primitive_cases(label, batch, g, channels_last)),
    *(case for label in ("few", "strip-and-lanes", "grouped", "depthwise-strided", "bands")
      for case in _primitive_cases(label + "-row-major", *GEOMETRIES[label], lambda x: x)),
    *(case for label in ("few", "depthwise", "strided", "bands-of-one", "bands-of-four")
      for case in _primitive_cases(label + "-with-gaps", *GEOMETRIES[label], strided)),
]
