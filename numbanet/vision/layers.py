"""Layers of a network by name, and what they compute of a batch."""

from __future__ import annotations

import difflib
import time
from contextlib import contextmanager
from dataclasses import dataclass

from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.errors import UsageError
from numbanet.nn import Module
from numbanet.nn.layers.convolution import Conv2d


@dataclass
class Activation:
    """What one call of a layer gave: its path and class, its inputs, its output, and the seconds from call to result."""

    path: str
    module: Module
    inputs: tuple
    output: Tensor
    seconds: float

    @property
    def kind(self) -> str:
        return self.module._get_name()

    @property
    def is_map(self) -> bool:
        """Whether the output has positions: (N, C, H, W) with more than one of them."""
        return self.output.ndim == 4 and self.output.shape[2] * self.output.shape[3] > 1


def layer_names(model: Module) -> list[str]:
    """The paths of all modules below `model`."""
    return [name for name, _ in model.named_modules() if name]


def find_layer(model: Module, path: str) -> Module:
    """The module of that path.

    Raises
    ------
    UsageError
        There is none; the message tells the nearest names.
    """
    modules = dict(model.named_modules())
    if path and path in modules:
        return modules[path]
    names = [name for name in modules if name]
    if not names:
        raise UsageError(f"layer {path!r} does not exist: {type(model).__name__} has no layers inside")
    close = difflib.get_close_matches(path, names, 3, cutoff=0.5)
    close += [name for name in names if path and name.endswith(f".{path}") and name not in close]
    hint = f"did you mean {', '.join(close[:4])}?" if close else f"its layers are {_listed(names)}"
    raise UsageError(f"layer {path!r} does not exist in {type(model).__name__}; {hint}")


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:6])} ... {', '.join(names[-5:])} ({len(names)} in all)"


@contextmanager
def hooks(model: Module, hook, pre_hook=None, paths=None):
    """Call ``hook(path, module, inputs, output)`` after each of the modules of `paths` (by default those without children)."""
    handles = []
    try:
        for path, module in model.named_modules():
            if path in paths if paths is not None else path and next(module.children(), None) is None:
                if pre_hook is not None:
                    handles.append(module.register_forward_pre_hook(lambda m, i, path=path: pre_hook(path, m, i)))
                handles.append(module.register_forward_hook(lambda m, i, o, path=path: hook(path, m, i, o)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def record_activations(model: Module, x: Tensor, paths=None) -> tuple[list[Activation], object]:
    """Run the network once, in evaluation mode and without a tape, and keep what its layers gave.

    Parameters
    ----------
    x : Tensor (N, C, H, W)
    paths : collection of str, optional
        Of which modules; by default all that have no modules inside.

    Returns
    -------
    (list of Activation in the order of their completion, the network's output)
        A layer that runs twice appears twice. Outputs that are no tensor are left out.
    """
    for path in paths or ():
        find_layer(model, path)
    with evaluating(model), no_grad(), recording(model, paths) as found:
        output = model(x)
    return found, output


@contextmanager
def recording(model: Module, paths=None):
    """A list that fills with the Activation of every layer that runs inside of the block, without tapes."""
    found, started = [], {}

    def before(path, _module, _inputs):
        started[path] = time.perf_counter()

    def after(path, module, inputs, output):
        seconds, output = time.perf_counter() - started[path], only(output)
        if isinstance(output, Tensor):
            inputs = tuple(i.detach() if isinstance(i, Tensor) else i for i in inputs)
            found.append(Activation(path, module, inputs, output.detach(), seconds))

    with hooks(model, after, before, paths):
        yield found


def only(output):
    """The tensor that stands alone in a tuple, as nodes of imported models give it."""
    tensors = [o for o in output if isinstance(o, Tensor)] if isinstance(output, tuple) else []
    return tensors[0] if len(tensors) == 1 else output


@contextmanager
def evaluating(model: Module):
    """In evaluation mode, then as before."""
    modes = [(module, module.training) for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def is_convolution(module: Module) -> bool:
    """Whether a module is a convolution over planes, of ours or of an imported model."""
    return isinstance(module, Conv2d) or module._get_name() == "Conv"


def last_maps(model: Module, x: Tensor) -> str:
    """The layer to explain a classifier with: where the trunk ends, which is the last that still knows positions.

    Raises
    ------
    UsageError
        The network has no convolution, or none of its maps has positions.
    """
    if not any(is_convolution(module) for module in model.modules()):
        raise UsageError(f"Grad-CAM expects a network with convolutions, {type(model).__name__} has none; use saliency, "
                         "integrated-gradients or occlusion")
    stages = getattr(model, "stages", ())
    if stages:
        return stages[-1].module
    maps = [a.path for a in record_activations(model, x)[0] if a.is_map]
    if not maps:
        raise UsageError(f"Grad-CAM expects a layer whose output has positions, {type(model).__name__} has none for an input of "
                         f"{tuple(x.shape)}; use saliency, integrated-gradients or occlusion")
    return maps[-1]
