"""Modules and parameters in sequences and mappings."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from itertools import islice

from numbanet._tensor import Tensor
from numbanet.errors import UsageError
from numbanet.nn.joined import can_join, forward_joined
from numbanet.nn.module import Module
from numbanet.nn.parameter import Parameter


def _position(index, length: int, kind: str) -> int:
    index = operator.index(index)
    if not -length <= index < length:
        raise IndexError(f"{kind}: index {index} is out of range; it has {length} members")
    return index % length


class _ModuleSequence(Module):
    """What Sequential and ModuleList share: children under the names "0", "1", ... (or given ones), in order."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules.values())

    def _name_at(self, index) -> str:
        position = _position(index, len(self), type(self).__name__)
        return next(islice(self._modules, position, None))

    def __setitem__(self, index, module: Module) -> None:
        self.register_module(self._name_at(index), module)

    def __delitem__(self, index) -> None:
        for name in list(self._modules)[index] if isinstance(index, slice) else [self._name_at(index)]:
            del self._modules[name]
        self._renumber(list(self._modules.items()))

    def _renumber(self, items: list) -> None:
        """Number the children anew where all of them are numbered; given names stay."""
        numbered = all(name.isdecimal() for name, _ in items)
        self._modules.clear()
        for position, (name, module) in enumerate(items):
            self._modules[str(position) if numbered else name] = module

    def append(self, module: Module):
        self.register_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]):
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module):
        if not isinstance(module, Module):
            raise TypeError(f"insert: expected a Module, received {type(module).__name__}")
        if not -len(self) <= index <= len(self):
            raise IndexError(f"{type(self).__name__}: index {index} is out of range; it has {len(self)} members")
        items = list(self._modules.items())
        items.insert(index, (str(len(items)), module))
        self._renumber(items)
        return self

    def pop(self, index=-1) -> Module:
        module = self._modules[self._name_at(index)]
        del self[index]
        return module

    def __add__(self, other):
        if not isinstance(other, type(self)):
            return NotImplemented
        return type(self)()._filled([*self, *other])

    def __iadd__(self, other):
        return self.extend(other)

    def _filled(self, modules):
        return self.extend(modules)


class Sequential(_ModuleSequence):
    """Modules applied one after the other. Arguments: modules, or one ordered mapping of names to modules.

    Conv2d or Linear with a ReLU behind it, and Conv2d, ReLU and MaxPool2d, run as one operation: the same numbers, without
    maps between them in memory (`joined.py`).
    """

    def __init__(self, *modules):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.register_module(name, module)
        else:
            for position, module in enumerate(modules):
                self.register_module(str(position), module)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return type(self)(dict(list(self._modules.items())[index]))
        return self._modules[self._name_at(index)]

    def forward(self, x):
        if can_join(x):
            return forward_joined(list(self._modules.values()), x)
        for module in self._modules.values():
            x = module(x)
        return x


class ModuleList(_ModuleSequence):
    """A list of modules whose parameters are the owner's. It has no `forward`."""

    def __init__(self, modules: Iterable[Module] = ()):
        super().__init__()
        self.extend(modules)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return type(self)(list(self._modules.values())[index])
        return self._modules[self._name_at(index)]


class ModuleDict(Module):
    """Modules by name, in insertion order. It has no `forward`."""

    def __init__(self, modules: Mapping[str, Module] | Iterable | None = None):
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.register_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules)

    def __contains__(self, key) -> bool:
        return key in self._modules

    def keys(self):
        return self._modules.keys()

    def values(self):
        return self._modules.values()

    def items(self):
        return self._modules.items()

    def clear(self) -> None:
        self._modules.clear()

    def pop(self, key: str) -> Module:
        return self._modules.pop(key)

    def update(self, modules: Mapping[str, Module] | Iterable) -> None:
        for key, module in modules.items() if isinstance(modules, (Mapping, ModuleDict)) else modules:
            self[key] = module


def _as_parameter(value) -> Parameter:
    if isinstance(value, Parameter):
        return value
    if isinstance(value, Tensor):
        return Parameter(value)
    raise UsageError(f"expected a Parameter or a Tensor, received {type(value).__name__}")


class ParameterList(Module):
    """A list of parameters; tensors become parameters."""

    def __init__(self, values: Iterable = ()):
        super().__init__()
        self.extend(values)

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self):
        return iter(self._parameters.values())

    def __getitem__(self, index):
        if isinstance(index, slice):
            return type(self)(list(self._parameters.values())[index])
        return self._parameters[str(_position(index, len(self), "ParameterList"))]

    def __setitem__(self, index, value) -> None:
        self.register_parameter(str(_position(index, len(self), "ParameterList")), _as_parameter(value))

    def append(self, value):
        self.register_parameter(str(len(self)), _as_parameter(value))
        return self

    def extend(self, values: Iterable):
        for value in values:
            self.append(value)
        return self

    def __iadd__(self, values: Iterable):
        return self.extend(values)

    def extra_repr(self) -> str:
        return _parameter_lines(self)


class ParameterDict(Module):
    """Parameters by name; tensors become parameters."""

    def __init__(self, values: Mapping | Iterable | None = None):
        super().__init__()
        if values is not None:
            self.update(values)

    def __getitem__(self, key: str) -> Parameter:
        return self._parameters[key]

    def __setitem__(self, key: str, value) -> None:
        self.register_parameter(key, _as_parameter(value))

    def __delitem__(self, key: str) -> None:
        del self._parameters[key]

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self):
        return iter(self._parameters)

    def __contains__(self, key) -> bool:
        return key in self._parameters

    def keys(self):
        return self._parameters.keys()

    def values(self):
        return self._parameters.values()

    def items(self):
        return self._parameters.items()

    def pop(self, key: str) -> Parameter:
        return self._parameters.pop(key)

    def update(self, values: Mapping | Iterable) -> None:
        for key, value in values.items() if isinstance(values, (Mapping, ParameterDict)) else values:
            self[key] = value

    def extra_repr(self) -> str:
        return _parameter_lines(self)


def _parameter_lines(module: Module) -> str:
    return "\n".join(f"({name}): Parameter of shape {tuple(p.shape)}, {p.dtype}"
                     for name, p in module._parameters.items())
