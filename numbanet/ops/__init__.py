"""Operations: what a tensor can do. Importing this package attaches operators and methods to Tensor."""

from numbanet.ops import activation, convolution, elementwise, linear, loss, pooling, shape  # noqa: F401
