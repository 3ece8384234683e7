"""Threads that work on one row together: sums and maxima over them, in a fixed order.

A row has a team of threads, a power of two: up to 32 share a warp with other teams and exchange numbers from register to register, more are
a block, whose warps meet in shared memory first. A kernel that uses them declares ``scratch = cuda.shared.array(THREADS_OF_ROW, REAL)``,
takes `team` as an argument, walks ``for row in rows_of_team(total, team)``, and is launched by ``row_launch(rows, count)``. Rows past the
end occur, for teams whose warp has others: they take part, with no elements. All threads receive the result.

In a wide launch (`wide.py`) each lane of a thread counts as a thread, and there are so many fewer of these: the order is the same. What a
thread adds to begins as ``element(out, 0.0)``, so that it has lanes where the thread has nothing to add, or what is added is one number for
all.
"""

from __future__ import annotations

from numba import cuda

from numbanet.backends.cuda.compile import SIMULATED, PerReal, device, float32, float64, int32, lanewise
from numbanet.backends.cuda.index import narrow, quotient, strided
from numbanet.backends.cuda.lanes import first_of, lane_numbers, lanes, turned
from numbanet.backends.cuda.mathematics import larger

REAL = PerReal(float32, float64)        # the type of what a kernel computes in
THREADS_OF_ROW = 256                    # the most threads of a row
WARP, BLOCK = 32, 128                   # threads; of a block of several teams
MOST_ROWS = 1 << 16                     # blocks of a grid; each goes on to further rows


def row_launch(rows: int, count: int, width: int = 1) -> tuple[int, dict]:
    """(threads of a team, grid and block) for rows of `count` elements, about four a thread, `width` elements a piece."""
    if SIMULATED:
        team = max(8 // width, 1)
        return team, {"blocks": min(rows, 2), "threads": team}
    team = max(min(1 << max(-(-count // 4) - 1, 0).bit_length(), THREADS_OF_ROW), 8) // width
    threads = max(team, BLOCK) if team <= WARP else team
    return team, {"blocks": min(-(-rows * team // threads), MOST_ROWS), "threads": threads}


@device
def member(team):
    """The number of this thread in its team."""
    return int32(cuda.threadIdx.x) & (team - 1)


@device
def rows_of_team(total, team):
    """The rows of this thread's team, of which the last may be past the end."""
    teams, own = quotient(int32(cuda.blockDim.x), team), quotient(int32(cuda.threadIdx.x), team)
    return strided(int32(cuda.blockIdx.x) * teams + own, total + own, int32(cuda.gridDim.x) * teams)


@device
def elements_of(row, total, count):
    """How many elements a row has: `count`, none past the end."""
    return count if row < total else narrow(0, count)


@lanewise
def _put(scratch, at, value):
    scratch[at] = value


@device
def add(a, b):
    return a + b


if SIMULATED:
    def _over_team(function):
        """The function (value, scratch, team) that combines the values of a team; here a team is a block."""
        @device
        def over_team(value, scratch, team):
            t, half = cuda.threadIdx.x, team * lanes(value) // 2
            _put(scratch, t * lanes(value) + lane_numbers(value), value)
            cuda.syncthreads()
            while half > 0:
                for i in range(t, half, team):
                    scratch[i] = function(scratch[i], scratch[i + half])
                cuda.syncthreads()
                half //= 2
            result = scratch[0]
            cuda.syncthreads()                          # before anyone writes to it again
            return result
        return over_team
else:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    from numbanet.backends.cuda import ptx

    @intrinsic
    def _number_of_lane(context, value, distance):
        """The value of the lane whose number differs by the bits of `distance`."""
        def generate(lowering, builder, signature, arguments):
            number, apart = arguments
            word, bits = ir.IntType(32), ir.IntType(value.bitwidth)
            number, parts = builder.bitcast(number, bits), []
            for part in range(value.bitwidth // 32):
                low = builder.trunc(builder.lshr(number, ir.Constant(bits, 32 * part)), word)
                other = builder.zext(ptx.of_other_lane(builder, low, apart), bits)
                parts.append(builder.shl(other, ir.Constant(bits, 32 * part)))
            joined = parts[0] if len(parts) == 1 else builder.or_(*parts)
            return builder.bitcast(joined, lowering.get_value_type(value))
        return value(value, types.int32), generate

    @lanewise
    def _of_lane(value, distance):
        return _number_of_lane(value, distance)

    @lanewise
    def _get(scratch, at):
        return scratch[at]

    def _over_team(function):
        """The function (value, scratch, team) that combines the values of a team: those furthest apart first, lanes of a piece last."""
        @device
        def over_team(value, scratch, team):
            if team > WARP:                             # a block: each warp takes the sums of all
                t, half = int32(cuda.threadIdx.x), team * lanes(value) // 2
                _put(scratch, t * lanes(value) + lane_numbers(value), value)
                cuda.syncthreads()
                while half >= WARP * lanes(value):
                    for i in range(t, half, team):
                        scratch[i] = function(scratch[i], scratch[i + half])
                    cuda.syncthreads()
                    half //= 2
                value = _get(scratch, (t & (WARP - 1)) * lanes(value) + lane_numbers(value))
                cuda.syncthreads()                      # before anyone writes to it again
            for k in range(5):
                distance = int32(16) >> int32(k)
                if distance < team:
                    value = function(value, _of_lane(value, distance))
            for k in range(3):
                distance = int32(4) >> int32(k)
                if distance < lanes(value):
                    other = value
                    for _ in range(distance):
                        other = turned(other)
                    value = function(value, other)
            return first_of(value)
        return over_team


block_sum = _over_team(add)             # (value, scratch, team): the sum over the threads of a team
block_largest = _over_team(larger)      # the largest value; NaN where one is
