"""Mixed precision: which operations compute with 16-bit operands inside of `numbanet.amp.autocast`, and who casts; per thread.

The lists follow what PyTorch's users know: products of matrices and convolutions take 16 bits; what sums or exponentiates takes float32;
everything else takes what comes, the widest where operands differ. Casts are operations of the tape, so that gradients come back in the
dtype of the parameters.
"""

from __future__ import annotations

import threading

import numpy as np

from numbanet._tensor import Tensor
from numbanet.dtypes import is_floating_point, promote

FLOAT32 = np.dtype(np.float32)
IN_16_BITS = {"conv2d", "conv2d_relu", "conv2d_relu_max_pool2d", "conv_transpose2d", "linear", "linear_relu", "matmul"}
IN_FLOAT32 = {"cross_entropy", "cumsum", "exp", "expm1", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "log", "log1p",
              "log_softmax", "logsigmoid", "mean", "norm", "pow", "prod", "rsqrt", "softmax", "softplus", "sum", "var"}
# Batch norm reads 16-bit maps beside float32 weights and statistics; the others say themselves what dtype they give.
AS_THEY_ARE = {"batch_norm", "copy", "fill", "host", "index_put", "module boundary", "slice_put", "sync_batch_norm", "to"}


class _State(threading.local):
    dtype: np.dtype | None = None


state = _State()


def cast_arguments(operation: type, arguments: tuple) -> tuple:
    """The arguments of `Operation.apply`, tensors of devices that compute with 16 bits cast as the operation wants them."""
    tensors = [a for a in arguments if isinstance(a, Tensor) and is_floating_point(a.array.dtype)]
    name = getattr(operation, "operation_name", None) or operation.__name__
    if not tensors or not isinstance(name, str) or name in AS_THEY_ARE or not all(t.backend.computes_16_bit for t in tensors):
        return arguments
    dtypes = {t.array.dtype for t in tensors}
    if name in IN_16_BITS:
        wanted = state.dtype
    elif name in IN_FLOAT32 or name.endswith("_loss"):
        wanted = FLOAT32
    elif len(dtypes) > 1:
        wanted = None
        for dtype in dtypes:
            wanted = dtype if wanted is None else promote(wanted, dtype)
    else:
        return arguments
    if any(d.itemsize == 8 for d in dtypes) and wanted is not None and wanted.itemsize < 8:
        return arguments                                    # float64 is asked for on purpose
    return tuple(a.to(wanted) if isinstance(a, Tensor) and is_floating_point(a.array.dtype) and a.array.dtype != wanted else a
                 for a in arguments)
