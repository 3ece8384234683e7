"""Operands of elementwise kernels as flat memory: how each element of the output finds its partner.

Kernels write a dense output in memory order, o = 0, 1, 2, ... An operand of the same layout is read at o itself. Any other
is read through three axes, those of the output after all that can be merged are merged, from slow to fast (P, Q, R):

    o = (p * Q + q) * R + r        x[p * step_p + q * step_q + r * step_r]        a broadcast axis has step 0
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from numbanet.backends.cpu.compile import worker
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.simd import L, load_partial, splat, store_partial

FLAT = -1                                               # step_r of an operand that lies as the output does
ALL = 1 << 40                                           # R where nothing has to be told apart: one run
A_STEPS, B_STEPS = np.int64(2), np.int64(5)              # where they stand in a plan; typed, as literals compile `gather` twice
AS_OUTPUT, SAME = (0, 0, FLAT), (0, 0, 0)               # SAME: one element meets all


@lru_cache(maxsize=8192)
def is_dense(shape: tuple, strides: tuple, itemsize: int) -> bool:
    """Whether the elements fill one piece of memory, in any order of the axes."""
    expected = itemsize
    for stride, n in sorted((s, n) for s, n in zip(strides, shape) if n != 1):
        if stride != expected:
            return False
        expected *= n
    return True


def dense(x: np.ndarray) -> np.ndarray:
    """x itself where it is dense, else a dense copy in its order."""
    return x if is_dense(x.shape, x.strides, x.itemsize) else x.copy(order="K")


def flat_like(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """The elements of x, of out's shape, in the order in which those of the dense `out` lie; a view where x lies so."""
    if x.strides == out.strides:
        return x.ravel("K")
    ordered = np.empty_like(out, dtype=x.dtype)
    np.copyto(ordered, x)
    return ordered.ravel("K")


def operands(a, b, out: np.ndarray):
    """(flat a, flat b, plan): `plan` holds Q, R and the steps of a and of b; see `gather`. `out` is dense."""
    a, a_steps = _operand(a, out)
    b, b_steps = _operand(b, out)
    if type(a_steps) is type(b_steps) is tuple:
        return a, b, _plan(1, ALL, a_steps, b_steps)
    plan = merged(out.shape, out.strides, out.itemsize, a_steps if type(a_steps) is tuple else a_steps.strides,
                   b_steps if type(b_steps) is tuple else b_steps.strides, type(a_steps) is tuple, type(b_steps) is tuple)
    if plan is None:                                    # more than three axes are left
        a, b = [x if type(steps) is tuple else flat_like(np.broadcast_to(steps, out.shape), out)
                for x, steps in ((a, a_steps), (b, b_steps))]
        return a, b, _plan(1, ALL, *[s if type(s) is tuple else AS_OUTPUT for s in (a_steps, b_steps)])
    return a, b, plan


def _operand(x, out):
    """(flat memory, steps), or where a plan has to be made the broadcast view in place of the steps."""
    if not isinstance(x, np.ndarray):
        return np.array([x], out.dtype), SAME
    if x.dtype != out.dtype:
        x = x.astype(out.dtype)
    if x.strides == out.strides and x.shape == out.shape:
        return x.ravel("K"), AS_OUTPUT
    if x.size == 1:
        return x.reshape(1), SAME
    x = dense(x)
    return x.ravel("K"), np.broadcast_to(x, out.shape)


@lru_cache(maxsize=4096)
def _plan(q: int, r: int, a_steps: tuple, b_steps: tuple) -> np.ndarray:
    return np.array([q, r, *a_steps, *b_steps], np.int64)


@lru_cache(maxsize=4096)
def merged(shape, strides, itemsize, a_strides, b_strides, a_is_done, b_is_done) -> np.ndarray | None:
    """The plan after merging axes; None where more than three are left. `*_is_done`: the strides are steps already."""
    open_strides = [s for s, done in ((a_strides, a_is_done), (b_strides, b_is_done)) if not done]
    axes = sorted((a for a in range(len(shape)) if shape[a] != 1), key=lambda a: strides[a])
    merged: list[tuple] = []                            # from fast to slow: (size, step of each open operand)
    for axis in axes:
        n, steps = shape[axis], tuple(s[axis] // itemsize for s in open_strides)
        if merged and all(s == f * merged[-1][0] for s, f in zip(steps, merged[-1][1])):
            merged[-1] = merged[-1][0] * n, merged[-1][1]
        else:
            merged.append((n, steps))
    if len(merged) > 3:
        return None
    merged += [(1, (0,) * len(open_strides))] * (3 - len(merged))
    found = iter([tuple(steps[i] for _, steps in reversed(merged)) for i in range(len(open_strides))])
    return _plan(merged[1][0], merged[0][0], a_strides if a_is_done else next(found), b_strides if b_is_done else next(found))


@worker
def is_one(plan, first):
    """Whether one element of an operand meets all of the output."""
    return plan[first] == plan[first + 1] == plan[first + 2] == 0


@worker
def gather(x, plan, first, begin, count, buffer):
    """buffer[i] = the element of x that meets output element begin + i; plan[first:first + 3] are the steps of x."""
    out_of_line()
    Q, R = plan[0], plan[1]
    step_p, step_q, step_r = plan[first], plan[first + 1], plan[first + 2]
    row = begin // R
    r, done = begin - row * R, 0
    while done < count:
        run = min(R - r, count - done)
        offset = row // Q * step_p + row % Q * step_q + r * step_r
        if step_r == 1:
            for i in range(0, run, L):
                store_partial(buffer, done + i, load_partial(x, offset + i, run - i), run - i)
        elif step_r == 0:
            value = splat(x[offset])
            for i in range(0, run, L):
                store_partial(buffer, done + i, value, run - i)
        else:
            for i in range(run):
                buffer[done + i] = x[offset + i * step_r]
        done += run
        row += 1
        r = 0
