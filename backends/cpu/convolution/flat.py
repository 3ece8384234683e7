"""An array of any strides as one run of memory, for kernels whose operands lie now in one array and now in another.

Offsets count elements from the array's first one in memory, as in the SIMD vocabulary; nothing checks them.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cpu.compile import JIT

if JIT:
    import llvmlite.ir as ir
    from numba import types
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array, populate_array

    def _flat(array: types.Array, readonly: bool):
        """The signature and code of a function that gives the array as one run; it does not keep the memory alive."""
        if not isinstance(array, types.Array):
            return None
        made = types.Array(array.dtype, 1, "C", readonly=readonly)

        def codegen(context, builder, sig, args):
            source, result = make_array(array)(context, builder, args[0]), make_array(made)(context, builder)
            size = context.get_abi_sizeof(context.get_data_type(array.dtype))
            integer = context.get_value_type(types.intp)
            populate_array(result, data=source.data, shape=[source.nitems], strides=[ir.Constant(integer, size)],
                           itemsize=ir.Constant(integer, size), meminfo=None)
            return result._getvalue()
        return made(array), codegen

    @intrinsic
    def flat_to_read(typingctx, array):
        """The array's memory, to be read; `size` is the array's."""
        return _flat(array, True)

    @intrinsic
    def flat_to_write(typingctx, array):
        """The array's memory, to be read and written; `size` is the array's."""
        return None if isinstance(array, types.Array) and not array.mutable else _flat(array, False)
else:
    def flat_to_read(array):
        """The scalar twin."""
        extent = 1 + sum((n - 1) * (s // array.itemsize) for n, s in zip(array.shape, array.strides)) if array.size else 0
        return np.lib.stride_tricks.as_strided(array, (extent,), (array.itemsize,))

    flat_to_write = flat_to_read
