"""Cases of elementwise chains."""

import numpy as np

from numbanet.backends.contract.elementwise_chain import VALUE, Place
from tests.cases.case import PrimitiveCase, channels_last, floats, integers, strided

X, A, B, C, D, E = (Place(i) for i in range(6))
FORMS = {"same": lambda n, c, *rest: (n, c, *rest), "channel": lambda n, c, *rest: (c, *[1] * len(rest)),
         "sample-channel": lambda n, c, *rest: (n, c, *[1] * len(rest)), "sample": lambda n, c, *rest: (n, *[1] * (1 + len(rest))),
         "one": lambda n, c, *rest: (), "pixel": lambda n, c, *rest: (n, 1, *rest), "last": lambda n, c, *rest: rest[-1:] or (c,)}
# Small integers, which float32 computes exactly: every order of operands, numbers, and x again
EXACT = (("multiply", VALUE, A), ("subtract", B, VALUE), ("add", VALUE, 3), ("multiply", X, VALUE), ("maximum", VALUE, C),
         ("minimum", 40.0, VALUE), ("subtract", VALUE, X), ("clamp", VALUE, -30.0, None), ("square", VALUE), ("negative", VALUE),
         ("relu_backward_input", VALUE, X), ("absolute", VALUE), ("subtract", 1.0, VALUE), ("clamp", VALUE, None, 9.0), ("add", D, VALUE),
         ("relu_backward_input", X, VALUE), ("hardtanh_backward_input", VALUE, X, -3.0, 2.0), ("hardtanh_forward", VALUE, -2.0, 3.0),
         ("leaky_relu_backward_input", VALUE, X, 0.5), ("multiply", E, VALUE), ("add", VALUE, VALUE))
# Each function once or twice, of values near 1
UNARY = (("tanh_forward", VALUE), ("exp", VALUE), ("log1p", VALUE), ("sqrt", VALUE), ("rsqrt", VALUE), ("log", VALUE), ("expm1", VALUE),
         ("sigmoid_forward", VALUE), ("reciprocal", VALUE), ("erf", VALUE), ("silu_forward", VALUE), ("gelu_forward", VALUE, "none"),
         ("gelu_forward", VALUE, "tanh"), ("relu_forward", VALUE), ("leaky_relu_forward", VALUE, 0.1), ("elu_forward", VALUE, 1.0, 1.0),
         ("hardsigmoid_forward", VALUE), ("hardswish_forward", VALUE), ("softplus_forward", VALUE, 2.0, 20.0), ("mish_forward", VALUE),
         ("log_sigmoid_forward", VALUE), ("softsign_forward", VALUE), ("divide", 2.0, VALUE), ("divide", VALUE, 3.0), ("divide", VALUE, X))
OF_GRADIENT = [("sigmoid",), ("tanh",), ("silu",), ("gelu", "none"), ("gelu", "tanh"), ("hardsigmoid",), ("hardswish",),
               ("softplus", 2.0, 20.0), ("mish",), ("log_sigmoid",), ("softsign",), ("elu", 1.5, 1.25), ("leaky_relu", 0.25), ("relu",)]
GRADIENTS = tuple([("add", VALUE, 1.0), *[(f"{name}_backward_input", VALUE, (X, A)[i % 2], *more) for i, (name, *more) in
                                         enumerate(OF_GRADIENT)]])
OF_SAVED = tuple([("add", VALUE, 0.5), *[(f"{name}_backward_input", A, VALUE, *more) for name, *more in OF_GRADIENT]])


def _operands(rng, make, shape, forms, layout=channels_last):
    found = []
    for form in forms:
        of = FORMS[form](*shape)
        values = make(rng, *of)
        found.append(layout(values) if len(of) > 2 and form == "same" else values)
    return found


def _maps(label, shape, forms, layout=channels_last, others=channels_last, steps=EXACT, make=integers, **more):
    def arguments(rng):
        x = layout(make(rng, *shape))
        return x, _operands(rng, make, shape, forms, others), steps
    return PrimitiveCase("elementwise_chain", arguments, exact=make is integers, label=label, **more)


def _with_nan(rng):
    x = channels_last(floats(rng, 3, 7, 5, 3))
    x[0, :, 0, 0], x[1, 2], x[2, 3] = np.nan, np.inf, -np.inf
    y = channels_last(floats(rng, 3, 7, 5, 3))
    y[2, :, 1, 1], y[0, 0, 0, 2] = np.nan, -np.inf
    return x, [y], (("add", VALUE, A), ("multiply", VALUE, 0.0), ("relu_backward_input", VALUE, A), ("maximum", X, VALUE))


def _again(rng):
    """A map twice, transposed the second time."""
    x = floats(rng, 5, 5)
    return x, [x.T], (("multiply", VALUE, A), ("silu_backward_input", VALUE, X))


PRIMITIVE_CASES = [
    _maps("forms", (3, 7, 5, 3), ("sample", "channel", "same", "sample-channel", "one")),
    _maps("forms-again", (3, 7, 5, 3), ("pixel", "last", "same", "sample", "channel")),
    _maps("whole-vectors", (2, 16, 4, 4), ("sample", "channel", "same", "sample-channel", "one")),
    _maps("row-major", (3, 7, 5, 3), ("sample", "channel", "same", "sample-channel", "one"), layout=lambda x: x, others=lambda x: x),
    _maps("orders-differ", (3, 6, 5, 3), ("sample", "same", "same", "sample-channel", "pixel"), others=lambda x: x),
    _maps("strided", (2, 5, 4, 3), ("sample", "channel", "same", "sample-channel", "same"), layout=strided, others=strided),
    _maps("rows", (5, 84), ("channel", "sample", "same", "one", "last")),
    _maps("blocks", (3, 200, 9, 7), ("sample", "channel", "same", "sample-channel", "pixel"), large=True),
    _maps("long-rows", (2, 1500, 7, 3), ("sample", "channel", "same", "sample-channel", "pixel"), large=True),
    _maps("one-element", (1, 1, 1, 1), ("sample", "channel", "same", "sample-channel", "one")),
    _maps("no-axis", (), (), steps=(("multiply", VALUE, 3.0), ("add", VALUE, X)), layout=lambda x: np.asarray(x)),
    _maps("empty", (0, 7, 5, 3), ("sample", "channel", "same", "sample-channel", "one")),
    _maps("no-pixels", (2, 3, 0, 4), ("sample", "channel", "same", "sample-channel", "one")),
    _maps("functions", (3, 7, 5, 3), (), steps=UNARY, make=lambda rng, *shape: np.abs(floats(rng, *shape)) + 0.5),
    _maps("gradients", (3, 7, 5, 3), ("same",), steps=GRADIENTS, make=floats),
    _maps("gradients-of-saved", (3, 7, 5, 3), ("same",), steps=OF_SAVED, make=floats),
    PrimitiveCase("elementwise_chain", _with_nan, label="nan"),
    PrimitiveCase("elementwise_chain", _again, label="transposed"),
]
