"""The SIMD vocabulary: the intrinsics, or under `NUMBA_DISABLE_JIT=1` their scalar twins."""
from numbanet.backends.cpu import hardware
from numbanet.backends.cpu.compile import JIT

if JIT:
    from numbanet.backends.cpu.simd.arithmetic import (
        absolute,
        any_lane,
        bits,
        copysign,
        floor,
        fma,
        from_bits,
        lane_indices,
        maximum,
        minimum,
        reduce_add,
        reduce_max,
        reduce_min,
        round_even,
        select,
        splat,
        splat_int,
        sqrt,
        times_power_of_two,
        to_float,
        to_int,
    )
    from numbanet.backends.cpu.simd.memory import (
        load,
        load_partial,
        load_strided,
        store,
        store_partial,
        store_streamed,
        store_strided,
        transpose_block,
    )
    from numbanet.backends.cpu.simd.tiles import tile, tile_ahead, tile_partial
else:
    from numbanet.backends.cpu.simd.scalar import (
        absolute,
        any_lane,
        bits,
        copysign,
        floor,
        fma,
        from_bits,
        lane_indices,
        load,
        load_partial,
        load_strided,
        maximum,
        minimum,
        reduce_add,
        reduce_max,
        reduce_min,
        round_even,
        select,
        splat,
        splat_int,
        sqrt,
        store,
        store_partial,
        store_streamed,
        store_strided,
        tile,
        tile_ahead,
        tile_partial,
        times_power_of_two,
        to_float,
        to_int,
        transpose_block,
    )

L = hardware.simd_width()


def tile_shapes() -> tuple[tuple[int, int], ...]:
    """The largest legal (MR, NV): accumulators, NV vectors of B and the broadcasts must fit in the registers."""
    return ((14, 2), (9, 3), (6, 4)) if hardware.vector_registers() == 32 else ((6, 2), (4, 3))


__all__ = [
    "L", "absolute", "any_lane", "bits", "copysign", "floor", "fma", "from_bits", "lane_indices", "load",
    "load_partial", "load_strided", "maximum", "minimum", "reduce_add", "reduce_max", "reduce_min", "round_even",
    "select", "splat", "splat_int", "sqrt", "store", "store_partial", "store_streamed",
    "store_strided", "tile", "tile_ahead", "tile_partial", "tile_shapes", "times_power_of_two", "to_float", "to_int", "transpose_block",
]
