"""numbanet: convolutional networks on Numba kernels.

Public names are loaded when they are first used, so importing the package takes milliseconds and compiles nothing.
"""

from __future__ import annotations

import importlib
import os

from numbanet._version import __version__

# In a clone, Python may find this folder while `backends/` lies beside it and not inside (the package maps it there).
_parent = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if not os.path.isdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "backends")) and os.path.isfile(
        os.path.join(_parent, "backends", "interface.py")):
    __path__.append(_parent)

_MODULES = ("autograd", "backends", "data", "dtypes", "errors", "functional", "geometry", "graph", "nn", "ops", "optim", "random",
            "train", "vision", "zoo", "weights")
_NAMES = {
    "numbanet._tensor": ("Tensor", "as_tensor", "device", "from_numpy", "get_default_device", "set_default_device", "tensor"),
    "numbanet.dtypes": ("bool", "bfloat16", "double", "float16", "float32", "float64", "get_default_dtype", "half", "int32", "int64",
                        "long", "promote", "result_type", "set_default_dtype", "uint8"),
    "numbanet.autograd": ("enable_grad", "inference_mode", "is_grad_enabled", "no_grad", "set_grad_enabled"),
    "numbanet.errors": ("AutogradError", "BackendError", "CheckpointError", "DataError", "DTypeError", "NumbanetError", "ShapeError",
                        "UnsupportedOperationError", "UsageError"),
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names}
__all__ = ["__version__", *_MODULES, *_WHERE]


def __getattr__(name: str):
    if name in _WHERE:
        importlib.import_module("numbanet.ops")             # attaches the operators to Tensor
        value = getattr(importlib.import_module(_WHERE[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"numbanet.{name}")
    else:
        raise AttributeError(f"module 'numbanet' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
