"""Every primitive of a forward pass through ONNX, on every case of `tests/cases`: onnxruntime against the reference backend."""

from __future__ import annotations

import importlib
import pkgutil
import zlib
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import tests.cases  # noqa: E402
from numbanet._tensor import Tensor  # noqa: E402
from numbanet.backends import PRIMITIVES, get_backend  # noqa: E402
from numbanet.onnx.export import load_translations  # noqa: E402
from numbanet.onnx.export.registry import TRANSLATIONS  # noqa: E402
from numbanet.onnx.exporter import save  # noqa: E402
from tests.onnx.exporting import assert_close, run  # noqa: E402

load_translations()
ALL = [case for module in pkgutil.iter_modules(tests.cases.__path__)
       for case in getattr(importlib.import_module(f"tests.cases.{module.name}"), "PRIMITIVE_CASES", ())
       if case.primitive in TRANSLATIONS]
PER_PRIMITIVE = 3       # by default; the rest with -m full

# The first outputs alone have a place in ONNX: statistics, positions in windows of unequal size, and summed weights have none.
OUTPUTS = {"group_norm_forward": 1, "layer_norm_forward": 1, "softmax_cross_entropy_forward": 2, "nll_loss_forward": 1,
           "adaptive_max_pool2d_forward": 1}

# Where onnxruntime itself answers otherwise, or ONNX has no word for it.
DIFFERENT = {
    "argmax": "onnxruntime: a NaN is not the largest",
    "argmin": "onnxruntime: a NaN is not the smallest",
    "max_pool2d_forward-empty-window": "onnxruntime: a window of padding alone gives the lowest float, not -inf",
    "max_reduce-special": "onnxruntime: a NaN is not the largest",
    "max_with_index": "onnxruntime: a NaN is not the largest",
    "mean-empty": "onnxruntime: the mean of nothing is 0",
    "min_reduce-special": "onnxruntime: a NaN is not the smallest",
    "min_with_index": "onnxruntime: a NaN is not the smallest",
    "softmax_cross_entropy_forward-empty": "onnxruntime: refuses no labels",
    "softmax_cross_entropy_forward-maps": "label smoothing has no translation",
    "softmax_cross_entropy_forward-wide": "label smoothing has no translation",
    "sum-accuracy": "onnxruntime: sums in sequence",
}


def _name(case):
    return f"{case.primitive}-{case.label}" if case.label else case.primitive


def _arrays(arguments):
    return [x for a in arguments for x in (a if isinstance(a, list) else [a]) if isinstance(x, np.ndarray)]


def _call(backend, primitive, arguments, arrays):
    given = iter(arrays)
    arguments = [[next(given) for _ in a] if isinstance(a, list) and a and isinstance(a[0], np.ndarray)
                 else next(given) if isinstance(a, np.ndarray) else a for a in arguments]
    result = getattr(backend, primitive.name)(*arguments)
    if primitive.mutates:
        result = arguments[primitive.parameter_names.index(primitive.mutates[0])]
    return result if isinstance(result, tuple) else (result,)


def _cases():
    seen = Counter()
    for case in ALL:
        seen[case.primitive] += 1
        marks = [pytest.mark.full] if seen[case.primitive] > PER_PRIMITIVE else []
        yield pytest.param(case, id=_name(case), marks=marks)


def test_every_translation_has_a_case():
    of_modules = {"prelu_forward", "var"}       # in test_export.py
    assert set(TRANSLATIONS) - of_modules == {case.primitive for case in ALL}


@pytest.mark.parametrize("case", list(_cases()))
def test_onnxruntime_agrees_with_reference(case, tmp_path):
    if reason := next((text for name, text in DIFFERENT.items() if _name(case).startswith(name)), None):
        pytest.skip(reason)
    primitive, backend = PRIMITIVES[case.primitive], get_backend("reference")
    arguments = primitive.bind(case.arguments(np.random.default_rng(zlib.crc32(_name(case).encode()))), {})
    arrays = _arrays(arguments)
    expected = _call(backend, primitive, arguments, [a.copy(order="K") for a in arrays])[:OUTPUTS.get(case.primitive)]

    def function(_, *tensors):
        inside = _.backend
        results = _call(inside, primitive, arguments, [t.array for t in tensors])
        return tuple(Tensor._wrap(x, inside) for x in results[:OUTPUTS.get(case.primitive)])

    arrays.insert(0, np.zeros(1, np.float32))           # for primitives without operands
    save(function, tmp_path / "model.onnx", tuple(Tensor._wrap(a, backend) for a in arrays), dynamic_batch=False)
    received = run(tmp_path / "model.onnx", arrays)
    assert len(received) == len(expected)
    for r, e in zip(received, expected):
        assert_close(r, e, case.tolerance)
