"""Backends: where arrays live and kernels run. `reference` is plain NumPy, `cpu` is Numba, `cuda` is Numba on GPUs.

Outside packages add one through the entry-point group ``numbanet.backends``: the name is the device, the object a function
that returns a :class:`~numbanet.backends.interface.Backend`.
"""

from __future__ import annotations

import importlib
from threading import RLock

if __name__ != "numbanet.backends":
    raise ImportError("import numbanet.backends, not backends: the folder is mapped into the package numbanet")

from numbanet.backends.interface import (  # noqa: E402
    PRIMITIVES,
    Array,
    Arrays,
    ArraySpec,
    Backend,
    Implementations,
    Primitive,
    Scalar,
    channels_last,
    dense_strides,
    like,
    order_of,
    primitive,
)
from numbanet.errors import BackendError  # noqa: E402

__all__ = ["PRIMITIVES", "Array", "ArraySpec", "Arrays", "Backend", "Implementations", "Primitive", "Scalar", "available_backends",
           "channels_last", "dense_strides", "get_backend", "like", "order_of", "primitive", "register_backend", "register_primitive"]

_OWN = {"reference": "numbanet.backends.reference", "cpu": "numbanet.backends.cpu"}
_CUDA = "numbanet.backends.cuda"      # one backend a GPU: "cuda:0", "cuda:1", ...; "cuda" is the first
_factories: dict[str, object] = {}
_instances: dict[str, Backend] = {}
_attached: dict[str, dict] = {}       # backend name -> primitives attached by users, kept for backends created later
_lock = RLock()


def get_backend(name: str) -> Backend:
    """The backend of a device name ("cpu", "reference", ...), created on first use.

    Raises
    ------
    BackendError
        Where it is unknown or cannot run here; the message says why and what is available.
    """
    instance = _instances.get(name)
    return instance if instance is not None else _create(str(name))


def _create(name: str) -> Backend:
    with _lock:
        if name in _instances:
            return _instances[name]
        base = name.partition(":")[0]
        if name not in _names() and base != "cuda":
            raise BackendError(f"device {name!r}: no such backend; numbanet knows {', '.join(sorted(_names()))}")
        try:
            instance = importlib.import_module(_CUDA).create(name) if base == "cuda" else _find_factory(name)()
        except BackendError:
            raise
        except Exception as error:          # whatever a foreign package, or an import that lacks a library, does
            raise BackendError(f"device {name!r}: the backend cannot be loaded ({type(error).__name__}: {error})") from error
        for primitive_name, function in _attached.get(base, {}).items():
            instance.implementations(function, primitive_name)
        _instances[name] = instance
        return instance


def _find_factory(name: str):
    if name in _factories:
        return _factories[name]
    if name in _OWN:
        return importlib.import_module(_OWN[name]).create
    return next(p for p in _entry_points() if p.name == name).load()


def _entry_points():
    from importlib.metadata import entry_points
    return entry_points(group="numbanet.backends")


def _names() -> set[str]:
    return {*_OWN, "cuda", *_factories, *(p.name for p in _entry_points())}


def available_backends() -> dict[str, str]:
    """Every known backend by name, with "" where it works and the reason where it does not."""
    result = {}
    for name in sorted(_names()):
        try:
            get_backend(name)
            result[name] = ""
        except BackendError as error:
            result[name] = str(error)
    return result


def register_backend(name: str, factory) -> None:
    """Add a backend from Python: `factory()` returns it on first use. A name can be taken once."""
    with _lock:
        if name in _names():
            raise BackendError(f"backend {name!r}: the name is taken")
        _factories[name] = factory


def register_primitive(name: str, backend: str):
    """Attach an own kernel: decorate a function of the primitive's parameters and `out` (see `interface.py`).

    The primitive is one of numbanet's or was declared with :func:`primitive`. Replacing a kernel takes effect at once.
    """
    def attach(function):
        with _lock:
            mine = [instance for device, instance in _instances.items() if device.partition(":")[0] == backend]
            for table in {id(i.implementations): i.implementations for i in mine}.values() or [Implementations(backend)]:
                table(function, name)                     # checks name and signature now, not at the first call
            _attached.setdefault(backend, {})[name] = function
            for instance in mine:
                instance.__dict__.pop(name, None)
        return function
    return attach


importlib.import_module("numbanet.backends.contract")     # declares every primitive
