"""Cases of convolutions that normalise what they read. Numbers are small multiples of 1/2, so results are exact."""

import numpy as np

from tests.cases.case import PrimitiveCase, channels_last, floats, integers, strided
from tests.cases.convolution import GEOMETRIES, is_large
from tests.cases.fused import LIMITS

# of z; zeros beyond the edges lie outside of the last ones
BEFORE = ((0.0, None), (None, None), (-1.0, 3.0), (1.0, 6.0))


def _terms(rng, channels, i):
    """center, scale, shift, lowest, highest."""
    scale, center = rng.choice(np.array([-1, 0.5, 1, 2], np.float32), channels), integers(rng, channels) if i % 3 else None
    return center, scale, integers(rng, channels) if i % 4 != 2 else None, *BEFORE[i % 4]


def _convolutions():
    with_gaps = {f"{name}-with-gaps": GEOMETRIES[name] for name in ("few", "strip-and-lanes", "pointwise", "depthwise", "grouped")}
    for i, (label, (batch, g)) in enumerate((GEOMETRIES | with_gaps).items()):
        layout = strided if label.endswith("gaps") else channels_last
        for residual, limits in ((False, (None, None)), (True, LIMITS[i % 4])):
            def arguments(rng, batch=batch, g=g, residual=residual, limits=limits, layout=layout, i=i):
                added = layout(integers(rng, batch, g.filters, *g.output_size)) if residual else None
                x, weight = layout(integers(rng, batch, g.channels, *g.input_size)), integers(rng, *g.weight_shape, low=-2, high=3)
                return x, weight, integers(rng, g.filters) if residual else None, added, g, *limits, *_terms(rng, g.channels, i)
            name = f"{label}-{'residual-' * residual}{limits[0]}-{limits[1]}"
            yield PrimitiveCase("conv2d_preactivated", arguments, exact=True, label=name, large=is_large(batch, g))
            yield PrimitiveCase("conv2d_preactivated_with_statistics", arguments, label=name, large=is_large(batch, g))

        def of_weight(rng, batch=batch, g=g, layout=layout, i=i):
            grad_y = layout(integers(rng, batch, g.filters, *g.output_size, low=-2, high=3))
            return grad_y, layout(integers(rng, batch, g.channels, *g.input_size)), g, *_terms(rng, g.channels, i)
        yield PrimitiveCase("conv2d_preactivated_backward_weight", of_weight, exact=True, label=label, large=is_large(batch, g))


def _batch_norms():
    for shape, layout in (((2, 35, 5, 6), channels_last), ((3, 19, 4, 5), strided), ((70, 21), lambda x: x), ((0, 3, 2, 2), channels_last)):
        yield PrimitiveCase("batch_norm_statistics", lambda rng, shape=shape, layout=layout: (layout(floats(rng, *shape) * 3 + 10),),
                            label="x".join(map(str, shape)))
    for affine in (False, True):
        yield PrimitiveCase("batch_norm_scale", lambda rng, affine=affine: (floats(rng, 37) if affine else None,
                                                                            np.abs(floats(rng, 37)), 1e-3), label=f"affine-{affine}")


PRIMITIVE_CASES = [*_convolutions(), *_batch_norms()]
