"""Operations: what a tensor can do. Importing this package attaches operators and methods to Tensor."""

from numbanet.ops import (  # noqa: F401
    activation,
    convolution,
    diagonal,
    dropout,
    conversion,
    elementwise,
    functions,
    factories,
    indexing,
    interchange,
    linear,
    loss,
    normalization,
    operators,
    pooling,
    printing,
    rearrange,
    shape,
)
