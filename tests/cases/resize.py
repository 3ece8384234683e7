"""Cases of resizing."""

from numbanet.ops.resize import ResizeBilinear2d, ResizeNearest2d, interpolate
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, integers, strided


def _case(label, shape, **options):
    def run(x):
        import torch
        return torch.nn.functional.interpolate(x, **options)
    operation = ResizeNearest2d if options.get("mode", "nearest") == "nearest" else ResizeBilinear2d
    return OperationCase(f"interpolate-{label}", (operation,), lambda x: interpolate(x, **options),
                         lambda rng: (floats(rng, *shape, dtype=float),), run)


OPERATION_CASES = [
    _case("nearest-double", (2, 3, 3, 4), scale_factor=2),
    _case("nearest-odd", (1, 2, 5, 4), size=(7, 3)),
    _case("nearest-factor", (1, 2, 5, 7), scale_factor=(1.7, 0.6)),
    _case("nearest-signal", (2, 3, 5), size=8),
    _case("bilinear-double", (2, 2, 3, 4), scale_factor=2, mode="bilinear"),
    _case("bilinear-smaller", (1, 3, 7, 6), size=(3, 5), mode="bilinear"),
    _case("bilinear-corners", (1, 2, 4, 3), size=(7, 1), mode="bilinear", align_corners=True),
    _case("bilinear-factor", (1, 2, 5, 7), scale_factor=(1.7, 0.6), mode="bilinear"),
    _case("bilinear-recomputed", (1, 2, 5, 7), scale_factor=1.7, mode="bilinear", recompute_scale_factor=True),
    _case("bilinear-same", (1, 2, 3, 4), size=(3, 4), mode="bilinear"),
    _case("linear", (2, 3, 5), size=9, mode="linear", align_corners=True),
]


def _primitives():
    for C, sizes, scales, layout in ((6, ((5, 7), (10, 14)), (2.0, 2.0), channels_last),
                                     (19, ((5, 7), (8, 3)), (None, None), strided),
                                     (1, ((4, 9), (6, 20)), (1.6, 2.3), lambda x: x)):
        def forward(rng, C=C, sizes=sizes, scales=scales, layout=layout):
            return layout(integers(rng, 2, C, *sizes[0])), sizes[1], scales

        def backward(rng, C=C, sizes=sizes, scales=scales, layout=layout):
            return layout(integers(rng, 2, C, *sizes[1])), sizes[0], scales
        yield PrimitiveCase("resize2d_nearest_forward", forward, exact=True, label=str(C))
        yield PrimitiveCase("resize2d_nearest_backward_input", backward, exact=True, label=str(C))
        for corners in (False, True):
            label = f"{C}-corners" if corners else str(C)
            yield PrimitiveCase("resize2d_bilinear_forward", label=label, tolerance=2e-5,
                                arguments=lambda rng, f=forward, corners=corners: (*f(rng), corners))
            yield PrimitiveCase("resize2d_bilinear_backward_input", label=label, tolerance=2e-5,
                                arguments=lambda rng, f=backward, corners=corners: (*f(rng), corners))


PRIMITIVE_CASES = list(_primitives())
