"""Which kernel computes a primitive, from its shapes, dtype and GPU; pure functions, each choice with its reason.

So far each primitive has one kernel. A further one (a tile program for tensor cores) is entered here by a predicate, once a recorded run
on a GPU shows that it is right and faster; whatever it does not cover stays with the direct kernels.
"""

from __future__ import annotations

from numbanet.backends.cuda import convolution_direct, matrix


def convolution(geometry, dtype, device):
    """The module whose `forward`, `backward_input` and `backward_weight` compute a convolution.

    `convolution_direct` covers every geometry and both dtypes.
    """
    return convolution_direct


def matrix_product(M: int, N: int, K: int, dtype, device):
    """The function that computes products of matrices (M, K) and (K, N); see :func:`~numbanet.backends.cuda.matrix.multiply`.

    Square tiles in shared memory cover every shape, strides and both dtypes.
    """
    return matrix.multiply
