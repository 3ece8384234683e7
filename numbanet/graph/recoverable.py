"""Tensors whose array is not there, and is computed back when somebody asks for it.

Such a tensor is of a class of its own, below the one it had: `array` is a property there, which computes the array, gives the tensor
its class back, and returns it. All that does anything with a tensor asks for `array` first, and no other tensor pays for it. Its shape
and dtype are known without.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable

from numbanet._tensor import Tensor
from numbanet.backends import Backend

_slot = Tensor.array                    # where the class below has a property
_lock = threading.RLock()               # who holds it may change what stands in the slot of a tensor without its array
_classes: dict[type, type] = {}


class Recoverable:
    """In place of an array: what is known of it, and how to compute it.

    Attributes
    ----------
    was_asked : bool
        Whether somebody but a plan wanted the array.
    """

    __slots__ = ("shape", "dtype", "strides", "nbytes", "compute", "was_asked")

    def __init__(self, array, compute: Callable[[], object] | None = None):
        self.shape, self.dtype, self.strides, self.nbytes = tuple(array.shape), array.dtype, tuple(array.strides), array.nbytes
        self.compute, self.was_asked = compute, False


class Later:
    """In place of the array that a graph was traced with: the one that its tensor has when somebody needs it.

    Parameters
    ----------
    find : function of no arguments that gives the tensor
    """

    __slots__ = ("find",)

    def __init__(self, find: Callable[[], Tensor]):
        self.find = find

    @property
    def array(self):
        return self.find().array


class _Like:
    """What the methods of `Tensor` that look at shapes need of a tensor."""

    def __init__(self, tensor):
        self.array = _slot.__get__(tensor)


class _Absent:
    """The part that classes of tensors without their array have in common."""

    __slots__ = ()

    @property
    def array(self):
        return _bring_back(self, True)

    @array.setter
    def array(self, array):
        with _lock:
            _slot.__set__(self, array)
            self.__class__ = _class_of(self)

    def __deepcopy__(self, memo):
        _bring_back(self, True)
        return copy.deepcopy(self, memo)

    def __reduce_ex__(self, protocol):
        _bring_back(self, True)
        return self.__reduce_ex__(protocol)


def _of_shape(name: str):
    """What `Tensor` has under this name, which looks at the shape or dtype alone."""
    of = getattr(Tensor, name)
    if isinstance(of, property):
        return property(lambda self: of.fget(_Like(self)))
    return lambda self, *given, **named: of(_Like(self), *given, **named)


for _name in ("shape", "dtype", "ndim", "size", "dim", "numel", "nelement", "ndimension", "element_size", "stride", "is_floating_point",
              "__len__"):
    setattr(_Absent, _name, _of_shape(_name))
_Absent.nbytes = property(lambda self: _slot.__get__(self).nbytes)


def _class_of(tensor: Tensor) -> type:
    """The class that a tensor has with its array."""
    return type(tensor).__bases__[1] if isinstance(tensor, _Absent) else type(tensor)


def _absent_class(cls: type) -> type:
    if cls not in _classes:
        _classes[cls] = type(cls.__name__, (_Absent, cls), {"__slots__": (), "__module__": cls.__module__, "__doc__": cls.__doc__,
                                                           "__qualname__": cls.__qualname__})
    return _classes[cls]


def _bring_back(tensor: Tensor, is_asked: bool):
    """The array, which is then the tensor's again."""
    with _lock:
        found = _slot.__get__(tensor)
        if isinstance(found, Recoverable):
            array = found.compute()
            found.was_asked |= is_asked
            tensor.array = found = array
        return found


def held(tensor: Tensor):
    """The array of a tensor, or the Recoverable in its place."""
    return _slot.__get__(tensor)


def put(tensor: Tensor, found) -> None:
    """Give a tensor what `held` gave."""
    if isinstance(found, Recoverable):
        with _lock:
            tensor.__class__ = _absent_class(_class_of(tensor))
            _slot.__set__(tensor, found)
    else:
        tensor.array = found


def fetch(tensor: Tensor):
    """The array of a tensor, for somebody who will send it away again."""
    return _bring_back(tensor, False)


def send_away(tensor: Tensor, backend: Backend, make: Callable[[object], Callable | Recoverable | None]) -> Recoverable | None:
    """Let a tensor's array go, if nobody else holds it.

    Parameters
    ----------
    make : function of the array
        It gives what computes the array again, or a Recoverable that stood in its place before; None where the array has to stay.
    """
    cls = type(tensor)
    with _lock:
        if isinstance(tensor, _Absent):
            return None
        holder, found = [tensor.array], None
        try:
            tensor.__class__ = _absent_class(cls)       # whoever asks now waits for the lock
        except TypeError:                               # a class with a layout of its own
            return None
        _slot.__set__(tensor, Recoverable(holder[0]))
        try:
            if backend.is_unshared(holder, 0) and (made := make(holder[0])) is not None and backend.is_unshared(holder, 0):
                found = made if isinstance(made, Recoverable) else Recoverable(holder[0], made)
                _slot.__set__(tensor, found)
        finally:
            if found is None:
                tensor.array = holder[0]
        return found


if hasattr(os, "register_at_fork"):                     # a child has no tensor that is half sent away
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
