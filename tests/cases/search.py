"""Cases of searching among vectors."""

import numpy as np

from tests.cases.case import PrimitiveCase, floats, integers, strided

OPERATION_CASES = []        # nothing here has a gradient


def _nearest(label, queries, rows, columns, k, layout=lambda x: x, make=integers, change=None, exact=True):
    def arguments(rng):
        q, x = make(rng, queries, columns), make(rng, rows, columns)
        if change is not None:
            change(q, x)
        return layout(q), layout(x), k
    return PrimitiveCase("nearest_rows", arguments, exact=exact, label=label)


def _special(q, x):
    """Products that are NaN, infinite of both signs, and equal, in several parts and blocks."""
    x[5], x[-1], x[7, 0], x[2000, 0], x[9, 0] = np.nan, np.nan, np.inf, np.inf, -np.inf
    q[0] = 0        # 0 * inf is NaN too
    q[1] = np.nan
    q[2, 0] = -1


def _far(q, x):
    q[:] = 1
    x[:] = -np.inf      # as low as places that are free


PRIMITIVE_CASES = [
    *[_nearest(f"{queries}-queries", queries, 2500, 37, 11) for queries in (1, 3, 8, 9, 16, 35)],
    *[_nearest(f"all-{queries}", queries, 70, 5, 70) for queries in (2, 20)],
    *[_nearest(f"part-of-a-part-{queries}", queries, 1030, 4, 1029) for queries in (2, 9)],
    *[_nearest(f"special-{queries}", queries, 3000, 6, 20, change=_special) for queries in (4, 40)],
    *[_nearest(f"far-{queries}", queries, 1100, 3, 9, change=_far) for queries in (4, 40)],
    *[_nearest(f"strided-{queries}", queries, 90, 19, 5, strided) for queries in (2, 17)],
    *[_nearest(f"by-columns-{queries}", queries, 90, 19, 5, lambda x: np.asfortranarray(x)) for queries in (2, 17)],
    _nearest("one-column", 10, 200, 1, 3),
    _nearest("no-queries", 0, 12, 3, 4), _nearest("no-rows", 3, 0, 3, 0), _nearest("no-columns", 3, 9, 0, 4),
    _nearest("wide", 3, 40, 700, 6, make=floats, exact=False), _nearest("wide-many", 33, 40, 700, 6, make=floats, exact=False),
]


def _assign(label, rows, centres, columns, layout=lambda x: x, make=integers, change=None, exact=True):
    def arguments(rng):
        x, c = make(rng, rows, columns), make(rng, centres, columns)
        if change is not None:
            change(x, c)
        return layout(x), layout(c)
    return PrimitiveCase("kmeans_assign", arguments, exact=exact, label=label)


def _nan_row(x, centres):
    x[3, 1] = np.nan


def _nan_centre(x, centres):
    centres[20, 0] = centres[4, 2] = np.nan


def _sums(label, rows, columns, count, layout=lambda x: x, labels=None):
    return PrimitiveCase("kmeans_sums", lambda rng: (layout(integers(rng, rows, columns)),
                                                     rng.integers(0, count, rows) if labels is None else np.full(rows, labels), count),
                         exact=True, label=label)


PRIMITIVE_CASES += [
    *[_assign(f"{centres}-centres", 333, centres, 7) for centres in (1, 5, 16, 40)],
    _assign("blocks", 5000, 130, 9), _assign("floats", 200, 30, 90, make=floats, exact=False),
    _assign("strided", 50, 21, 9, strided), _assign("no-rows", 0, 3, 4), _assign("no-columns", 5, 3, 0),
    _assign("nan-row", 70, 33, 5, change=_nan_row), _assign("nan-centre", 70, 33, 5, change=_nan_centre),
    _sums("some", 500, 70, 9), _sums("one-label", 77, 33, 4, labels=2), _sums("strided", 60, 9, 5, strided),
    _sums("no-rows", 0, 4, 3), _sums("no-columns", 4, 0, 3),
]
