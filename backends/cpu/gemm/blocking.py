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
SHALLOW = 64                 # steps of k for which rows of C are written from end to end, each tile reading A from the first-level cache
FEW_ROWS = 64                # of C, for which B is read from end to end where its rows lie pages apart
THIN = 32                    # rows of B that are read side by side then: what a prefetcher follows
PAGE = 4096                  # bytes
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
def blocking(G: int, M: int, N: int, K: int, b_step: int = PANEL) -> Blocking:
    """The division of a batched product into jobs; `b_step`: floats from row to row of B as it is read.

    Where rows of a large B or C lie pages apart, a panel from top to bottom takes two cache lines of each page, which no prefetcher
    foresees. AlexNet's linear layers at batch 32, gradients for x and the weights: 134 ms so, 49 ms along the rows.
    """
    along_rows = M <= FEW_ROWS and N > PANEL and b_step * 4 >= PAGE
    passes = -(-K // (THIN if along_rows else MAXIMUM_DEPTH))
    depth = -(-K // passes)
    row_tiles, panels = -(-M // ROWS), -(-N // PANEL)
    # the job's rows of A are read again for each panel: half of the second-level cache is theirs
    tiles = max(1, min(row_tiles, hardware.cache_sizes().l2 // 2 // (4 * depth * ROWS)))
    columns = panels
    if K <= SHALLOW:
        tiles, columns = row_tiles, max(1, min(panels, hardware.cache_sizes().l2 // 2 // (4 * K * PANEL)))
    wanted = min(MOST_JOBS // 4 if along_rows else MOST_JOBS, G * M * N * K // SMALLEST_JOB)
    while G * -(-row_tiles // tiles) * -(-panels // columns) < wanted and (tiles > 1 or columns > 1):
        if tiles > 1 and (K <= SHALLOW or tiles * ROWS >= columns * PANEL) or columns == 1:
            tiles = -(-tiles // 2)
        else:
            columns = -(-columns // 2)
    return Blocking(tiles * ROWS, columns, depth)
