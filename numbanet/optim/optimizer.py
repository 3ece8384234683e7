"""What all optimisers share: groups of parameters, state, and their dictionaries."""

from __future__ import annotations

import copy
from collections import defaultdict

from numbanet._tensor import Tensor, tensor
from numbanet.autograd.grad_mode import enable_grad, no_grad
from numbanet.errors import BackendError, CheckpointError, UsageError


class Optimizer:
    """Base of all optimisers.

    A subclass passes its options with their defaults, and implements ``update(parameter, grad, state, group)``: change
    the parameter's array in place, through one primitive. Or, where one call of a primitive serves many parameters, it
    implements ``update_all(parameters, grads, states, group)``.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of groups
        A group is a dict with ``params`` and options of its own.
    defaults : dict
        The options of groups that give none.

    Attributes
    ----------
    param_groups : list of dict
    state : dict from parameter to its own state: a dict of tensors and numbers

    Raises
    ------
    UsageError
        No parameters, one given twice, one that is no leaf, or an option out of range.
    """

    def __init__(self, params, defaults: dict):
        if isinstance(params, Tensor):
            raise UsageError(f"{type(self).__name__}: params expects an iterable of tensors, received a single one; "
                             "pass [tensor]")
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict] = defaultdict(dict)
        self.param_groups: list[dict] = []
        groups = list(params)
        if not groups:
            raise UsageError(f"{type(self).__name__}: params is empty; a generator such as model.parameters() can be "
                             "read only once")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, group: dict) -> None:
        """Add parameters with options of their own: ``{"params": [...], "lr": 0.01}``."""
        group = dict(group)
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        if any(isinstance(p, tuple) for p in params):
            group["param_names"], params = [name for name, _ in params], [p for _, p in params]
        group["params"] = params
        unknown = set(group) - set(self.defaults) - {"params", "param_names", "initial_lr", "name"}
        if unknown:
            raise UsageError(f"{type(self).__name__}: unknown option(s) {sorted(unknown)} in a parameter group; it "
                             f"takes {list(self.defaults)}")
        for name, default in self.defaults.items():
            group.setdefault(name, default)
        self._check_options(group)
        self._check_params(params)
        self.param_groups.append(group)

    def _check_params(self, params: list) -> None:
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for position, p in enumerate(params):
            if not isinstance(p, Tensor):
                raise UsageError(f"{type(self).__name__}: params[{position}] expects a Tensor, received "
                                 f"{type(p).__name__}")
            if not p.is_leaf:
                raise UsageError(f"{type(self).__name__}: params[{position}] of shape {p.shape} is the result of an "
                                 "operation; only leaves (parameters) can be optimised")
            if id(p) in known:
                raise UsageError(f"{type(self).__name__}: params[{position}] of shape {p.shape} is given twice")
            known.add(id(p))

    def _check_options(self, group: dict) -> None:
        """Raise where an option is out of range; tensors of one element become numbers."""
        for name, value in group.items():
            if isinstance(value, Tensor) and name != "params":
                group[name] = value.item()
        for name in ("lr", "eps", "weight_decay", "momentum", "alpha"):
            if name in group and not group[name] >= 0:
                raise UsageError(f"{type(self).__name__}: {name} expects a number of at least 0, "
                                 f"received {group[name]}")

    def step(self, closure=None):
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss again, with its gradients; its result is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                self._update_group(group)
        return loss

    def _update_group(self, group: dict) -> None:
        """Update the parameters of a group that have a gradient, those of one device and dtype together."""
        together: dict[tuple, tuple[list, list, list]] = {}
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            backend = p.backend
            if grad.backend is not backend:
                raise BackendError(f"{type(self).__name__}: the gradient lies on {grad.backend.name!r}, "
                                   f"its parameter on {backend.name!r}; move the model before backward()")
            key = backend, p.array.dtype
            if key not in together:
                together[key] = [], [], []
            parameters, grads, states = together[key]
            parameters.append(p)
            grads.append(grad.array)
            states.append(self.state[p])
        for parameters, grads, states in together.values():
            self.update_all(parameters, grads, states, group)
            for p in parameters:
                p.storage.version += 1

    def update_all(self, parameters: list[Tensor], grads: list, states: list[dict], group: dict) -> None:
        """Change the arrays of parameters, all of one device and dtype, by their gradients' arrays; a state is empty at first."""
        for parameter, grad, state in zip(parameters, grads, states):
            self.update(parameter, grad, state, group)

    def update(self, parameter: Tensor, grad, state: dict, group: dict) -> None:
        """Change `parameter.array` by the gradient's array `grad`; `state` is empty at the first call."""
        raise NotImplementedError(f"{type(self).__name__} implements update(parameter, grad, state, group)")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, or fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.backend.full(p.grad.shape, 0.0, p.grad.dtype, out=p.grad.array)
                    p.grad.storage.version += 1

    def state_dict(self) -> dict:
        """``{"state": {index: ...}, "param_groups": [...]}``, parameters replaced by their index, as in PyTorch.

        Tensors are not copied.
        """
        index = {id(p): i for i, p in enumerate(self._all_params())}
        groups = [{k: v for k, v in group.items() if k != "params"}
                  | {"params": [index[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {"state": {index[id(p)]: dict(s) for p, s in self.state.items() if s}, "param_groups": groups}

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore what :meth:`state_dict` gave; tensors are copied to their parameter's device and dtype.

        Raises
        ------
        CheckpointError
            The groups or their sizes differ.
        """
        saved = state_dict["param_groups"]
        sizes, expected = [len(g["params"]) for g in saved], [len(g["params"]) for g in self.param_groups]
        if sizes != expected:
            raise CheckpointError(f"{type(self).__name__}.load_state_dict: expected parameter groups of sizes "
                                  f"{expected}, received {sizes}")
        by_index = dict(zip([i for g in saved for i in g["params"]], self._all_params()))
        state = defaultdict(dict)
        for i, values in state_dict["state"].items():
            p = by_index.get(i, by_index.get(int(i)))
            if p is None:
                raise CheckpointError(f"{type(self).__name__}.load_state_dict: state of parameter {i}, but the groups "
                                      f"name only {sorted(by_index)}")
            state[p] = {name: self._restored(name, value, p) for name, value in values.items()}
        for group, old in zip(self.param_groups, saved):
            group.update({k: copy.deepcopy(v) for k, v in old.items() if k not in ("params", "param_names")})
        self.state = state

    def _restored(self, name: str, value, p: Tensor):
        if name == "step":
            return int(value)
        if not hasattr(value, "shape"):
            return value
        if tuple(value.shape) != p.shape:
            raise CheckpointError(f"{type(self).__name__}.load_state_dict: {name} expects shape {p.shape}, received "
                                  f"{tuple(value.shape)}")
        return tensor(value, dtype=p.dtype, device=p.device)

    def _all_params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __getstate__(self) -> dict:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {v}" for k, v in sorted(group.items()) if k not in ("params", "param_names")]
        return "\n".join([*lines, ")"])


def zeros_like(parameter: Tensor) -> Tensor:
    """A state tensor: zeros of the parameter's shape, dtype and device."""
    backend = parameter.backend
    return Tensor._wrap(backend.full(parameter.shape, 0.0, parameter.dtype), backend)


def arrays(tensors) -> list:
    """What primitives take: the tensors' arrays."""
    return [t.array for t in tensors]


def alike(keys: list, *lists: list):
    """Yield (key, lists of those that have it) for each key; almost always there is one key, and the lists are whole."""
    if all([key == keys[0] for key in keys]):
        yield keys[0], *lists
        return
    for wanted in dict.fromkeys(keys):
        yield wanted, *[[x for key, x in zip(keys, values) if key == wanted] for values in lists]
