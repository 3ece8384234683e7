"""Forward and backward pass of one batch, and inference of one batch: replayed from plans, or recorded anew."""

from __future__ import annotations

from contextlib import nullcontext

import numbanet
from numbanet._tensor import Tensor
from numbanet.amp import GradScaler, autocast
from numbanet.autograd.grad_mode import no_grad
from numbanet.errors import UnsupportedOperationError

MAX_KINDS = 8               # of inputs (sizes, dtypes) with plans of their own; each holds memory


def first(outputs) -> Tensor:
    """The logits; auxiliary heads follow."""
    if isinstance(outputs, Tensor):
        return outputs
    return next(iter(outputs.values())) if isinstance(outputs, dict) else outputs[0]


class EagerSteps:
    """Each batch is recorded on the tape."""

    def __init__(self, model, loss, optimizer, precision: str | None = None, scaler: GradScaler | None = None):
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.precision, self.scaler = precision, scaler
        self.callbacks: list = []

    def forward_backward(self, x, y):
        """(loss, first output); gradients are added to the parameters'."""
        with self._autocast():
            loss, outputs = self._loss_and_outputs(self.model(x), y)
        if self.scaler is None:
            loss.backward()
        else:
            self._backward_scaled(loss)
        for callback in self.callbacks:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    callback(parameter)
        return loss, outputs

    def _autocast(self):
        return nullcontext() if self.precision is None else autocast(dtype=self.precision)

    def _backward_scaled(self, loss) -> None:
        """The gradients are multiplied by the scale on their way, and divided at their end."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        before = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        self.scaler.scale(loss).backward()
        with no_grad():
            for p, old in zip(parameters, before):
                if p.grad is not None:
                    p.grad.mul_(1.0 / self.scaler.get_scale())
                if old is not None:
                    p.grad = old if p.grad is None else old.add_(p.grad)

    def look_at_gradients(self) -> None:
        """Before they are clipped, which would hide one that is not finite: whether the update will be made."""
        if self.scaler is not None:
            self.scaler.are_unscaled(self.optimizer)

    def update(self) -> None:
        """One step of the optimiser, unless float16 has made a gradient that is not finite."""
        if self.scaler is None:
            self.optimizer.step()
            return
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _loss_and_outputs(self, outputs, y):
        loss = self.loss(outputs, y)
        return (loss if isinstance(loss, Tensor) else loss[0]), first(outputs)

    def infer(self, x):
        """The first output, in evaluation mode."""
        with no_grad(), self._autocast():
            return first(self.model(x))

    def choices(self) -> dict[str, str] | None:
        """The algorithms that plans take in place of the backend's own choice; None: no plan has been made."""
        return None

    def set_choices(self, choices: dict[str, str] | None) -> None:
        """Let all plans take these: a run that goes on takes what it took."""

    def on_gradient(self, callback) -> None:
        """Call `callback(parameter)` as soon as its gradient is whole; here that is after the whole backward pass."""
        self.callbacks.append(callback)


class CompiledSteps(EagerSteps):
    """Plans, one for each kind of batch, that are made when it first comes.

    All take the same choices of algorithms: what was measured on this machine when the first was made, or what :meth:`set_choices` gave.
    """

    def __init__(self, model, loss, optimizer, precision: str | None = None, scaler: GradScaler | None = None):
        super().__init__(model, loss, optimizer, precision, scaler)
        self._choices: dict[str, str] | None = None
        self._training: dict = {}
        self._inference: dict = {}

    def forward_backward(self, x, y):
        key = x.shape[1:], x.dtype, y.shape[1:], y.dtype
        step = self._training.get(key)
        if step is None:
            try:
                step = numbanet.compile(self.model, (x, y), loss=self._loss_and_outputs, optimizer=self.optimizer,
                                        choices=self._choices, precision=self.precision, scaler=self.scaler)
            except UnsupportedOperationError as error:
                raise UnsupportedOperationError(f"{error}. The training step of {type(self.model).__name__} cannot be compiled: --eager "
                                                "(compiled=False) records each step anew") from error
            self._choices = step.choices
            for callback in self.callbacks:
                step.on_gradient(callback)
            _keep(self._training, key, step)
        return step.forward_backward(x, y)

    def infer(self, x):
        key = x.shape[1:], x.dtype
        model = self._inference.get(key)
        if model is None:
            model = _keep(self._inference, key, numbanet.compile(self.model, x, choices=self._choices, precision=self.precision))
            self._choices = model.choices
        return first(model(x))

    def choices(self):
        return self._choices

    def set_choices(self, choices):
        if choices is not None and not (isinstance(choices, dict) and all(isinstance(v, str) for v in choices.values())):
            raise TypeError(f"choices of algorithms: expected a table of names, received {type(choices).__name__}")
        self._choices = choices
        self._training.clear()
        self._inference.clear()

    def on_gradient(self, callback) -> None:
        """Call `callback(parameter)` in the backward pass as soon as its gradient is whole."""
        self.callbacks.append(callback)
        for step in self._training.values():
            step.on_gradient(callback)


def _keep(plans: dict, key, made):
    if len(plans) >= MAX_KINDS:
        plans.pop(next(iter(plans)))
    plans[key] = made
    return made
