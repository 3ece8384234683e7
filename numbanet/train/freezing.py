"""Fine-tuning: which layers learn, and how fast.

A frozen layer has no gradients and stays in evaluation mode, as in Keras: batch norm uses its running statistics and keeps them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from numbanet import nn
from numbanet.errors import UsageError


def freeze(module: nn.Module) -> nn.Module:
    """No gradients, and evaluation mode, for a module and all below, until :func:`unfreeze`."""
    return _set(module, True)


def unfreeze(module: nn.Module) -> nn.Module:
    """The inverse of :func:`freeze`; the module is in training mode then."""
    return _set(module, False)


def _set(module: nn.Module, frozen: bool) -> nn.Module:
    for part in module.modules():
        part.frozen = frozen
    module.requires_grad_(not frozen)
    return module.train(not frozen)


def freeze_until(model: nn.Module, name: str) -> list[str]:
    """Freeze all that a model registers before the layer `name`, which learns, as all after it.

    Parameters
    ----------
    model : Module
    name : str
        The path of a layer or block: ``"layer4"``, ``"features.10"``.

    Returns
    -------
    list of str : the paths that were frozen

    Raises
    ------
    UsageError
        There is no such layer.
    """
    path_of = {id(module): path for path, module in model.named_modules()}
    if not name or name not in path_of.values():
        close = difflib.get_close_matches(name, path_of.values(), 1)
        hint = f"; did you mean {close[0]}?" if close else f"; its first level is {', '.join(n for n, _ in model.named_children())}"
        raise UsageError(f"freeze_until: {type(model).__name__} has no layer {name!r}{hint}")
    frozen: list[str] = []
    module, path = model, ""
    for step in name.split("."):                            # down to the layer: what stands before it on each level
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
        for child_name, child in module.named_children():
            if child_name == step:
                break
            freeze(child)
            frozen.append(f"{path}{child_name}")
        module, path = getattr(module, step), f"{path}{step}."
    return frozen


def parameter_groups(model: nn.Module, lr: float, *, layer_lr: Mapping[str, float] | None = None, weight_decay: float | None = None,
                     norm_weight_decay: float | None = None, bias_weight_decay: float | None = None) -> list[dict]:
    """Groups for an optimiser: parameters that learn, by rate and weight decay.

    Parameters
    ----------
    model : Module
    lr : float
        Of all that `layer_lr` does not name.
    layer_lr : dict of path -> factor of `lr`
        Of a layer and all below; the longest path that fits counts.
    weight_decay : float, optional
        By default the optimiser's.
    norm_weight_decay, bias_weight_decay : float, optional
        Of the parameters of normalisation layers, and of biases; by default as all others.

    Raises
    ------
    UsageError
        A path that names no layer, or nothing that learns.
    """
    layer_lr = dict(layer_lr or {})
    known = {path for path, _ in model.named_modules()}
    for path in layer_lr:
        if path not in known:
            close = difflib.get_close_matches(path, known, 1)
            raise UsageError(f"layer_lr: {type(model).__name__} has no layer {path!r}" + (f"; did you mean {close[0]}?" if close else ""))
    groups: dict[tuple, dict] = {}
    for path, module in model.named_modules():
        factor = next((layer_lr[p] for p in sorted(layer_lr, key=len, reverse=True) if path == p or path.startswith(p + ".")), 1.0)
        normalises = "Norm" in type(module).__name__ and not isinstance(module, nn.Sequential)
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            decay = weight_decay
            if normalises and norm_weight_decay is not None:
                decay = norm_weight_decay
            elif not normalises and name == "bias" and bias_weight_decay is not None:
                decay = bias_weight_decay
            options = {} if decay is None else {"weight_decay": decay}
            group = groups.setdefault((factor, decay), {"params": [], "lr": lr * factor, **options})
            if not any(parameter is p for p in group["params"]):        # shared by two layers
                group["params"].append(parameter)
    if not groups:
        raise UsageError(f"parameter_groups: no parameter of {type(model).__name__} learns; all are frozen")
    return list(groups.values())
