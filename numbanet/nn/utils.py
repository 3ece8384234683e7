"""Gradients and parameters of a whole model: clipping, and one vector of all."""

from __future__ import annotations

from math import inf, prod

from numbanet._tensor import Tensor, tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.errors import ShapeError, UsageError

__all__ = ["clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "get_total_norm", "parameters_to_vector",
           "vector_to_parameters"]


def _gradients(parameters) -> list[Tensor]:
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p.grad for p in parameters if p.grad is not None]


def get_total_norm(tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    """The norm of all elements of all tensors together; 0 without tensors.

    Parameters
    ----------
    tensors : iterable of Tensor
    norm_type : float
        p of the p-norm: at least 1, or inf for the largest absolute value.
    error_if_nonfinite : bool
        Raise where the norm is NaN or infinite.
    """
    if not norm_type > 0:
        raise UsageError(f"get_total_norm: norm_type expects a number above 0 (or inf), received {norm_type}")
    tensors = list(tensors)
    if not tensors:
        return tensor(0.0)
    backend = tensors[0].backend
    if norm_type == 2:
        total = backend.sqrt(backend.sum_of_squares([t.array for t in tensors]))
    else:
        total = _norm_of_parts(backend, tensors, norm_type)
    norm = Tensor._wrap(total, backend)
    if error_if_nonfinite and not abs(norm.item()) < inf:
        raise UsageError(f"get_total_norm: the norm of order {norm_type} is {norm.item()}; lower the learning "
                         "rate, or pass error_if_nonfinite=False")
    return norm


def _norm_of_parts(backend, tensors, norm_type: float):
    """The norm of another order than 2, an array ()."""
    total = None
    for t in tensors:
        sizes, axes = backend.absolute(t.array), tuple(range(t.ndim))
        if norm_type == inf:
            part = backend.max_reduce(sizes, axes, False)
            total = part if total is None else backend.maximum(total, part)
        else:
            part = backend.sum(backend.power(sizes, float(norm_type)), axes, False)
            total = part if total is None else backend.add(total, part)
    return total if norm_type == inf else backend.power(total, 1.0 / norm_type)


def clip_grads_with_norm_(parameters, max_norm: float, total_norm: Tensor) -> None:
    """Multiply all gradients, in place, by max_norm / (total_norm + 1e-6) where that is below 1."""
    backend = total_norm.backend
    factor = backend.clamp(backend.divide(float(max_norm), backend.add(total_norm.array, 1e-6)), None, 1.0)
    for grad in _gradients(parameters):
        grad.backend.multiply(grad.array, factor, out=grad.array)
        grad.storage.version += 1


def clip_grad_norm_(parameters, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    """Scale the gradients, in place, so that their common norm is at most `max_norm` (Pascanu et al., 2013).

    Returns
    -------
    Tensor ()
        The norm before.

    Raises
    ------
    UsageError
        The norm is not finite, with `error_if_nonfinite`.
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    norm = get_total_norm(_gradients(parameters), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def clip_grad_value_(parameters, clip_value: float) -> None:
    """Limit each element of the gradients, in place, to [-clip_value, clip_value]."""
    for grad in _gradients(parameters):
        grad.backend.clamp(grad.array, -float(clip_value), float(clip_value), out=grad.array)
        grad.storage.version += 1


def parameters_to_vector(parameters) -> Tensor:
    """All elements of all parameters in one vector, in their order; gradients flow through it."""
    from numbanet.ops.rearrange import cat
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters) -> None:
    """Write the elements of a vector back to the parameters, in place.

    Raises
    ------
    ShapeError
        The vector has not as many elements as the parameters together.
    """
    parameters = list(parameters)
    count = sum(prod(p.shape) for p in parameters)
    if vec.shape != (count,):
        raise ShapeError(f"vector_to_parameters: vec expects shape ({count},), received {vec.shape}")
    begin = 0
    with no_grad():
        for p in parameters:
            part = vec[begin:begin + p.numel()].reshape(p.shape)
            p.backend.copy(part.array, out=p.array)
            p.storage.version += 1
            begin += p.numel()
