"""Resizing. ONNX's Resize says the same with other words; where its rounding would choose other elements, the tables of
`backends/contract/resize.py` are written into the graph."""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.resize import linear_sources, nearest_sources
from numbanet.onnx.export.registry import translates

F32 = np.float32


def _factors(x, output_size, scales, kept) -> list[np.float32]:
    """The factor of each axis in float32, as Resize takes them; one that is not needed is that of the sizes."""
    return [F32(o / n) if s is None or o in kept(n) else F32(s) for n, o, s in zip(x.shape[2:], output_size, scales)]


def _give(x, factors, output_size) -> bool:
    """Whether the factors give the output's size, in single and in double precision."""
    return all(int(np.floor(F32(n) * f)) == int(np.floor(n * float(f))) == o for n, f, o in zip(x.shape[2:], factors, output_size))


def _resize(b, x, output_size, factors, **options) -> str | None:
    """Resize by factors, or by sizes where those mean the same factors; None where neither gives the output."""
    if _give(x, factors, output_size):
        return b.node("Resize", x, None, np.array([1, 1, *factors], F32), **options)
    if factors == [F32(o / n) for n, o in zip(x.shape[2:], output_size)]:
        return b.node("Resize", x, None, None, b.ints((*x.shape[:2], *output_size)), **options)
    return None


@translates("resize2d_nearest_forward")
def resize2d_nearest(b, x, output_size, scales):
    factors = _factors(x, output_size, scales, lambda n: (n, 2 * n))
    tables = [nearest_sources(*sizes) for sizes in zip(x.shape[2:], output_size, scales)]
    chosen = all(np.array_equal(np.floor(np.arange(o, dtype=F32) / f).astype(np.int64), table)
                 for o, f, table in zip(output_size, factors, tables))
    y = _resize(b, x, output_size, factors, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor") \
        if chosen else None
    return y or b.node("Gather", b.node("Gather", x, tables[0], axis=2), tables[1], axis=3)


@translates("resize2d_bilinear_forward")
def resize2d_bilinear(b, x, output_size, scales, align_corners):
    factors = _factors(x, output_size, scales, lambda n: (n,))
    corners = "align_corners" if align_corners else "half_pixel"
    if not align_corners or min(output_size) > 1:
        if y := _resize(b, x, output_size, factors, mode="linear", coordinate_transformation_mode=corners):
            return y
    rows, columns = (_matrix(*sizes, align_corners, x.dtype) for sizes in zip(x.shape[2:], output_size, scales))
    return b.node("MatMul", b.node("MatMul", rows, x), np.ascontiguousarray(columns.T))


def _matrix(size: int, outputs: int, scale, align_corners, dtype) -> np.ndarray:
    """(outputs, size): the weights of the input elements."""
    matrix = np.zeros((outputs, size), dtype)
    first, second, weight = linear_sources(size, outputs, scale, align_corners, dtype)
    np.add.at(matrix, (np.arange(outputs), first), 1 - weight)
    np.add.at(matrix, (np.arange(outputs), second), weight)
    return matrix
