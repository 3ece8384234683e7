"""Between K planes of columns and columns of K neighbouring numbers, a vector of columns at a time."""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu.compile import JIT
from numbanet.backends.cpu.simd import L, load, load_partial, store, store_partial

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic

    from numbanet.backends.cpu.simd.memory import (
        first_lanes,
        load_masked,
        load_value,
        pointer,
        store_masked,
        store_value,
    )
    from numbanet.backends.cpu.simd.types import I32, I64, f32xL

    def _picked(builder, vectors, places):
        """The vector whose lane j is number `places[j]` of the joined `vectors`: each is blended in by one permutation."""
        result = ir.Constant(vectors[0].type, ir.Undefined)
        for i, vector in enumerate(vectors):
            lanes = [L + place % L if place // L == i else j for j, place in enumerate(places)]
            if any(lane >= L for lane in lanes):
                result = builder.shuffle_vector(result, vector, ir.Constant(ir.VectorType(I32, L), lanes))
        return result

    @intrinsic(prefer_literal=True)
    def interleave(typingctx, K, source, offset, row, target, target_offset, count):
        """target[target_offset + j * K + k] = source[offset + k * row + j] for j < L; only the first `count` are written."""
        if not isinstance(K, types.IntegerLiteral):
            return None
        planes = K.literal_value

        def codegen(context, builder, sig, args):
            read = pointer(context, builder, sig.args[1], *args[1:3])
            write = pointer(context, builder, sig.args[4], *args[4:6])
            vectors = [load_value(builder, f32xL, builder.gep(read, [builder.mul(args[3], I64(k))])) for k in range(planes)]
            # first pairs of neighbours, L / 2 columns a vector, then groups of K: half of the permutations of one step
            pairs = [[_picked(builder, vectors[k:k + 2], [j % 2 * L + half * L // 2 + j // 2 for j in range(L)])
                      for k in range(0, planes, 2)] for half in (0, 1)] if planes % 2 == 0 else ()
            for p in range(planes):
                if pairs:
                    numbers = range(p % (planes // 2) * L, p % (planes // 2) * L + L)
                    places = [i % planes // 2 * L + i // planes * 2 + i % 2 for i in numbers]
                    value = _picked(builder, pairs[p // (planes // 2)], places)
                else:
                    value = _picked(builder, vectors, [i % planes * L + i // planes for i in range(p * L, p * L + L)])
                mask = first_lanes(builder, builder.sub(args[6], I64(p * L)))
                store_masked(builder, f32xL, builder.gep(write, [I64(p * L)]), value, mask)
            return context.get_dummy_value()
        return types.void(K, source, types.int64, types.int64, target, types.int64, types.int64), codegen

    @intrinsic(prefer_literal=True)
    def deinterleave(typingctx, K, source, offset, count, target, target_offset, row):
        """target[target_offset + k * row + j] = source[offset + j * K + k] for j < L, 0 for numbers from `count` on; K is even."""
        if not isinstance(K, types.IntegerLiteral) or K.literal_value % 2:
            return None
        planes = K.literal_value

        def codegen(context, builder, sig, args):
            read = pointer(context, builder, sig.args[1], *args[1:3])
            write = pointer(context, builder, sig.args[4], *args[4:6])
            vectors = [load_masked(builder, f32xL, builder.gep(read, [I64(p * L)]),
                                   first_lanes(builder, builder.sub(args[3], I64(p * L)))) for p in range(planes)]
            half = planes // 2
            for k in range(0, planes, 2):
                places = [j // 2 * planes + k + j % 2 for j in range(L)]
                pairs = [_picked(builder, vectors[first:first + half], places) for first in (0, half)]
                for odd in (0, 1):
                    value = _picked(builder, pairs, [2 * j + odd for j in range(L)])
                    store_value(builder, builder.gep(write, [builder.mul(args[6], I64(k + odd))]), value)
            return context.get_dummy_value()
        return types.void(K, source, types.int64, types.int64, target, types.int64, types.int64), codegen
else:
    def interleave(K, source, offset, row, target, target_offset, count):
        """The scalar twin."""
        numbers = np.stack([load(source, offset + k * row) for k in range(K)], axis=1).ravel()
        for p in range(K):
            store_partial(target, target_offset + p * L, numbers[p * L:(p + 1) * L], count - p * L)

    def deinterleave(K, source, offset, count, target, target_offset, row):
        """The scalar twin."""
        numbers = np.concatenate([load_partial(source, offset + p * L, count - p * L) for p in range(K)])
        for k in range(K):
            store(target, target_offset + k * row, numbers[k::K])
