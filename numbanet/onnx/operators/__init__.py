"""Every ONNX operator that numbanet knows, one file a family. Importing this package registers them."""

from numbanet.onnx.operators import (  # noqa: F401
    activation,
    convolution,
    elementwise,
    host,
    loss,
    normalization,
    pooling,
    reduction,
    resize,
    shape,
)
