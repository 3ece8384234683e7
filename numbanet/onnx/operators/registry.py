"""Which function computes which ONNX operator, since which opset.

An operator is one function of a :class:`NodeInfo` and its operands. Two kinds exist:

- `@operator`: on Tensors, so it runs on every backend, traces and has gradients. Operands in `host` positions arrive as NumPy arrays.
- `@host_operator`: NumPy in, NumPy out. Where an operator has both kinds, the host one is its *twin*: it computes shape arithmetic, and the
  dtypes that tensors lack (int8, uint16, ...).

Absent optional operands are None. A function returns one value, or a tuple with one value for each of the node's outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numbanet.errors import UsageError

STANDARD_DOMAIN = ""


@dataclass(slots=True)
class NodeInfo:
    """What an operator knows of its node.

    Attributes
    ----------
    op_type, name, domain : as in the file
    attributes : dict of name -> int, float, str, bytes, NumPy array (of tensors), or list of these
    version : the opset of the operator's domain
    outputs : names of the outputs; "" where one is not wanted
    device : where tensors are
    training : whether the model is in training mode
    """

    op_type: str
    name: str
    attributes: dict
    version: int
    outputs: tuple[str, ...]
    domain: str = STANDARD_DOMAIN
    device: str = "cpu"
    training: bool = False

    def wants(self, position: int) -> bool:
        """Whether the output of this position is asked for."""
        return position < len(self.outputs) and bool(self.outputs[position])

    def __str__(self):
        return f"{self.op_type} {self.name!r}" if self.name else self.op_type


@dataclass(frozen=True, slots=True)
class Operator:
    """One registered function."""

    op_type: str
    since: int
    function: Callable
    domain: str = STANDARD_DOMAIN
    on_host: bool = False
    host: tuple[int, ...] = ()      # operand positions that arrive as NumPy arrays
    state: tuple[int, ...] = ()     # operand positions that training changes, such as running statistics
    reads_metadata: bool = False    # operands are not looked at, only their shapes: no copy from a device


_TENSOR: dict[tuple[str, str], list[Operator]] = {}
_HOST: dict[tuple[str, str], list[Operator]] = {}


def _register(table, entry: Operator) -> None:
    versions = table.setdefault((entry.domain, entry.op_type), [])
    if any(other.since == entry.since for other in versions):
        raise UsageError(f"operator: {entry.op_type} since {entry.since} is registered already")
    versions.append(entry)
    versions.sort(key=lambda other: -other.since)


def operator(op_type: str, since: int = 1, host=(), state=(), domain: str = STANDARD_DOMAIN):
    """Register a function on tensors for an operator, from opset `since` on, until a newer one is registered.

    Parameters
    ----------
    host : operand positions that arrive as NumPy arrays (shapes, axes, sizes)
    state : operand positions of running statistics: buffers, which training updates, instead of parameters
    """
    def decorate(function):
        _register(_TENSOR, Operator(op_type, since, function, domain, host=tuple(host), state=tuple(state)))
        return function
    return decorate


def host_operator(op_type: str, since: int = 1, domain: str = STANDARD_DOMAIN, reads_metadata: bool = False):
    """Register a function on NumPy arrays.

    With `reads_metadata` operands are tensors or arrays of which only shape and dtype may be read.
    """
    def decorate(function):
        _register(_HOST, Operator(op_type, since, function, domain, on_host=True, reads_metadata=reads_metadata))
        return function
    return decorate


def _newest(table, domain: str, op_type: str, version: int) -> Operator | None:
    return next((entry for entry in table.get((domain, op_type), ()) if entry.since <= version), None)


def tensor_operator(domain: str, op_type: str, version: int) -> Operator | None:
    """The newest function on tensors that is not above `version`."""
    return _newest(_TENSOR, domain, op_type, version)


def host_twin(domain: str, op_type: str, version: int) -> Operator | None:
    """The newest function on NumPy arrays that is not above `version`."""
    return _newest(_HOST, domain, op_type, version)


def registered() -> dict[str, list[Operator]]:
    """All operators by name, for tables."""
    found: dict[str, list[Operator]] = {}
    for table in (_TENSOR, _HOST):
        for (_, op_type), entries in table.items():
            found.setdefault(op_type, []).extend(entries)
    return dict(sorted(found.items()))
