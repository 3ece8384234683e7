"""The table of this backend's primitives; every module here adds its own with @implements."""

from numbanet.backends.interface import Implementations

implements = Implementations("cuda")
