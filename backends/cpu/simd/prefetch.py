"""Asking for a cache line before it is needed, where the hardware does not foresee it: short pieces of distant rows, the next page."""

from __future__ import annotations

from numbanet.backends.cpu.compile import JIT

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    from numbanet.backends.cpu.simd.memory import pointer

    I32 = ir.IntType(32)
    DATA, NEAREST, SECOND = I32(1), I32(3), I32(2)

    def prefetch_value(builder: ir.IRBuilder, address: ir.Value, for_writing: bool = False, level=NEAREST) -> None:
        """Fetch the line of an address into the first-level cache, or the second."""
        byte_pointer = ir.IntType(8).as_pointer()
        function_type = ir.FunctionType(ir.VoidType(), [byte_pointer, I32, I32, I32])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        builder.call(function, [builder.bitcast(address, byte_pointer), I32(int(for_writing)), level, DATA])

    @intrinsic
    def prefetch(typingctx, array, offset):
        """Fetch the line of an element; an address outside of the array does no harm."""
        if not isinstance(array, types.Array):
            return None

        def codegen(context, builder, sig, args):
            prefetch_value(builder, pointer(context, builder, sig.args[0], *args))
            return context.get_dummy_value()
        return types.void(array, types.int64), codegen
else:
    def prefetch(array, offset):
        """The scalar twin: nothing to do."""
