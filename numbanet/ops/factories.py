"""Tensors from sizes, ranges and random numbers; in-place fillers; comparisons of whole tensors."""

from __future__ import annotations

from math import ceil, isfinite

import numpy as np

from numbanet import dtypes
from numbanet._tensor import Tensor, backend_of, tensor
from numbanet.autograd.in_place import check_in_place
from numbanet.backends.interface import order_of
from numbanet.errors import DTypeError, ShapeError, UsageError
from numbanet.ops.shape import sizes_of
from numbanet.random import next_key

__all__ = ["allclose", "arange", "bernoulli", "empty", "empty_like", "equal", "eye", "full", "full_like", "isclose",
           "linspace", "normal", "ones", "ones_like", "rand", "rand_like", "randint", "randint_like", "randn",
           "randn_like", "randperm", "zeros", "zeros_like"]


def _wrap(array, backend, requires_grad) -> Tensor:
    made = Tensor._wrap(array, backend)
    return made.requires_grad_() if requires_grad else made


def _floating(dtype) -> np.dtype:
    return dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)


def _sizes(operation: str, sizes: tuple) -> tuple[int, ...]:
    sizes = sizes_of(sizes)
    if min(sizes, default=0) < 0:
        raise ShapeError(f"{operation}: sizes expect numbers of at least 0, received {sizes}")
    return sizes


# --- constants ------------------------------------------------------------------------------------------------------

def full(size, fill_value, *, dtype=None, device=None, requires_grad=False) -> Tensor:
    """A tensor of one value; the dtype is the value's (float32, int64 or bool) unless given."""
    backend = backend_of(device)
    fill_value = fill_value.item() if hasattr(fill_value, "item") else fill_value
    dtype = dtypes.scalar_dtype(fill_value) if dtype is None else dtypes.as_dtype(dtype)
    return _wrap(backend.full(_sizes("full", (size,)), fill_value, dtype), backend, requires_grad)


def zeros(*size, dtype=None, device=None, requires_grad=False) -> Tensor:
    """A tensor of zeros."""
    backend = backend_of(device)
    return _wrap(backend.full(_sizes("zeros", size), 0, _floating(dtype)), backend, requires_grad)


def ones(*size, dtype=None, device=None, requires_grad=False) -> Tensor:
    """A tensor of ones."""
    backend = backend_of(device)
    return _wrap(backend.full(_sizes("ones", size), 1, _floating(dtype)), backend, requires_grad)


def empty(*size, dtype=None, device=None, requires_grad=False) -> Tensor:
    """A tensor of arbitrary contents."""
    backend = backend_of(device)
    return _wrap(backend.empty(_sizes("empty", size), _floating(dtype)), backend, requires_grad)


def full_like(x, fill_value, *, dtype=None, device=None, requires_grad=False) -> Tensor:
    """A tensor of one value with the shape of x, and its dtype, device and memory order unless given."""
    made = empty_like(x, dtype=dtype, device=device)
    made.backend.full(made.shape, fill_value, made.dtype, out=made.array)
    return made.requires_grad_() if requires_grad else made


