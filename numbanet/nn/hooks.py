"""Hooks of modules around their gradients.

A module with a full backward hook wraps its inputs and its outputs in an identity on the tape. The identity behind the
outputs sees the gradients of all outputs at once, the one before the inputs those of all inputs.
"""

from __future__ import annotations

from numbanet._tensor import Tensor
from numbanet.autograd.operation import Operation


class _Boundary(Operation):
    """The identity of several tensors, which shows their gradients to `on_backward` and passes on what it returns."""

    operation_name = "module boundary"

    def forward(self, backend, on_backward, *arrays):
        self.save(on_backward)
        return arrays

    def backward(self, backend, *gradients, needs):
        on_backward, = self.saved
        seen = on_backward(tuple(Tensor._wrap(g, backend) for g in gradients))
        return tuple(g.array if g is not None else None for g in seen)


def _through_boundary(values: tuple, on_backward) -> tuple:
    """`values` with the tensors among them passed through one boundary."""
    tensors = [v for v in values if _is_differentiable(v)]
    if not any(t.requires_grad for t in tensors):
        return values
    passed = _Boundary.apply(on_backward, *tensors)
    for made, original in zip(passed, tensors):
        made.storage = original.storage         # the same memory, so the same version
    passed = iter(passed)
    return tuple(next(passed) if _is_differentiable(v) else v for v in values)


def _is_differentiable(value) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


class BackwardHooks:
    """One call of a module with full backward hooks: wraps its inputs, then its outputs."""

    def __init__(self, module, pre_hooks, hooks):
        self.module, self.pre_hooks, self.hooks = module, list(pre_hooks.values()), list(hooks.values())
        self.grad_outputs: tuple | None = None
        self.input_count = 0
        self.inputs_differentiable = False

    def wrap_inputs(self, args: tuple) -> tuple:
        self.input_count = sum(map(_is_differentiable, args))
        self.inputs_differentiable = any(_is_differentiable(a) and a.requires_grad for a in args)
        return _through_boundary(args, self._at_inputs) if self.hooks else args

    def wrap_outputs(self, result):
        if isinstance(result, tuple):
            wrapped = _through_boundary(tuple(result), self._at_outputs)
            return type(result)(*wrapped) if hasattr(result, "_fields") else wrapped
        return _through_boundary((result,), self._at_outputs)[0]

    def _at_outputs(self, gradients: tuple) -> tuple:
        for hook in self.pre_hooks:
            gradients = _replaced(hook(self.module, gradients), gradients)
        self.grad_outputs = gradients
        if not self.inputs_differentiable:      # no gradient will ever reach the inputs' boundary
            for hook in self.hooks:
                hook(self.module, (None,) * self.input_count, gradients)
        return gradients

    def _at_inputs(self, gradients: tuple) -> tuple:
        for hook in self.hooks:
            gradients = _replaced(hook(self.module, gradients, self.grad_outputs), gradients)
        return gradients


def _replaced(result, gradients: tuple) -> tuple:
    if result is None:
        return gradients
    return result if isinstance(result, tuple) else (result,)
