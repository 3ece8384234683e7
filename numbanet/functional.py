"""The same module as :mod:`numbanet.nn.functional`."""

import sys

from numbanet.nn import functional

sys.modules[__name__] = functional
