"""Keeping the code of a worker compact.

LLVM inlines workers into the kernel and unrolls their small loops, where its later passes take time that grows faster
than the code. A worker that says `compact()` is compiled as its author wrote it: not inlined, its loops not unrolled.
That saves a quarter of the time to compile the kernels of this folder; tiles and SIMD intrinsics lose nothing by it.
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
