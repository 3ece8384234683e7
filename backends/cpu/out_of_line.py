"""`out_of_line()`: keeps a large worker one function, whoever calls it.

LLVM would copy a worker that is called at two places into both, and again into the parallel loop's function: a switch over
twenty SIMD functions took 7 s to compile that way, and takes 2 s as a function of its own. A call costs some nanoseconds.
"""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from numbanet.backends.cpu.compile import JIT

if JIT:
    @intrinsic
    def out_of_line(typingctx):
        """First statement of a worker: it is never inlined."""
        def codegen(context, builder, sig, args):
            builder.function.attributes.add("noinline")
            return context.get_dummy_value()
        return types.void(), codegen
else:
    def out_of_line():
        """The scalar twin: Python inlines nothing."""
