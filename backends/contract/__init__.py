"""Every primitive of numbanet, one file per family, under the same names as in `reference/`, `cpu/` and `ops/`."""

from numbanet.backends.contract import (  # noqa: F401
    activation,
    convolution,
    elementwise,
    loss,
    pooling,
    shape,
)
