"""Spreading lanes of a vector over their neighbours, and picking every other one."""

from __future__ import annotations

import llvmlite.ir as ir
import numpy as np
from numba import types
from numba.extending import intrinsic

from numbanet.backends.cpu.compile import JIT
from numbanet.backends.cpu.simd import L

if JIT:
    from numbanet.backends.cpu.simd.types import I32, f32xL

    @intrinsic(prefer_literal=True)
    def spread(typingctx, vector, width, index):
        """Lane i receives lane `index` of its group of `width` lanes; both are literal."""
        if vector != f32xL or not (isinstance(width, types.IntegerLiteral) and isinstance(index, types.IntegerLiteral)):
            return None
        group, chosen = min(width.literal_value, L), index.literal_value

        def codegen(context, builder, sig, args):
            lanes = [lane // group * group + chosen % group for lane in range(L)]
            return builder.shuffle_vector(args[0], args[0], ir.Constant(ir.VectorType(I32, L), lanes))
        return f32xL(vector, width, index), codegen

    @intrinsic(prefer_literal=True)
    def every_other(typingctx, a, b, first):
        """Lanes first, first + 2, ... of two joined vectors; `first` is 0 or 1, literal."""
        if a != f32xL or b != f32xL or not isinstance(first, types.IntegerLiteral):
            return None
        begin = first.literal_value

        def codegen(context, builder, sig, args):
            lanes = ir.Constant(ir.VectorType(I32, L), list(range(begin, 2 * L, 2)))
            return builder.shuffle_vector(args[0], args[1], lanes)
        return f32xL(a, b, first), codegen
else:
    def spread(vector, width, index):
        """Lane i receives lane `index` of its group of `width` lanes."""
        lanes = np.arange(L)
        return vector[lanes // width * width + index]

    def every_other(a, b, first):
        """Lanes first, first + 2, ... of two joined vectors."""
        return np.concatenate([a, b])[first::2]
