"""Matrix products and the linear layer, on the register tiles of `gemm`. See `contract/linear.py` for the letters."""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu import activating, reduction
from numbanet.backends.cpu.gemm import (
    PANEL,
    gemm,
    gemm_packed,
    multiply_by_rows,
    pack,
    pack_in_place,
    packed_kernels,
    packing_kernels,
    rows_kernels,
)
from numbanet.backends.cpu.hardware import cache_sizes
from numbanet.backends.cpu.limits import limits
from numbanet.backends.cpu.prepared import Held, holding, may_overwrite, prepares, shared
from numbanet.backends.cpu.registry import implements
from numbanet.backends.reference import fused as numpy
from numbanet.backends.reference.fused import to_bfloat16

F32 = np.dtype(np.float32)
FEW_ROWS = 32           # of x, for which products with weights as they lie take less time than copying these


def streams_weights(x, weight) -> bool:
    """Few rows times weights that leave the second-level cache, row by row in memory: reading them is most of the work.

    4096 x 25088 weights: 15 ms for 39 with one row of x, 60 for 85 with 32 rows.
    """
    (M, I), O = x.shape, weight.shape[0]
    return (x.dtype == F32 and 0 < M <= FEW_ROWS and weight.strides[1] == F32.itemsize and O * I * F32.itemsize > cache_sizes().l2)


def needs_no_panels(x, weight) -> bool:
    """As `streams_weights`, where panels gain little beside their memory: up to 16 rows.

    4096 x 9216 with 8 rows: 7.6 ms for 5.7, with 16: 9.6 for 7.6 (2 threads), of 420 ms that VGG-16 takes with 8, whose linear layers have
    494 MB, and 72 that AlexNet takes with 16.
    """
    return x.shape[0] <= 16 and streams_weights(x, weight)


