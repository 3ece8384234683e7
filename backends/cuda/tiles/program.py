"""The tile program: the one kernel that every matrix product and every pass of convolution is built from.

    y[row, column] = epilogue(sum over k of A[row, k] * B[k, column])

A block computes a tile of `rows` x `columns`. It walks over the depth in steps; the tiles of A and B of a step are one stage in shared
memory. While a stage is multiplied, the copies of the next stages - 1 are on their way (`cp.async`), so that one barrier a step is enough:
it says that the stage to be read has arrived for all threads, and that all have finished with the stage that is filled next.

Blocks: x walks over tiles (`layout.raster_row`), y over the batch or the groups, z over splits of the depth. A split writes
its own array; `reduce.py` adds the arrays in order, so that the same bits come out of every run.

Every thread runs the same path: branches and loops depend on sizes only, what differs between threads is data and predicates. That is what
lets the emulator run this source with all threads of a block as one array.

Sources: the multi-stage pipeline and the walk over tiles as described in NVIDIA's CUTLASS documentation ("Efficient GEMM in CUDA").
"""

from __future__ import annotations

from numpy import int32, int64

from numbanet.backends.cuda.tiles import layout
from numbanet.backends.cuda.tiles.epilogue import build_epilogue
from numbanet.backends.cuda.tiles.multiply import build_multiply, fragments
from numbanet.backends.cuda.tiles.operands import build_operand
from numbanet.backends.cuda.tiles.shape import Program

# What a launch passes, in this order; see `arguments.py`. All offsets of pointers are in bytes, all others in elements.
POINTERS = ("a", "b", "y", "residual", "scale", "shift", "sums", "y_batch", "residual_batch", "y_split", "a_batch", "b_batch")   # int64
SIZES = ("rows", "columns", "depth", "depth_per_split", "pairs", "channels", "all_channels",
         "tile_columns", "raster_magic", "raster_shift", "raster_log")                                                            # int32
PARAMETERS = {"matrix": 1, "pixels": 15, "windows": 23, "filters": 9, "taps": 9}                     # int32, of operands, by source
RESULT_PARAMETERS = {"matrix": 1, "pixels": 9, "filters": 10, "partial": 1}


def build_program(program: Program, machine):
    """The kernel of a program, (pointers, sizes, limits, a parameters, b parameters, y parameters, residual parameters)."""
    tile = program.tile
    MT, NT = fragments(tile)
    tile_rows, tile_columns, tile_depth, stages = tile.rows, tile.columns, tile.depth, tile.stages
    log_depth, log_warp_columns, warp_columns = tile_depth.bit_length() - 1, tile.warp_columns.bit_length() - 1, tile.warp_columns
    a_bytes, stage_bytes, accumulator_count = tile.rows * tile.depth * tile.item, tile.stage_bytes, 4 * MT * NT
    prepare_a, issue_a, a_size = build_operand(program.a, tile, tile.rows, machine)
    prepare_b, issue_b, b_size = build_operand(program.b, tile, tile.columns, machine)
    multiply, finish = build_multiply(program, machine), build_epilogue(program, machine)
    raster_row, raster_column = machine.worker(layout.raster_row), machine.worker(layout.raster_column)
    thread_index, block_x, block_y, block_z = machine.thread_index, machine.block_x, machine.block_y, machine.block_z
    shared_memory, barrier, commit_copies, wait_copies = (
        machine.shared_memory, machine.barrier, machine.commit_copies, machine.wait_copies[stages - 2])
    cuda, float32, int32_type = machine.cuda, machine.float32, machine.int32

    def kernel(pointers, sizes, limits, a_parameters, b_parameters, y_parameters, residual_parameters):
        rows, columns, depth, depth_per_split = sizes[:4]
        thread = thread_index()
        lane, warp = int32(thread & 31), int32(thread >> 5)
        warp_row, warp_column = int32(warp >> log_warp_columns), int32(warp & (warp_columns - 1))
        tile_row = raster_row(block_x(), sizes[7], sizes[8], sizes[9], sizes[10])
        first_row = int32(tile_row * tile_rows)
        first_column = int32(raster_column(block_x(), sizes[7], sizes[8], sizes[9], sizes[10]) * tile_columns)
        if first_row >= rows:                   # the last group of the walk over tiles may be short
            return
        batch, split = block_y(), block_z()
        a_pointer = pointers[0] + int64(batch) * pointers[10]
        b_pointer = pointers[1] + int64(batch) * pointers[11]
        first = int32(split * depth_per_split)
        last = int32(min(first + depth_per_split, depth))
        steps = int32((last - first + tile_depth - 1) >> log_depth)

        accumulators = cuda.local.array(accumulator_count, float32)
        for i in range(accumulator_count):
            accumulators[i] = float32(0)
        a_state = cuda.local.array(a_size, int32_type)
        b_state = cuda.local.array(b_size, int32_type)
        prepare_a(a_state, thread, first_row, rows, a_parameters)
        prepare_b(b_state, thread, first_column, columns, b_parameters)

        shared = shared_memory()
        for stage in range(stages - 1):
            if stage < steps:
                at = int32(shared + stage * stage_bytes)
                k = int32(first + stage * tile_depth)
                issue_a(at, a_state, thread, k, last, a_pointer, a_parameters)
                issue_b(int32(at + a_bytes), b_state, thread, k, last, b_pointer, b_parameters)
            commit_copies()
        read, fill = int32(0), int32(stages - 1)
        for step in range(steps):
            wait_copies()
            barrier()
            if step + stages - 1 < steps:
                at = int32(shared + fill * stage_bytes)
                k = int32(first + (step + stages - 1) * tile_depth)
                issue_a(at, a_state, thread, k, last, a_pointer, a_parameters)
                issue_b(int32(at + a_bytes), b_state, thread, k, last, b_pointer, b_parameters)
            commit_copies()                     # an empty group keeps the count
            at = int32(shared + read * stage_bytes)
            multiply(accumulators, at, int32(at + a_bytes), warp_row, warp_column, lane)
            fill = read
            read = int32(read + 1 if read + 1 < stages else 0)
        finish(accumulators, pointers, sizes, limits, batch, split, tile_row, first_row, first_column, lane, warp_row, warp_column, shared,
               y_parameters, residual_parameters)
    kernel.__name__ = kernel.__qualname__ = program.name
    return kernel
