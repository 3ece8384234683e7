"""What training fuses, on the CPU: in `normalization/batch.py`, `convolution/` and `linear_gradient.py`."""

from numbanet.backends.cpu import convolution, linear_gradient, normalization  # noqa: F401
