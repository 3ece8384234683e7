"""An exponential moving average of a model: e = decay * e + (1 - decay) * p after each step (Polyak and Juditsky, 1992)."""

from __future__ import annotations

from contextlib import contextmanager

from numbanet._tensor import Tensor, tensor
from numbanet.errors import CheckpointError, UsageError


class ExponentialMovingAverage:
    """Averages of a model's parameters and floating-point buffers; other buffers are the model's own.

    Parameters
    ----------
    model : Module
    decay : float
        Between 0 and 1: about 1 / (1 - decay) steps are averaged.
    """

    def __init__(self, model, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise UsageError(f"ExponentialMovingAverage: decay expects a number from 0 to below 1, received {decay}")
        self.model, self.decay = model, decay
        self.averages = {name: t.detach().clone() for name, t in model.state_dict().items() if t.is_floating_point()}
        # Where the live tensors stand: walking through the modules at each step would cost more than the averaging.
        registries = {f"{path}.{name}" if path else name: (registry, name) for path, module in model.named_modules()
                      for registry in (module._parameters, module._buffers) for name in registry}
        self._places = [(average, *registries[name]) for name, average in self.averages.items()]

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return [(average, registry[name]) for average, registry, name in self._places]

    def update(self) -> None:
        """Take the model's present values in."""
        together: dict[tuple, tuple[list, list]] = {}
        for average, value in self._pairs():
            averages, values = together.setdefault((average.backend, average.dtype), ([], []))
            averages.append(average)
            values.append(value)
        for (backend, _), (averages, values) in together.items():
            # e -= lr * (g + weight_decay * e) with g = p, lr = decay - 1 and weight_decay = -1 is the average, all tensors in one call
            backend.sgd_update([t.array for t in averages], [t.array for t in values], [], self.decay - 1.0, 0.0, 0.0, -1.0, False, 1.0)
            for t in averages:
                t.storage.version += 1

    @contextmanager
    def applied(self):
        """The model has the averages inside, and its own values again after."""
        self._swap()
        try:
            yield self.model
        finally:
            self._swap()

    def _swap(self) -> None:
        for average, value in self._pairs():
            kept = value.backend.copy(value.array)
            value.backend.copy(average.array, out=value.array)
            average.backend.copy(kept, out=average.array)
            value.storage.version += 1
            average.storage.version += 1

    def averaged_state_dict(self) -> dict[str, Tensor]:
        """The model's state_dict with the averages in it."""
        return {**self.model.state_dict(), **self.averages}

    def state_dict(self) -> dict:
        return {"decay": self.decay, "averages": dict(self.averages)}

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` gave."""
        found = state["averages"]
        if found.keys() != self.averages.keys():
            raise CheckpointError(f"ExponentialMovingAverage: expected averages of {len(self.averages)} tensors, received "
                                  f"{len(found)} others")
        self.decay = state["decay"]
        for name, average in self.averages.items():
            average.copy_(tensor(found[name], dtype=average.dtype, device=average.device))
