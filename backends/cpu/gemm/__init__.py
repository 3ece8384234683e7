"""The matrix product of the CPU backend: any strides, batched or not; float32 on tiles, float64 in plain loops."""
import numpy as np

from numbanet.backends.cpu import activating, memory, threads
from numbanet.backends.cpu.compile import alone
from numbanet.backends.cpu.gemm.blocking import PACKING_PAYS, PANEL, SHALLOW, blocking, is_small
from numbanet.backends.cpu.gemm.dots import multiply_dots, multiply_dots_bfloat16
from numbanet.backends.cpu.gemm.kernels import gemm_plain, gemm_tiled, multiply_rows, pack_panels
from numbanet.backends.cpu.layout import copy_pixels
from numbanet.errors import ShapeError

__all__ = ["PANEL", "gemm", "gemm_packed", "is_small", "multiply_by_rows", "multiply_rows", "pack", "pack_in_place", "packing_kernels",
           "rows_kernels"]


SMALL_PANELS = 1 << 14       # floats that one thread packs before another would have begun
PANELS_IN_PLACE = 8          # that are copied before they are packed into their own memory
LINE = 64                    # bytes of a cache line
ALIASING = 2048              # bytes: rows this far apart, or multiples, meet in few sets of the first-level cache


def gemm(a: np.ndarray, b: np.ndarray, c: np.ndarray, bias: np.ndarray | None = None, accumulate: bool = False,
         low: float = -np.inf, high: float = np.inf, activation: str | None = None) -> None:
    """C = A @ B + bias, or C += A @ B + bias; written to `c`.

    Parameters
    ----------
    a, b, c
        (M, K), (K, N) and (M, N), or with a batch axis in front, which may be 1 in `a` or `b`; any strides, one
        dtype, float32 or float64. `c` overlaps with neither.
    bias
        (N,), (1, N), (M, 1) or (M, N). It is added after the sum over K.
    accumulate
        Whether to add to what `c` holds.
    low, high
        Limits of the result; a NaN stays NaN.
    activation
        What the result is given to, of those in `contract/fused.py`.

    Raises
    ------
    ShapeError
        When the shapes do not fit.
    """
    if a.ndim == 2:
        a, b, c = a[None], b[None], c[None]
    G, M, N = c.shape
    K = a.shape[2]
    if a.shape not in ((G, M, K), (1, M, K)) or b.shape not in ((G, K, N), (1, K, N)):
        raise ShapeError(f"gemm: expected A (M, K), B (K, N) and C (M, N), received {a.shape}, {b.shape} and {c.shape}")
    if a.shape[0] != G:
        a = np.broadcast_to(a, (G, M, K))
    if b.shape[0] != G:
        b = np.broadcast_to(b, (G, K, N))
    if not c.size:
        return
    if bias is None:
        bias = c[0, :0, :0]
    else:
        bias = bias[None] if bias.ndim == 1 else bias
        if bias.shape not in ((1, N), (M, 1), (M, N)):
            raise ShapeError(f"gemm: expected a bias {(N,)}, {(M, 1)} or {(M, N)}, received {bias.shape}")
    if not K:
        c[...] = np.clip((c if accumulate else 0) + (bias if bias.size else 0), low, high)
        if activation is not None:
            activating.run(activation, c)
    elif c.dtype == np.float64:
        gemm_plain(a, b, c, bias, accumulate)
        if low > -np.inf or high < np.inf:
            np.clip(c, low, high, out=c)
        if activation is not None:
            activating.run(activation, c)
    else:
        _gemm_float32(a, b, c, bias, accumulate, low, high, activating.NONE if activation is None else activating.address(activation))


