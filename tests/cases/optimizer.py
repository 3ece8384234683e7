"""Cases of optimiser updates."""

import numpy as np

from tests.cases.case import PrimitiveCase, floats, strided


def _arrays(rng, shapes, layout):
    """One array for each of the parameters' shapes."""
    return [layout(_array(rng, shape)) for shape in shapes]


def _buffers(rng, shapes, layout, *present):
    """Second moments are positive; absent buffers are an empty list."""
    return [[layout(np.asarray(np.abs(_array(rng, shape)) + np.float32(0.5))) for shape in shapes] if p else [] for p in present]


def _array(rng, shape):
    return np.asarray(floats(rng, *shape))


def _sgd(label, shapes, momentum=0.9, dampening=0.0, weight_decay=0.01, nesterov=False, scale=1.0, layout=lambda x: x):
    return PrimitiveCase("sgd_update", lambda r: (
        _arrays(r, shapes, layout), _arrays(r, shapes, layout), *_buffers(r, shapes, layout, momentum != 0), 0.1, momentum,
        dampening, weight_decay, nesterov, scale), label=label, tolerance=1e-6)


def _rmsprop(label, shapes, centered=False, momentum=0.0, scale=1.0, layout=lambda x: x):
    def arguments(rng):
        p, g = _arrays(rng, shapes, layout), _arrays(rng, shapes, layout)
        v, a, m = _buffers(rng, shapes, layout, True, centered, momentum != 0)
        if centered:
            for average in a:
                average *= np.float32(0.1)          # a squared average stays below the average of squares
        return p, g, v, a, m, 0.1, 0.9, 1e-8, 0.01, momentum, scale
    return PrimitiveCase("rmsprop_update", arguments, label=label, tolerance=2e-6)


def _adam(label, shapes, amsgrad=False, decoupled=False, scale=1.0, layout=lambda x: x):
    return PrimitiveCase("adam_update", lambda r: (
        _arrays(r, shapes, layout), _arrays(r, shapes, layout), *_buffers(r, shapes, layout, True, True, amsgrad), 0.1, 0.9,
        0.999, 1e-8, 0.01, decoupled, 3, scale), label=label, tolerance=2e-6)


PRIMITIVE_CASES = [
    _sgd("plain", [(7, 5)], momentum=0.0),
    _sgd("momentum", [(70001,)]),
    _sgd("nesterov-maximize-several", [(7, 5), (3,), (0,), (70001,), ()], nesterov=True, scale=-1.0),
    _sgd("dampening-strided", [(7, 3, 5)], dampening=0.3, layout=strided),
    _sgd("transposed", [(7, 5)], layout=np.asfortranarray),
    _sgd("empty", [(0,)]),
    _sgd("none", []),
    _rmsprop("plain", [(70001,)]),
    _rmsprop("centered-momentum", [(7, 5)], True, 0.9),
    _rmsprop("maximize-strided", [(7, 5)], scale=-1.0, layout=strided),
    _adam("plain", [(70001,)]),
    _adam("amsgrad-several", [(7, 5), (2, 3, 4)], amsgrad=True),
    _adam("decoupled-transposed", [(7, 5)], decoupled=True, layout=np.asfortranarray),
    _adam("decoupled-amsgrad-maximize", [(40000,)], True, True, -1.0),
    _adam("scalar", [()]),
]