@implements
def matmul(a, b, out):
    if a.ndim == b.ndim == 2:
        gemm(a, b, out)
    elif not out.size:
        return
    elif b.ndim == 2:                                   # one matrix for the whole batch: a product of more rows
        rows = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        gemm(a.reshape(out.size // out.shape[-1], a.shape[-1]), b, rows.reshape(-1, out.shape[-1]))
        if rows is not out:
            np.copyto(out, rows)
    else:
        batch = out.shape[:-2]
        products = out if out.ndim == 3 or out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        gemm(_batch(a, batch), _batch(b, batch), products.reshape(-1, *out.shape[-2:]))
        if products is not out:
            np.copyto(out, products)


def _batch(x, batch):
    """x (..., P, Q), broadcast to the batch axes, as (G, P, Q); G stays 1 where all matrices are the same one."""
    if all(n == 1 for n in x.shape[:-2]):
        return x.reshape(1, *x.shape[-2:])
    if x.shape[:-2] != batch:
        x = np.broadcast_to(x, (*batch, *x.shape[-2:]))
    return x.reshape(-1, *x.shape[-2:])


@implements
def linear_forward(x, weight, bias, out):
    linear_fused(x, weight, bias, None, None, out)


def _kernels(x, weight, bias, minimum, maximum, out):
    """What a layer runs whose weights are read as they lie, or change and fit into a second-level cache: see `program.joined`."""
    if x.dtype != F32 or 0 in (*x.shape, *weight.shape):
        return None
    if streams_weights(x, weight):
        return rows_kernels(x, weight, out, bias, *limits(minimum, maximum))
    if weight.nbytes > cache_sizes().l2 // 2 or (bias is not None and not bias.flags.c_contiguous):
        return None
    return packing_kernels(x, weight.T, out, bias, *limits(minimum, maximum))


@implements
def linear_fused(x, weight, bias, minimum, maximum, out):
    if streams_weights(x, weight):
        multiply_by_rows(x, weight, out, bias, *limits(minimum, maximum))
        return
    if bias is not None and bias.flags.c_contiguous:    # as np.broadcast_to, which takes 2 us
        bias = np.ndarray(out.shape, bias.dtype, bias, 0, (0, bias.itemsize))
    gemm(x, weight.T, out, bias, False, *limits(minimum, maximum))


@implements
def linear_activated(x, weight, bias, activation, out):
    if streams_weights(x, weight):
        multiply_by_rows(x, weight, out, bias, *limits(None, None))
        activating.run(activation, out)
    else:
        gemm(x, weight.T, out, bias, activation=activation)


linear_fused.kernels = _kernels
linear_forward.kernels = lambda x, weight, bias, out: _kernels(x, weight, bias, None, None, out)


def _packed(weight):
    made = pack_in_place(weight) if may_overwrite(weight) else None
    return pack(weight.T) if made is None else made


def _held(packed) -> dict:
    """Where a prepared call has the weights (O, I): in panels (O / PANEL, I, PANEL)."""
    def read(panels, shape, first, rows):
        end = first + len(rows)
        for p in range(first // PANEL, -(-end // PANEL)):
            begin, stop = max(first, p * PANEL), min(end, (p + 1) * PANEL)
            np.copyto(rows[begin - first:stop - first], panels[p].T[begin - p * PANEL:stop - p * PANEL])
    return {1: Held(packed, 1, read)}


@prepares("linear_fused")
def _prepare_fused(arguments, constant):
    x, weight, _, minimum, maximum = arguments
    if 1 not in constant or x.dtype != F32 or 0 in (*x.shape, *weight.shape) or needs_no_panels(x, weight):
        return None
    packed, (low, high) = shared("linear", _packed, weight), limits(minimum, maximum)

    def call(x, weight, bias, minimum, maximum, out):
        gemm_packed(x, packed.value, out, bias, low, high)
    call.kernels = lambda x, weight, bias, minimum, maximum, out: packed_kernels(x, packed.value, out, bias, low, high)
    return holding(call, 1, weights=_held(packed))


@prepares("linear_activated")
def _prepare_activated(arguments, constant):
    x, weight, bias, activation = arguments
    if _prepare_fused((x, weight, bias, None, None), constant) is None:
        return None
    packed, function = shared("linear", _packed, weight), activating.address(activation)

    def call(x, weight, bias, activation, out):
        gemm_packed(x, packed.value, out, bias, *limits(None, None), function)
    call.kernels = lambda x, weight, bias, activation, out: packed_kernels(x, packed.value, out, bias, *limits(None, None), function)
    return holding(call, 1, weights=_held(packed))


@implements
def linear_fused_bfloat16(x, weight, bias, minimum, maximum, out):
    if x.dtype != F32 or not out.size or not x.size:
        half = np.empty(weight.shape, weight.dtype)
        numpy.round_to_bfloat16(weight, half)
        linear_fused(x, half, bias, minimum, maximum, out)
    else:
        multiply_by_rows(x, to_bfloat16(weight), out, bias, *limits(minimum, maximum))


@prepares("linear_fused_bfloat16")
def _prepare_bfloat16(arguments, constant):
    x, weight, _, minimum, maximum = arguments
    if 1 not in constant or x.dtype != F32 or 0 in (*x.shape, *weight.shape):
        return None
    halves, (low, high) = shared("bfloat16", to_bfloat16, weight), limits(minimum, maximum)

    def call(x, weight, bias, minimum, maximum, out):
        multiply_by_rows(x, halves.value, out, bias, low, high)
    return holding(call, 1)


@prepares("linear_forward")
def _prepare_forward(arguments, constant):
    fused = _prepare_fused((*arguments, None, None), constant)

    def call(x, weight, bias, out):
        fused(x, weight, bias, None, None, out)
    call.kernels = lambda x, weight, bias, out: fused.kernels(x, weight, bias, None, None, out)
    return fused and holding(call, 1, weights=fused.weights)


@implements
def linear_backward_input(grad_y, weight, out):
    gemm(grad_y, weight, out)


@implements
def linear_backward_weight(grad_y, x, out):
    gemm(grad_y.T, x, out)


@implements
def linear_backward_bias(grad_y, out):
    reduction.sum(grad_y, (0,), False, out)
