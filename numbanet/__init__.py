"""numbanet: convolutional networks on Numba kernels.

Public names are loaded when they are first used, so importing the package takes milliseconds and compiles nothing.
"""

from __future__ import annotations

import importlib
import os

from numbanet._names import MODULES, WHERE
from numbanet._version import __version__

# In a clone, Python may find this folder while `backends/` lies beside it and not inside (the package maps it there).
_parent = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if not os.path.isdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "backends")) and os.path.isfile(
        os.path.join(_parent, "backends", "interface.py")):
    __path__.append(_parent)

__all__ = ["__version__", *MODULES, *WHERE]


def __getattr__(name: str):
    if name in WHERE:
        importlib.import_module("numbanet.ops")             # attaches the operators to Tensor
        value = getattr(importlib.import_module(WHERE[name]), name)
    elif name in MODULES:
        value = importlib.import_module(f"numbanet.{name}")
    else:
        from numbanet.absent import explain
        raise explain("numbanet", name, __all__)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
