"""state_dict and load_state_dict: the parameters and persistent buffers of a module by dotted name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from numbanet._tensor import Tensor, from_numpy
from numbanet.errors import CheckpointError
from numbanet.nn.matching import explain, without_prefix
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

        A prefix that all names share and that stands for a wrapper (``module.``, ``_orig_mod.``, ``model.``) is left out where the
        names fit without it. Values are converted to the dtypes of the members, so that weights stored in half precision load.

        Parameters
        ----------
        state_dict : mapping from names to numbanet tensors, NumPy arrays or PyTorch tensors
        strict : bool
            Raise also where keys are missing or left over.
        assign : bool
            Take tensors themselves (their dtype and device) instead of copying into the present ones. NumPy arrays of a member's dtype
            are adopted without a copy where the device is the host: changing one changes the other.

        Returns
        -------
        IncompatibleKeys (missing_keys, unexpected_keys)

        Raises
        ------
        CheckpointError
            Lists the missing and unexpected keys, with those that look alike, and the shapes that differ, with the likely reason.
        """
        if not isinstance(state_dict, Mapping):
            raise CheckpointError(f"load_state_dict: expected a mapping from names to tensors, received "
                                  f"{type(state_dict).__name__}")
        members = {key: (module, name) for key, module, name in self._named_state()}
        state_dict = without_prefix(state_dict, members)
        missing = [key for key, (module, name) in members.items()
                   if key not in state_dict and name not in module._may_be_missing]
        unexpected = [key for key in state_dict if key not in members]
        values = {key: _on_host(key, state_dict[key]) for key in members if key in state_dict}
        different = [(key, values[key].shape, getattr(*members[key]).shape) for key in values
                     if values[key].shape != getattr(*members[key]).shape]
        if different or strict and (missing or unexpected):
            raise CheckpointError(explain(type(self).__name__, missing if strict else [], unexpected if strict else [], different))
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
        if not isinstance(value, Tensor):       # kernels read contiguous, aligned arrays, and training writes to them
            value = from_numpy(np.require(value, member.dtype, ["C", "A", "W", "E"]), member.device)
        value = value.detach()
        setattr(module, name, Parameter(value, member.requires_grad) if isinstance(member, Parameter) else value)
        return
    backend = member.backend
    if isinstance(value, Tensor):
        value = value.array if value.backend is backend else value.detach().numpy()
    if isinstance(value, np.ndarray):
        value = backend.from_numpy(value.astype(member.dtype, copy=False))
    backend.copy(value, out=member.array)
    member.storage.version += 1