def pack(b: np.ndarray) -> np.ndarray:
    """B (K, N), float32, as the panels that `gemm_packed` reads."""
    packed = memory.empty((1, -(-b.shape[1] // PANEL), b.shape[0], PANEL), b.dtype)
    pack_panels(b[None], packed)
    return packed[0]


def pack_in_place(b_transposed: np.ndarray) -> np.ndarray | None:
    """As `pack` of the transpose of an array (N, K), in its memory, whose numbers are lost; None where panels are no whole ranges of it."""
    N, K = b_transposed.shape
    if N % PANEL or not b_transposed.flags.c_contiguous or not b_transposed.flags.writeable:
        return None
    packed = b_transposed.reshape(N // PANEL, K, PANEL)
    for panel in range(0, N // PANEL, PANELS_IN_PLACE):
        rows = b_transposed[panel * PANEL:(panel + PANELS_IN_PLACE) * PANEL]
        copy = memory.empty(rows.shape, rows.dtype)
        np.copyto(copy, rows)
        pack_panels(copy.T[None], packed[None, panel:panel + PANELS_IN_PLACE])
    return packed


def gemm_packed(a: np.ndarray, packed: np.ndarray, c: np.ndarray, bias: np.ndarray | None, low: float, high: float,
                activation: int = activating.NONE) -> None:
    """C (M, N) = A (M, K) @ B + bias (N,), limited to [low, high], for B packed by `pack`; float32, no size 0."""
    (M, N), K = c.shape, a.shape[1]
    if c.strides[1] != c.itemsize and N > 1:
        ordered = memory.empty(c.shape, c.dtype)
        gemm_packed(a, packed, ordered, bias, low, high, activation)
        return np.copyto(c, ordered)
    alone(gemm_tiled, is_small(1, M, N, K))(*_packed_arguments(_spread(a[None], N), packed, c, bias, low, high, activation))


def _packed_arguments(a, packed, c, bias, low, high, activation):
    (M, N), K, bias = c.shape, a.shape[2], c[:0] if bias is None else np.ascontiguousarray(bias)[None]
    return (a, packed, c[None], bias, False, *blocking(1, M, N, K), 0, K * PANEL, PANEL, low, high, activation, threads.get_num_threads())


def packed_kernels(a: np.ndarray, packed: np.ndarray, c: np.ndarray, bias: np.ndarray | None, low: float, high: float,
                   activation: int = activating.NONE) -> list | None:
    """What `gemm_packed` runs, where that needs no copies: see `program.joined`."""
    (M, N), K = c.shape, a.shape[1]
    if (c.strides[1] != c.itemsize and N > 1) or _reads_badly(a[None], N):
        return None
    return [(gemm_tiled, _packed_arguments(a[None], packed, c, bias, low, high, activation), not is_small(1, M, N, K))]


def packing_kernels(a: np.ndarray, b: np.ndarray, c: np.ndarray, bias: np.ndarray | None, low: float, high: float) -> list | None:
    """As `packed_kernels`, B (K, N) being packed each time."""
    packed = memory.empty((1, -(-b.shape[1] // PANEL), b.shape[0], PANEL), b.dtype)
    multiply = packed_kernels(a, packed[0], c, bias, low, high)
    return multiply and [(pack_panels, (b[None], packed), packed.size > SMALL_PANELS), *multiply]


def multiply_by_rows(a: np.ndarray, w: np.ndarray, c: np.ndarray, bias: np.ndarray | None, low: float, high: float) -> None:
    """C (M, N) = A (M, K) @ W.T + bias (N,), limited to [low, high], for W (N, K) with unit stride over K, which is read as it lies.

    A and C are float32, W too or bfloat16 as uint16; no size is 0.
    """
    if c.strides[1] != c.itemsize and c.shape[1] > 1:
        ordered = memory.empty(c.shape, c.dtype)
        multiply_by_rows(a, w, ordered, bias, low, high)
        return np.copyto(c, ordered)
    if a.strides[1] != a.itemsize and a.shape[1] > 1:
        a = np.ascontiguousarray(a)
    multiply, arguments, is_shared = _rows_call(a, w, c, bias, low, high)
    alone(multiply, not is_shared)(*arguments)


def _rows_call(a, w, c, bias, low, high) -> tuple:
    bias = c[:0] if bias is None else np.ascontiguousarray(bias)[None]
    multiply = multiply_dots if w.dtype == np.float32 else multiply_dots_bfloat16
    return multiply, (a, w, c, bias, low, high, threads.get_num_threads()), not is_small(1, *c.shape, a.shape[1])


def rows_kernels(a: np.ndarray, w: np.ndarray, c: np.ndarray, bias: np.ndarray | None, low: float, high: float) -> list | None:
    """What `multiply_by_rows` runs, where that needs no copies: see `program.joined`."""
    if any(x.strides[1] != x.itemsize and x.shape[1] > 1 for x in (a, c)) or (bias is not None and not bias.flags.c_contiguous):
        return None
    return [_rows_call(a, w, c, bias, low, high)]


def _spread(a: np.ndarray, N: int) -> np.ndarray:
    """A, or a copy with rows that stand in the way of nothing."""
    if not _reads_badly(a, N):
        return a
    spread = memory.empty((*a.shape[:2], a.shape[2] + LINE // a.itemsize), a.dtype)[:, :, :a.shape[2]]
    if a.strides[2] == a.itemsize:
        copy_pixels(a[:, :, None], spread[:, :, None])
    else:
        np.copyto(spread, a)
    return spread


def _gemm_float32(a: np.ndarray, b: np.ndarray, c: np.ndarray, bias: np.ndarray, accumulate: bool, low: float, high: float,
                  activation: int) -> None:
    """Bring operands into the order that the kernel takes, and run it."""
    G, M, N = c.shape
    K, item = a.shape[2], c.itemsize
    if N > 1 and c.strides[2] != item:
        if M == 1 or c.strides[1] == item:               # C is stored by columns: compute its transpose
            return _gemm_float32(b.swapaxes(1, 2), a.swapaxes(1, 2), c.swapaxes(1, 2), bias.T, accumulate, low, high, activation)
        ordered = memory.empty(c.shape, c.dtype)
        if accumulate:
            np.copyto(ordered, c)
        _gemm_float32(a, b, ordered, bias, accumulate, low, high, activation)
        return np.copyto(c, ordered)
    if bias.strides[1] != item:
        bias = np.ascontiguousarray(bias)
    a = _spread(a, N)
    multiply = alone(gemm_tiled, is_small(G, M, N, K))
    if (N == 1 or b.strides[2] == item) and (M <= PACKING_PAYS or N <= PANEL or K <= SHALLOW):
        batch, step = b.strides[0] // item, b.strides[1] // item
        rows, panels, depth = blocking(G, M, N, K, step)
        return multiply(a, b, c, bias, accumulate, rows, panels, depth, batch, PANEL, step, low, high, activation,
                        threads.get_num_threads())
    rows, panels, depth = blocking(G, M, N, K)
    matrices = b if b.strides[0] else b[:1]
    packed = memory.empty((matrices.shape[0], -(-N // PANEL), K, PANEL), c.dtype)
    alone(pack_panels, packed.size <= SMALL_PANELS)(matrices, packed)
    batch = packed.strides[0] // item if b.strides[0] else 0
    multiply(a, packed[0], c, bias, accumulate, rows, panels, depth, batch, K * PANEL, PANEL, low, high, activation,
             threads.get_num_threads())


def _reads_badly(a: np.ndarray, N: int) -> bool:
    """Whether copying A pays: each of its numbers lies in another cache line, or its rows evict each other."""
    _, row, step = a.strides
    if a.itemsize not in (row, step):
        return True
    return step == a.itemsize and row % ALIASING == 0 and a.shape[1] > 1 and N > 2 * PANEL