def zeros_like(x, *, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Zeros like x; see :func:`full_like`."""
    return full_like(x, 0, dtype=dtype, device=device, requires_grad=requires_grad)


def ones_like(x, *, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Ones like x; see :func:`full_like`."""
    return full_like(x, 1, dtype=dtype, device=device, requires_grad=requires_grad)


def empty_like(x, *, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Arbitrary contents like x; see :func:`full_like`."""
    backend = x.backend if device is None else backend_of(device)
    dtype = x.dtype if dtype is None else dtypes.as_dtype(dtype)
    return _wrap(backend.empty(x.shape, dtype, order_of(x.array)), backend, requires_grad)


def eye(n, m=None, *, dtype=None, device=None, requires_grad=False) -> Tensor:
    """The identity matrix, or its first `m` columns."""
    if n < 0 or m is not None and m < 0:
        raise ShapeError(f"eye: n and m expect sizes of at least 0, received {n} and {m}")
    return tensor(np.eye(n, m), dtype=_floating(dtype), device=device, requires_grad=requires_grad)


# --- ranges ---------------------------------------------------------------------------------------------------------

def arange(start, end=None, step=1, *, dtype=None, device=None, requires_grad=False) -> Tensor:
    """start, start + step, ... below `end` (above it for a negative step); int64 where all three are integers."""
    start, end = (0, start) if end is None else (start, end)
    start, end, step = (v.item() if hasattr(v, "item") else v for v in (start, end, step))
    if not (isfinite(start) and isfinite(end) and isfinite(step)):
        raise UsageError(f"arange: start, end and step expect finite numbers, received {start}, {end} and {step}")
    if step == 0 or (end - start) * step < 0:
        raise UsageError(f"arange: step expects a number that leads from {start} to {end}, received {step}")
    if dtype is None:
        dtype = dtypes.int64 if all(isinstance(v, int) for v in (start, end, step)) else dtypes.get_default_dtype()
    backend = backend_of(device)
    made = backend.arange(start, step, ceil((end - start) / step), dtypes.as_dtype(dtype))
    return _wrap(made, backend, requires_grad)


def _number(value):
    """A Python number, or the element of a tensor without dimensions."""
    if isinstance(value, Tensor) and value.ndim:
        raise ShapeError(f"linspace: start and end expect numbers or tensors without dimensions, received shape {value.shape}")
    return value.item() if hasattr(value, "item") else value


def linspace(start, end, steps, *, dtype=None, device=None, requires_grad=False) -> Tensor:
    """`steps` numbers from `start` to `end`, both included, evenly spaced."""
    start, end = (_number(v) for v in (start, end))
    if not isinstance(steps, int) or steps < 0:
        raise UsageError(f"linspace: steps expects an integer of at least 0, received {steps!r}")
    return tensor(np.linspace(start, end, steps), dtype=_floating(dtype), device=device, requires_grad=requires_grad)


# --- random numbers -------------------------------------------------------------------------------------------------

def rand(*size, generator=None, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Uniform in [0, 1)."""
    backend = backend_of(device)
    made = backend.random_uniform(_sizes("rand", size), _floating(dtype), 0.0, 1.0, next_key(generator))
    return _wrap(made, backend, requires_grad)


def randn(*size, generator=None, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Normal with mean 0 and standard deviation 1."""
    backend = backend_of(device)
    made = backend.random_normal(_sizes("randn", size), _floating(dtype), 0.0, 1.0, next_key(generator))
    return _wrap(made, backend, requires_grad)


def normal(mean=0.0, std=1.0, size=None, *, generator=None, dtype=None, device=None, requires_grad=False) -> Tensor:
    """Normal with this mean and standard deviation: numbers with a `size`, or tensors that broadcast."""
    if size is None:
        shaped = mean + std
        if not isinstance(shaped, Tensor):
            raise UsageError("normal: expected size=, or a tensor as mean or std")
        return randn_like(shaped, generator=generator) * std + mean
    backend = backend_of(device)
    size = _sizes("normal", (size,))
    made = backend.random_normal(size, _floating(dtype), float(mean), float(std), next_key(generator))
    return _wrap(made, backend, requires_grad)


def randint(low, high=None, size=None, *, generator=None, dtype=None, device=None) -> Tensor:
    """Integers in low .. high - 1 (int64 unless given): ``randint(high, size)`` or ``randint(low, high, size)``."""
    if size is None:
        low, high, size = 0, low, high
    if high is None or size is None:
        raise UsageError("randint: expected (high, size) or (low, high, size)")
    backend = backend_of(device)
    size = _sizes("randint", (size,))
    made = Tensor._wrap(backend.random_integers(size, int(low), int(high), next_key(generator)), backend)
    return made if dtype is None else made.to(dtype=dtypes.as_dtype(dtype))


def randperm(n, *, generator=None, dtype=None, device=None) -> Tensor:
    """0 .. n - 1 in random order (int64 unless given)."""
    backend = backend_of(device)
    made = Tensor._wrap(backend.random_permutation(n, next_key(generator)), backend)
    return made if dtype is None else made.to(dtype=dtypes.as_dtype(dtype))


def rand_like(x, *, generator=None, dtype=None, device=None) -> Tensor:
    """Uniform in [0, 1) with the shape, dtype and device of x."""
    return empty_like(x, dtype=dtype, device=device).uniform_(generator=generator)


def randn_like(x, *, generator=None, dtype=None, device=None) -> Tensor:
    """Standard normal with the shape, dtype and device of x."""
    return empty_like(x, dtype=dtype, device=device).normal_(generator=generator)


def randint_like(x, low, high=None, *, generator=None, dtype=None, device=None) -> Tensor:
    """Integers in low .. high - 1 (or 0 .. low - 1) with the shape, dtype and device of x."""
    low, high = (0, low) if high is None else (low, high)
    dtype, device = x.dtype if dtype is None else dtype, x.device if device is None else device
    return randint(low, high, x.shape, generator=generator, dtype=dtype, device=device)


def bernoulli(x, *, generator=None) -> Tensor:
    """1 with probability x, else 0, elementwise, in x's dtype."""
    if not x.is_floating_point():
        raise DTypeError(f"bernoulli: expected probabilities in floating point, received {x.dtype}")
    return (rand_like(x.detach(), generator=generator) < x.detach()).to(dtype=x.dtype)


def _filled(x, name: str) -> Tensor:
    """x, all of whose values were replaced by numbers that depend on nothing."""
    check_in_place(name, x)
    x.storage.version += 1
    return x.detach_() if x._record is not None else x


def uniform_(x, a=0.0, b=1.0, *, generator=None) -> Tensor:
    """Fill x with uniform numbers in [a, b), in place."""
    x = _filled(x, "uniform_")
    x.backend.random_uniform(x.shape, x.dtype, float(a), float(b), next_key(generator), out=x.array)
    return x


def normal_(x, mean=0.0, std=1.0, *, generator=None) -> Tensor:
    """Fill x with normal numbers, in place."""
    x = _filled(x, "normal_")
    x.backend.random_normal(x.shape, x.dtype, float(mean), float(std), next_key(generator), out=x.array)
    return x


def bernoulli_(x, p=0.5, *, generator=None) -> Tensor:
    """Fill x with 1 with probability p (a number or a tensor that broadcasts), else 0, in place."""
    x = _filled(x, "bernoulli_")
    probabilities = p.detach().to(dtype=dtypes.float32) if isinstance(p, Tensor) else float(p)
    drawn = rand(x.shape, generator=generator, dtype=dtypes.float32, device=x.device) < probabilities
    x.backend.cast(drawn.array, x.dtype, out=x.array)
    return x


# --- of a tensor ----------------------------------------------------------------------------------------------------

def _new(function):
    def made(x, *size, dtype=None, device=None, requires_grad=False):
        return function(*size, dtype=x.dtype if dtype is None else dtype, device=x.device if device is None else device,
                        requires_grad=requires_grad)
    made.__name__ = f"new_{function.__name__}"
    made.__doc__ = f"As numbanet.{function.__name__}, with this tensor's dtype and device unless given."
    return made


def new_tensor(x, data, *, dtype=None, device=None, requires_grad=False) -> Tensor:
    """A copy of `data` with this tensor's dtype and device unless given."""
    return tensor(data, dtype=x.dtype if dtype is None else dtype, device=x.device if device is None else device,
                  requires_grad=requires_grad)


# --- comparisons of whole tensors -----------------------------------------------------------------------------------

def isclose(x, other, rtol=1e-5, atol=1e-8, equal_nan=False) -> Tensor:
    """abs(x - other) <= atol + rtol * abs(other), elementwise; infinities are close to themselves."""
    _check_tolerances(x, other, rtol, atol)
    return tensor(np.isclose(x.detach().numpy(), other.detach().numpy(), rtol, atol, equal_nan), device=x.device)


def _check_tolerances(x, other, rtol, atol) -> None:
    if not isinstance(x, Tensor) or not isinstance(other, Tensor):
        raise TypeError(f"isclose: expected two tensors, received {type(x).__name__} and {type(other).__name__}")
    if not (rtol >= 0 and atol >= 0):
        raise UsageError(f"isclose: rtol and atol expect numbers of at least 0, received {rtol} and {atol}")


def allclose(x, other, rtol=1e-5, atol=1e-8, equal_nan=False) -> bool:
    """Whether all elements are close; see :func:`isclose`."""
    _check_tolerances(x, other, rtol, atol)
    return bool(np.isclose(x.detach().numpy(), other.detach().numpy(), rtol, atol, equal_nan).all())


def equal(x, other) -> bool:
    """Whether both have one shape and equal elements."""
    return x.shape == other.shape and bool((x.detach().numpy() == other.detach().numpy()).all())


for _function in (allclose, bernoulli, bernoulli_, equal, isclose, new_tensor, normal_, uniform_):
    setattr(Tensor, _function.__name__, _function)
for _function in (empty, full, ones, zeros):
    setattr(Tensor, f"new_{_function.__name__}", _new(_function))
