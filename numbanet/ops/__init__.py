"""Operations: what a tensor can do. Importing this package attaches operators and methods to Tensor."""

from numbanet.ops import (  # noqa: F401
    activation,
    convolution,
    diagonal,
    dropout,
    elementwise,
    factories,
    indexing,
    interchange,
    linear,
    loss,
    pooling,
    printing,
    rearrange,
    shape,
)
