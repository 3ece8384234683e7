"""What inference fuses, on the CPU: see `contract/fused.py`. The convolution's is in `convolution/`."""

from __future__ import annotations

from numbanet.backends.cpu.registry import implements
from numbanet.backends.reference import fused as numpy

implements(numpy.batch_norm_scale_shift)        # a few thousand numbers, once a plan
implements(numpy.fold_batch_norm)
