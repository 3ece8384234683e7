"""How a matrix product is divided: pure functions of the shapes and of the cache sizes, never of the thread count.

M, N, K: C is (M, N), A (M, K), B (K, N). G matrices form a batch.
"""
from functools import lru_cache
from typing import NamedTuple

from numbanet.backends.cpu import hardware
from numbanet.backends.cpu.simd import L, tile_shapes

ROWS, VECTORS = tile_shapes()[0]
PANEL = VECTORS * L          # columns of B that a tile reads

MAXIMUM_DEPTH = 384          # of one pass over K: a panel of B (48 KB at 32 columns) stays near
SMALLEST_JOB = 1 << 17       # multiply-adds: 2 us, so that starting the threads (1.5 us) is not most of it
MOST_JOBS = 64               # enough to balance any usual number of cores
PACKING_PAYS = 256           # rows of A from which packing B costs less than walking over its rows again and again


class Blocking(NamedTuple):
    """Sizes of a job, and of one pass over K."""

    rows: int        # rows of C in a job, a multiple of ROWS
    panels: int      # panels of C in a job
    depth: int       # steps of k in a pass


def is_small(G: int, M: int, N: int, K: int) -> bool:
    """Whether a product is done by one thread before another would have begun."""
    return G * M * N * K <= 2 * SMALLEST_JOB


@lru_cache(maxsize=1024)
def blocking(G: int, M: int, N: int, K: int) -> Blocking:
    """The division of a batched product into jobs."""
    passes = -(-K // MAXIMUM_DEPTH)
    depth = -(-K // passes)
    row_tiles, panels = -(-M // ROWS), -(-N // PANEL)
    # the job's rows of A are read again for each panel: half of the second-level cache is theirs
    tiles = max(1, min(row_tiles, hardware.cache_sizes().l2 // 2 // (4 * depth * ROWS)))
    columns = panels
    wanted = min(MOST_JOBS, G * M * N * K // SMALLEST_JOB)
    while G * -(-row_tiles // tiles) * -(-panels // columns) < wanted and (tiles > 1 or columns > 1):
        if tiles * ROWS >= columns * PANEL and tiles > 1 or columns == 1:
            tiles = -(-tiles // 2)
        else:
            columns = -(-columns // 2)
    return Blocking(tiles * ROWS, columns, depth)
