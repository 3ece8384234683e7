"""Cases of reductions."""

import numpy as np

import numbanet.ops.reduction as reduction
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, integers, strided


def _case(name, operation, *arguments, label="", function=None, shape=(3, 4, 5), values=None, **options):
    function = function or name

    def call(module):
        def run(x):
            result = getattr(module(), function)(x, *arguments, **options)
            return result if values is None else result[values]
        return run

    def torch_module():
        import torch
        return torch

    def inputs(rng):
        return (rng.permutation(np.prod(shape, dtype=int)).reshape(shape) * 0.1 - 1.0,)
    return OperationCase(f"{name}{label and '-' + label}", (operation,), call(lambda: reduction), inputs, call(torch_module))


def _prod_with_zeros(rng):
    x = rng.standard_normal((4, 3)) + 3
    x[0, 1] = x[2, 2] = x[3, 2] = 0
    return (x,)


OPERATION_CASES = [
    _case("sum", reduction.Sum), _case("sum", reduction.Sum, (0, -1), label="dims"),
    _case("sum", reduction.Sum, 1, True, label="keepdim"),
    _case("sum", reduction.Sum, label="scalar", shape=()), _case("mean", reduction.Mean),
    _case("mean", reduction.Mean, (1, 2), label="dims"),
    _case("prod", reduction.Prod, 1, shape=(2, 3, 2)),
    OperationCase("prod-zeros", (reduction.Prod,), lambda x: x.prod(1), _prod_with_zeros, lambda x: x.prod(1)),
    _case("amax", reduction.ExtremumOver, (0, 2)), _case("amin", reduction.ExtremumOver, 1, True),
    _case("max", reduction.ExtremumOver), _case("min", reduction.ExtremumOver),
    _case("max", reduction.Select, 1, label="dim", values=0), _case("min", reduction.Select, -1, True, label="dim", values=0),
    _case("topk", reduction.Select, 2, 1, values=0), _case("topk", reduction.Select, 3, -1, False, label="smallest", values=0),
    _case("sort", reduction.Select, 0, values=0), _case("sort", reduction.Select, 0, True, label="descending", values=0),
    _case("median", reduction.Select, 1, values=0), _case("median", reduction.Select, label="all"),
    _case("var", reduction.Variance), _case("var", reduction.Variance, (0, 2), label="dims", correction=0),
    _case("std", reduction.Variance, 1), _case("norm", reduction.Norm), _case("norm", reduction.Norm, 1, 2, label="1"),
    _case("norm", reduction.Norm, 3, 0, label="3"), _case("norm", reduction.Norm, float("inf"), 1, label="inf"),
    _case("logsumexp", reduction.Sum, 1), _case("logsumexp", reduction.Sum, (0, 2), True, label="dims"),
    _case("cumsum", reduction.CumulativeSum, 1),
]


def _reduce(name, label, make, axes, keepdims=False, exact=True, **options):
    return PrimitiveCase(name, lambda rng: (make(rng), axes, keepdims), exact=exact, label=label, **options)


_FORMS = {       # label: (array, axes)
    "all": (lambda rng: integers(rng, 5, 7, 3000), (0, 1, 2)),
    "last": (lambda rng: integers(rng, 30, 77), (1,)), "last-long": (lambda rng: integers(rng, 3, 70001), (1,)),
    "tiny-rows": (lambda rng: integers(rng, 300, 3), (1,)), "batch": (lambda rng: integers(rng, 64, 120), (0,)),
    "channels": (lambda rng: channels_last(integers(rng, 3, 6, 40, 31)), (0, 2, 3)),
    "pixels": (lambda rng: channels_last(integers(rng, 3, 65, 9, 8)), (2, 3)),
    "between": (lambda rng: channels_last(integers(rng, 3, 5, 4, 6)), (0, 1, 2)),
    "strided": (lambda rng: strided(integers(rng, 3, 5, 4)), (0, 2)), "nothing": (lambda rng: integers(rng, 3, 5), ()),
    "wide": (lambda rng: integers(rng, 40, 5000), (0,)),
}


def _special(rng):
    x = floats(rng, 5, 3000)
    x[0, 1500], x[1, 3], x[2, 2999], x[3, 1], x[3, 2] = np.nan, np.inf, -np.inf, np.inf, np.nan
    return x


def _ties(rng):
    x = integers(rng, 4, 30)
    x[0, 7] = np.nan
    return x


PRIMITIVE_CASES = [
    *[PrimitiveCase(name, lambda rng: (integers(rng, 2, 200), 1, False), exact=True, label="ties-far-apart")
      for name in ("argmax", "argmin", "max_with_index", "min_with_index")],
    *[_reduce(name, label, make, axes) for name in ("sum", "max_reduce", "min_reduce") for label, (make, axes) in _FORMS.items()],
    *[_reduce("mean", label, *_FORMS[label], keepdims=True, exact=False, tolerance=1e-6) for label in ("all", "pixels", "last-long")],
    _reduce("prod", "last", lambda rng: (1 + floats(rng, 40, 21) / 9), (1,), exact=False),
    _reduce("prod", "batch", lambda rng: (1 + floats(rng, 20, 41) / 9), (0,), exact=False),
    _reduce("sum", "accuracy", lambda rng: floats(rng, 3, 100003) + 1, (1,), exact=False, tolerance=4e-7),
    *[_reduce(name, "special", _special, (1,), exact=False) for name in ("sum", "mean")],
    *[_reduce(name, f"special-{axis}", _special, (axis,)) for name in ("max_reduce", "min_reduce") for axis in (0, 1)],
    *[_reduce(name, "empty", lambda rng: floats(rng, 3, 0), (1,)) for name in ("sum", "prod", "mean", "any", "all")],
    *[_reduce(name, "integers", lambda rng: integers(rng, 3, 4, dtype=np.uint8, low=0), (0,)) for name in ("sum", "prod", "max_reduce")],
    *[_reduce(name, "rows", lambda rng: integers(rng, 9, 3, low=0, high=2), (1,), True) for name in ("any", "all")],
    *[PrimitiveCase(name, lambda rng: (_ties(rng), 1, False), exact=True)
      for name in ("argmax", "argmin", "max_with_index", "min_with_index")],
    *[PrimitiveCase("sum_of_squares", make, exact=True, label=label) for label, make in {
        "some": lambda rng: ([integers(rng, 5, 3), channels_last(integers(rng, 2, 3, 5, 7)), strided(integers(rng, 4, 9)),
                              integers(rng, 1)],),
        "empty": lambda rng: ([integers(rng, 0, 3), np.full((), 3, np.float32)],),
        "none": lambda rng: ([integers(rng, 3, 0)],)}.items()],
    PrimitiveCase("sum_of_squares", lambda rng: ([floats(rng, 3, 100003) + 1, floats(rng, 65536), floats(rng, 65537)],), tolerance=4e-7,
                  label="long"),
    PrimitiveCase("sum_of_squares", lambda rng: ([floats(rng, 30), np.float32([[1, np.nan]])],), label="nan"),
    PrimitiveCase("sum_of_squares", lambda rng: ([floats(rng, 30), np.float32([np.inf, 1]), np.float32([1e30, 3])],), label="infinite"),
    PrimitiveCase("cumsum", lambda rng: (integers(rng, 3, 5), 1), exact=True),
    *[PrimitiveCase("topk", lambda rng, flag=flag: (_ties(rng), 5, 1, flag), exact=True, label=str(flag)) for flag in (True, False)],
    *[PrimitiveCase("sort", lambda rng, flag=flag: (_ties(rng), 1, flag), exact=True, label=str(flag)) for flag in (True, False)],
]
