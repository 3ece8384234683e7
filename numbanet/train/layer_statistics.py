"""What happens in the layers of a network while it learns, looked at once an epoch on one batch."""

from __future__ import annotations

import numpy as np

from numbanet import nn
from numbanet._tensor import Tensor
from numbanet.random import fork_rng
from numbanet.train.callbacks.callback import Callback
from numbanet.train.steps import first

SATURATED = {nn.Sigmoid: (0.01, 0.99), nn.Tanh: (-0.99, 0.99)}      # outside, a unit hardly answers to its input
RECTIFIERS = (nn.ReLU, nn.ReLU6)


def layer_statistics(model, loss, x: Tensor, y: Tensor) -> dict[str, dict]:
    """Forward and backward pass of one batch in training mode; the model, its gradients and random numbers stay as they were.

    Returns
    -------
    dict from a layer's path to ``mean`` and ``std`` of its outputs; ``stuck``, the share of dead units (a rectifier's channels that no
    sample of the batch excites) or of saturated outputs (sigmoid, tanh), None for others; ``gradient``, the norm of its parameters'
    gradients, None without parameters; all floats
    """
    found: dict[str, dict] = {}
    parts = [(path, module) for path, module in model.named_modules() if path and not list(module.children())]

    def watch(path):
        def hook(module, _inputs, output):
            if path not in found:
                found[path] = _of_outputs(module, output)
        return hook
    handles = [module.register_forward_hook(watch(path)) for path, module in parts]
    modes = [(module, module.training) for module in model.modules()]
    buffers = {name: t.detach().clone() for name, t in model.named_buffers()}
    gradients = [(p, p.grad) for p in model.parameters()]
    try:
        model.train()
        for p, _ in gradients:
            p.grad = None
        with fork_rng():
            value = loss(model(x), y)
            (value if isinstance(value, Tensor) else value[0]).backward()
        for path, module in parts:
            own = [p.grad.numpy() for p in module.parameters() if p.grad is not None]
            if path in found and own:
                found[path]["gradient"] = float(np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in own)))
    finally:
        for handle in handles:
            handle.remove()
        for p, gradient in gradients:
            p.grad = gradient
        for name, t in model.named_buffers():
            t.copy_(buffers[name])
        for module, mode in modes:
            module.training = mode
    return found


def _of_outputs(module, output) -> dict:
    values = first(output).detach().numpy()
    stuck = None
    if isinstance(module, RECTIFIERS):
        axes = tuple(axis for axis in range(values.ndim) if axis != 1)
        stuck = float((values.max(axes) <= 0).mean()) if values.size else None
    for kind, (low, high) in SATURATED.items():
        if isinstance(module, kind):
            stuck = float(((values < low) | (values > high)).mean())
    return {"mean": float(values.mean(dtype=np.float64)), "std": float(values.std(dtype=np.float64)), "stuck": stuck, "gradient": None,
            "ratio": None}


class LayerStatistics(Callback):
    """Keep :func:`layer_statistics` of one batch at the end of each epoch, the relative size of each epoch's first update
    (``ratio`` = ||change of the parameters|| / ||parameters||), and the filters of the first convolution.

    Parameters
    ----------
    x, y : Tensor
        The batch.

    Attributes
    ----------
    history : list of {"epoch": int, "layers": {path: statistics}}
    filters : list of (label, array (K, C, R, S)), from before the training on; at most `MOST_SNAPSHOTS`
    """

    MOST_SNAPSHOTS = 12

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y = x, y
        self.history: list[dict] = []
        self.filters: list[tuple[str, np.ndarray]] = []
        self._before: dict | None = None
        self._ratios: dict[str, float] = {}

    def _parameters(self) -> dict[str, np.ndarray]:
        return {name: p.detach().numpy() for name, p in self.trainer.model.named_parameters() if p.requires_grad}

    def _snapshot(self, label: str) -> None:
        convolution = next((m for m in self.trainer.model.modules() if isinstance(m, nn.Conv2d)), None)
        if convolution is not None:
            self.filters.append((label, convolution.weight.detach().numpy().copy()))
            if len(self.filters) > self.MOST_SNAPSHOTS:
                del self.filters[1:-1:2]                        # the first and the newest stay, the others thin out

    def on_train_begin(self, logs=None):
        if not self.filters and self.trainer.progress.step == 0:
            self._snapshot("before")

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self._before, self._step = {name: v.copy() for name, v in self._parameters().items()}, self.trainer.progress.step

    def on_train_batch_end(self, batch, logs=None):
        if self._before is None or self.trainer.progress.step == self._step:
            return
        norms: dict[str, list[float]] = {}
        for name, values in self._parameters().items():
            sums = norms.setdefault(name.rpartition(".")[0], [0.0, 0.0])
            sums[0] += float(np.square(values - self._before[name], dtype=np.float64).sum())
            sums[1] += float(np.square(self._before[name], dtype=np.float64).sum())
        self._ratios = {path: (change / size) ** 0.5 for path, (change, size) in norms.items() if size}
        self._before = None

    def on_epoch_end(self, epoch, logs=None):
        trainer = self.trainer
        found = layer_statistics(trainer.model, trainer.loss, self.x.to(trainer.device), self.y.to(trainer.device))
        for path, values in found.items():
            values["ratio"] = self._ratios.get(path)
        self.history.append({"epoch": epoch + 1, "layers": found})
        self._snapshot(f"epoch {epoch + 1}")

    def state_dict(self) -> dict:
        return {"history": self.history, "labels": [label for label, _ in self.filters], "filters": [f for _, f in self.filters],
                "ratios": self._ratios}

    def load_state_dict(self, state: dict) -> None:
        self.history, self.filters = list(state["history"]), list(zip(state["labels"], state["filters"], strict=True))
        self._ratios = dict(state["ratios"])
