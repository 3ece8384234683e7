"""Jobs for threads whose speeds differ: each has a share of its own, and who is done takes from the others' shares.

A core whose neighbour on the same silicon is busy, or that another process uses for a while, runs at half of its speed: with equal
shares, all others then wait for it. What a job computes does not depend on who does it, so neither do any bits.

    counters = begin_shares(slots, jobs)                # in the driver, before the parallel loop over slots
    job = next_job(counters, slot, slots, jobs)         # in the loop's body; -1 where nothing is left
    while job >= 0:
        ...
        job = next_job(counters, slot, slots, jobs)
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu.compile import JIT, worker

LINE = 16       # int64 from one counter to the next: two cache lines, which processors fetch together

if JIT:
    from numba import types
    from numba.extending import intrinsic

    from numbanet.backends.cpu.simd.memory import pointer
    from numbanet.backends.cpu.simd.types import I64

    @intrinsic
    def fetch_and_add_one(typingctx, counters, index):
        """counters[index], which is one more afterwards: one indivisible step. `counters` is an int64 array."""
        if not isinstance(counters, types.Array) or counters.dtype != types.int64:
            return None

        def codegen(context, builder, sig, args):
            return builder.atomic_rmw("add", pointer(context, builder, sig.args[0], *args), I64(1), "monotonic")
        return types.int64(counters, types.int64), codegen
else:
    def fetch_and_add_one(counters, index):
        """The scalar twin."""
        counters[index] += 1
        return int(counters[index]) - 1


@worker
def begin_shares(slots, jobs):
    """Counters of `slots` equal shares of jobs 0, ..., jobs - 1."""
    counters = np.empty(slots * LINE, np.int64)
    for slot in range(slots):
        counters[slot * LINE] = slot * jobs // slots
    return counters


@worker
def next_job(counters, slot, slots, jobs):
    """A job that nobody has taken, of the slot's own share first; -1 where there is none."""
    for _ in range(slots):
        job = fetch_and_add_one(counters, slot * LINE)
        if job < (slot + 1) * jobs // slots:
            return job
        slot = slot + 1 if slot + 1 < slots else np.int64(0)
    return np.int64(-1)
