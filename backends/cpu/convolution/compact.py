"""Keeping the code of a worker compact.

Numba optimises a parallel kernel and all it calls four times over (worker, loop body, two wrappers), and each time LLVM
unrolls small loops again and inlines more, until a kernel whose parts compile in tenths of a second takes ten. A worker
that says `compact()` is compiled as its author wrote it: not inlined into its callers, its loops not unrolled. Tiles
and SIMD intrinsics lose nothing by it.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from numbanet.backends.cpu.compile import JIT

if JIT:
    @intrinsic
    def compact(typingctx):
        """Mark the function that calls this: LLVM neither inlines it nor unrolls its loops."""
        def codegen(context, builder, sig, args):
            builder.function.attributes.add("noinline")
            builder.function.attributes.add("optsize")
            return context.get_dummy_value()
        return types.void(), codegen
else:
    def compact():
        """Nothing to mark."""
