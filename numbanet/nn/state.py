"""state_dict and load_state_dict: the parameters and persistent buffers of a module by dotted name."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from numbanet._tensor import Tensor, tensor
from numbanet.errors import CheckpointError
from numbanet.nn.parameter import Parameter


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` left out."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class StateMixin:
    """The part of :class:`numbanet.nn.Module` that hands out and takes in its state."""

    _may_be_missing: frozenset[str] = frozenset()   # own members that old checkpoints lack

    def _named_state(self, prefix: str = "") -> Iterator[tuple[str, StateMixin, str]]:
        """(dotted name, module, own name) of each member of the state; shared members under each of their names."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                yield prefix + name, self, name
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._not_persistent:
                yield prefix + name, self, name
        for name, child in self._modules.items():
            if child is not None:
                yield from child._named_state(f"{prefix}{name}.")

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> OrderedDict[str, Tensor]:
        """Parameters and persistent buffers by name. They share the module's memory: copy them to keep their values.

        With `keep_vars` the parameters themselves, which require gradients, instead of detached tensors.
        """
        state = OrderedDict()
        for key, module, name in self._named_state(prefix):
            member = getattr(module, name)
            state[key] = member if keep_vars else member.detach()
        return state

    def load_state_dict(self, state_dict: Mapping, strict: bool = True, assign: bool = False) -> IncompatibleKeys:
        """Copy values into the parameters and buffers; nothing is changed unless all of it fits.

        Parameters
        ----------
        state_dict : mapping from names to numbanet tensors, NumPy arrays or PyTorch tensors
        strict : bool
            Raise also where keys are missing or left over.
        assign : bool
            Take the tensors themselves (their dtype and device) instead of copying into the present ones.

        Returns
        -------
        IncompatibleKeys (missing_keys, unexpected_keys)

        Raises
        ------
        CheckpointError
            Lists every missing and unexpected key, and every shape that differs.
        """
        if not isinstance(state_dict, Mapping):
            raise CheckpointError(f"load_state_dict: expected a mapping from names to tensors, received "
                                  f"{type(state_dict).__name__}")
        members = {key: (module, name) for key, module, name in self._named_state()}
        missing = [key for key, (module, name) in members.items()
                   if key not in state_dict and name not in module._may_be_missing]
        unexpected = [key for key in state_dict if key not in members]
        values = {key: _on_host(key, state_dict[key]) for key in members if key in state_dict}
        different = [(key, values[key].shape, getattr(*members[key]).shape) for key in values
                     if values[key].shape != getattr(*members[key]).shape]
        if different or strict and (missing or unexpected):
            raise CheckpointError(_explain(type(self).__name__, missing if strict else [], unexpected if strict else [],
                                           different))
        for key, value in values.items():
            _put(*members[key], value, assign)
        return IncompatibleKeys(missing, unexpected)


def _on_host(key: str, value) -> Tensor | np.ndarray:
    """A tensor of ours as it is, anything else as a NumPy array."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value
    if type(value).__module__.partition(".")[0] == "torch":
        value = value.detach().cpu()
        return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    try:
        made = np.asarray(value)
    except ValueError:
        made = None
    if made is None or made.dtype.kind not in "fiub":
        raise CheckpointError(f"load_state_dict: {key} expects a tensor or an array, received {type(value).__name__}")
    return made


def _put(module, name: str, value, assign: bool) -> None:
    member = getattr(module, name)
    if assign:
        made = value.detach() if isinstance(value, Tensor) else tensor(value, device=member.device)
        setattr(module, name, Parameter(made, member.requires_grad) if isinstance(member, Parameter) else made)
        return
    backend = member.backend
    if isinstance(value, Tensor):
        value = value.array if value.backend is backend else value.detach().numpy()
    if isinstance(value, np.ndarray):
        value = backend.from_numpy(value.astype(member.dtype, copy=False))
    backend.copy(value, out=member.array)
    member.storage.version += 1


def _explain(model: str, missing: list, unexpected: list, different: list) -> str:
    lines = [f"load_state_dict: the state does not fit {model}:"]
    for key in missing:
        close = difflib.get_close_matches(key, unexpected, n=1, cutoff=0.6)
        lines.append(f"  missing {key}" + (f" (the state has {close[0]}: another name?)" if close else ""))
    for key in unexpected:
        close = difflib.get_close_matches(key, missing, n=1, cutoff=0.6)
        lines.append(f"  unexpected {key}" + (f" (did you mean {close[0]}?)" if close else ""))
    for key, received, expected in different:
        lines.append(f"  {key} expects shape {tuple(expected)}, received {tuple(received)}")
    if missing or unexpected:
        lines.append("pass strict=False to load what fits by name")
    return "\n".join(lines)
