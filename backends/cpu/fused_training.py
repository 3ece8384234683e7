"""What training fuses, on the CPU: in `normalization/batch.py` and `convolution/`."""

from numbanet.backends.cpu import convolution, normalization  # noqa: F401
