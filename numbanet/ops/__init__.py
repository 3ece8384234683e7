"""Operations: what a tensor can do. Importing this package attaches operators and methods to Tensor."""

from numbanet.ops import (  # noqa: F401
    activation,
    conversion,
    convolution,
    diagonal,
    dropout,
    elementwise,
    factories,
    functions,
    indexing,
    interchange,
    linear,
    loss,
    normalization,
    operators,
    pooling,
    printing,
    rearrange,
    reduction,
    shape,
    softmax,
)
