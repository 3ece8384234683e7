"""How a backend is compared with the reference on the cases of `tests/cases`."""

from __future__ import annotations

import ctypes
import importlib
import pkgutil
import zlib

import numpy as np

import tests.cases
from numbanet.backends import PRIMITIVES, ArraySpec, get_backend

CASES = [case for module in pkgutil.iter_modules(tests.cases.__path__)
         for case in getattr(importlib.import_module(f"tests.cases.{module.name}"), "PRIMITIVE_CASES", ())]


def name_of(case) -> str:
    return f"{case.primitive}-{case.label}" if case.label else case.primitive


def arguments_of(case) -> tuple:
    return case.arguments(np.random.default_rng(zlib.crc32(name_of(case).encode())))


def placed(backend, array: np.ndarray):
    """The same values on the backend, as a view of the same strides."""
    if backend.name in ("reference", "cpu"):
        return array.copy(order="K")
    if not array.size or min(array.strides, default=0) < 0:         # no view of a backend has negative strides
        return backend.from_numpy(array)
    nbytes = sum((n - 1) * s for n, s in zip(array.shape, array.strides)) + array.itemsize
    memory = (ctypes.c_uint8 * nbytes).from_address(array.ctypes.data)
    return backend.carve(backend.from_numpy(np.frombuffer(memory, np.uint8)), 0, array.shape, array.dtype).view(array.shape, array.strides)


def _each(function, argument):
    if isinstance(argument, np.ndarray):
        return function(argument)
    if isinstance(argument, list) and argument and isinstance(argument[0], np.ndarray):
        return [function(x) for x in argument]
    return argument


def outputs(backend, primitive, arguments, like: int | None = None, overwrites: bool = False) -> list[np.ndarray]:
    """Run with outputs that start as NaN; operands that the primitive changes count as outputs.

    like: the position of the operand that the first output lies as, in a copy of its memory, or in that memory itself.
    """
    copy = None if like is None else placed(backend, arguments[like])
    arguments = tuple(_each(lambda x: placed(backend, x), a) for a in arguments)
    spec = primitive.specification(*primitive.bind(arguments, {}))
    if primitive.view or spec is None:
        result = getattr(backend, primitive.name)(*arguments)
        made = [] if spec is None else [result]
    else:
        single = isinstance(spec, ArraySpec)
        made = [None if s is None else _poisoned(backend, s) for s in ((spec,) if single else spec)]
        if like is not None:
            made[0] = arguments[like] if overwrites else copy
        getattr(backend, primitive.name)(*arguments, out=made[0] if single else tuple(made))
    changed = [arguments[primitive.parameter_names.index(name)] for name in primitive.mutates]
    made = [o for o in made if o is not None] + [x for c in changed if c is not None for x in (c if isinstance(c, list) else [c])]
    return [backend.to_numpy(o) for o in made]


def _poisoned(backend, spec):
    array = backend.empty(*spec)
    value = np.nan if array.dtype.kind == "f" else 77 if array.dtype.kind in "iu" else True
    if isinstance(array, np.ndarray):
        array.fill(value)
        return array
    ordered = np.full([spec.shape[a] for a in spec.order or range(len(spec.shape))], value, spec.dtype)
    return backend.from_numpy(ordered.transpose(np.argsort(spec.order)) if spec.order else ordered)


def converted(value):
    """float32 as float64, in arguments of a case."""
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        wide = np.empty_like(value, dtype=np.float64)
        wide[...] = value
        return wide
    if isinstance(value, np.dtype) and value == np.float32:
        return np.dtype(np.float64)
    return [converted(v) for v in value] if isinstance(value, list) else value


def agree(backend: str, case, arguments, tolerance) -> None:
    """Assert that the backend gives what the reference gives."""
    primitive = PRIMITIVES[case.primitive]
    expected = outputs(get_backend("reference"), primitive, arguments)
    received = outputs(get_backend(backend), primitive, arguments)
    assert len(expected) == len(received)
    for e, r in zip(expected, received):
        assert e.shape == r.shape and e.dtype == r.dtype
        if not case.allowed(backend) or e.dtype.kind != "f":
            np.testing.assert_array_equal(r, e)
        else:
            assert (np.isnan(e) == np.isnan(r)).all(), "NaN in other places"
            finite = np.isfinite(e)
            np.testing.assert_array_equal(r[~finite], e[~finite])
            scale = np.abs(e[finite]).max(initial=0) or 1.0
            assert np.abs(r[finite].astype(np.float64) - e[finite]).max(initial=0) <= tolerance * scale


def overwritable(case, arguments) -> list[int]:
    """The positions of the operands of a case that lie as the first output does, and whose memory that may take."""
    primitive = PRIMITIVES[case.primitive]
    spec = primitive.specification(*primitive.bind(arguments, {}))
    if not primitive.may_overwrite or spec is None:
        return []
    first = spec if isinstance(spec, ArraySpec) else spec[0]
    return [i for i, (name, x) in enumerate(zip(primitive.parameter_names, arguments))
            if name in primitive.may_overwrite and isinstance(x, np.ndarray) and (x.shape, x.dtype) == (first.shape, first.dtype)]


def overwriting(cases) -> list:
    """The cases of kernels whose result may lie in an operand, but for those that go element by element, which read and write in one
    statement: here, sums or windows come first."""
    return [c for c in cases if c.primitive.startswith(("batch_norm", "conv2d")) and overwritable(c, arguments_of(c))]


def agree_overwriting(backend: str, case, arguments) -> None:
    """Assert that results are the same to the last bit where the first lies in an operand's memory."""
    primitive = PRIMITIVES[case.primitive]
    for i in overwritable(case, arguments):
        expected, received = (outputs(get_backend(backend), primitive, arguments, i, overwrites) for overwrites in (False, True))
        for e, r in zip(expected, received, strict=True):
            np.testing.assert_array_equal(r, e)
