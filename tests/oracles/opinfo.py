"""Runs samples of PyTorch's operator database (OpInfo) on numbanet and compares values, dtypes and gradients.

An entry of the database concerns us where numbanet has a function or a method of its name. The signatures are PyTorch's, so a sample's
arguments are only converted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np

import numbanet
import numbanet.nn.functional as F
from numbanet import Tensor
from tests.oracles.opinfo_reasons import NOT_RUN, is_drawn, reason_of

DEVICE = os.environ.get("NUMBANET_TEST_BACKENDS", "cpu").split()[-1]            # where samples run


def _index_put(x, indices, values, accumulate=False):
    if accumulate:
        raise numbanet.UnsupportedOperationError("index_put: accumulate=True")
    y = x.clone()
    y[tuple(indices)] = values
    return y


# Entries whose name here is another one, or that are called as methods.
_CALLS: dict[str, Callable] = {
    "constant_pad_nd": lambda x, pad, value=0: F.pad(x, pad, "constant", value),
    "nn.functional.upsample_bilinear": lambda x, **kwargs: F.interpolate(x, mode="bilinear", align_corners=True, **kwargs),
    "nn.functional.upsample_nearest": lambda x, **kwargs: F.interpolate(x, mode="nearest", **kwargs),
    "split_with_sizes": lambda x, sizes, dim=0: numbanet.split(x, sizes, dim),
    "index_put": _index_put,
    "__rdiv__": Tensor.__rtruediv__,
    "normal.in_place": lambda x, *args, **kwargs: x.clone().normal_(*args, **kwargs),
    "zero_": lambda x: x.clone().zero_(),
    "where": lambda x, condition, other: numbanet.where(condition, x, other),
    "__getitem__": lambda x, *key: x[key[0] if len(key) == 1 else key],
}


@cache
def database() -> dict:
    """OpInfo entries with float32 samples by name."""
    import torch
    from torch.testing._internal.common_methods_invocations import op_db
    return {op.name + (f".{op.variant_test_name}" if op.variant_test_name else ""): op for op in op_db if torch.float32 in op.dtypes}


def call_of(name: str) -> Callable | None:
    """Our function for an entry: by its full name, or without the variant's (`norm.inf`)."""
    if name in _CALLS:
        return _CALLS[name]
    _, functional, last = name.rpartition("nn.functional.")
    last = last.partition(".")[0]
    if functional:
        return getattr(F, last, None)
    if "." in name and name.partition(".")[0] in ("linalg", "special", "masked", "signal", "fft", "torch"):
        return None
    if last in numbanet.__all__ and callable(value := getattr(numbanet, last)):
        return value
    method = getattr(Tensor, last, None) if last not in vars(object) else None
    return method if callable(method) else (lambda x: getattr(x, last)) if isinstance(method, property) else None


def concerned() -> list[str]:
    """Names of the entries that concern numbanet; `opinfo_names.NAMES` holds them, so that collecting tests does not load the database."""
    return [name for name in database() if name not in NOT_RUN and call_of(name) is not None]


@dataclass(frozen=True)
class Outcome:
    """What became of one sample: `failure` is None where it agrees; `reason` says why a failure is known and accepted."""

    failure: str | None
    reason: str | None


def outcomes(name: str, limit: int | None = None) -> list[Outcome]:
    """Run the (first `limit`) float32 samples of an entry."""
    import torch
    op, call, found = database()[name], call_of(name), []
    torch.manual_seed(0)
    samples = op.sample_inputs("cpu", torch.float32, requires_grad=op.supports_autograd)
    for sample in islice(samples, limit):
        try:
            failure = _disagreement(name, op, call, sample)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        found.append(Outcome(failure, reason_of(name, failure) if failure else None))
    return found


def refusals(name: str) -> list[Outcome]:
    """Run the error inputs of an entry: numbanet answers with an error of its own or a TypeError."""
    op, call, found = database()[name], call_of(name), []
    for case in op.error_inputs("cpu") if op.error_inputs_func is not None else ():
        sample, failure = case.sample_input, None
        try:
            call(*_map(_ours, (sample.input, *sample.args)), **_map(_ours, sample.kwargs))
            failure = f"accepted; PyTorch: {case.error_regex or 'no message'}"
        except (numbanet.NumbanetError, TypeError):
            pass
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        found.append(Outcome(failure, reason_of(name, failure) if failure else None))
    return found


def _disagreement(name, op, call, sample) -> str | None:
    """None where values, dtypes and gradients agree with PyTorch's, else what does not.

    Values agree within the tolerances of `torch.testing.assert_close` for float32. Long sums and steep functions lose more than a fixed
    number of digits: there ours may be as far from PyTorch's float64 results as twice its own float32 results are, or as four roundings
    of the largest element.
    """
    import torch
    arguments = _map(_leaf, ((sample.input, *sample.args), sample.kwargs))
    received, expected = _our_results(call, arguments), _torch_results(op, arguments)
    if len(received) != len(expected):
        return f"{len(received)} results for {len(expected)}"
    exact, drawn = None, is_drawn(name, sample.kwargs)
    for index, (r, e) in enumerate(zip(received, expected)):
        if problem := _difference_in_kind(r, e):
            return f"result {index}: {problem}"
        if not isinstance(e, torch.Tensor) or drawn or _are_close(r, e):
            continue
        exact = exact or _torch_results(op, _map(_as_double, arguments))
        with np.errstate(all="ignore"):
            error, of_torch = (np.abs(_values(x) - _values(exact[index])).max() for x in (r, e))
            largest = np.abs(_values(exact[index])).max()
        if not error <= max(2 * of_torch, 4 * np.finfo(np.float32).eps * largest):
            return f"result {index}: float64 is missed by {error:.2g}, by PyTorch by {of_torch:.2g}"
    return None


def _torch_results(op, arguments) -> list:
    """Results, then the gradients of the leaves: of the floating-point results, each weighted by fixed random numbers."""
    import torch
    leaves = [x for x in _flat(arguments) if isinstance(x, torch.Tensor) and x.requires_grad]
    results = list(_flat(op(*arguments[0], **arguments[1])))
    roots = [y for y in results if isinstance(y, torch.Tensor) and y.requires_grad]
    if not (roots and leaves):
        return results
    gradients = torch.autograd.grad(roots, leaves, [torch.from_numpy(w).to(y.dtype) for w, y in zip(_weights(roots), roots)],
                                    allow_unused=True)
    return results + [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients)]


def _our_results(call, arguments) -> list:
    """The same by numbanet."""
    args, kwargs = _map(_ours, arguments)
    leaves = [x for x in _flat((args, kwargs)) if isinstance(x, Tensor) and x.requires_grad]
    results = list(_flat(call(*args, **kwargs)))
    roots = [y for y in results if isinstance(y, Tensor) and y.requires_grad]
    if not (roots and leaves):
        return results
    weights = [numbanet.tensor(w, device=y.device).to(y.dtype) for w, y in zip(_weights(roots), roots)]
    gradients = numbanet.autograd.grad(roots, leaves, weights, allow_unused=True)
    return results + [numbanet.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients)]


def _weights(roots) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.asarray(rng.standard_normal(tuple(y.shape))) for y in roots]


def _difference_in_kind(received, expected) -> str | None:
    """Of one result: kind, shape and dtype; Python objects are compared."""
    import torch
    if not isinstance(expected, torch.Tensor):
        return None if received == expected else f"{received!r} for {expected!r}"
    if not isinstance(received, Tensor):
        return f"{type(received).__name__} for a tensor"
    if received.shape != tuple(expected.shape):
        return f"shape {received.shape} for {tuple(expected.shape)}"
    if received.dtype.name != str(expected.dtype).removeprefix("torch."):
        return f"dtype {received.dtype.name} for {expected.dtype}"
    return None


def _are_close(received, expected) -> bool:
    return np.allclose(_values(received), _values(expected), rtol=1.3e-6, atol=1e-5, equal_nan=True)


def _values(tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64) if isinstance(tensor, Tensor) else tensor.detach().double().numpy()


def _leaf(value):
    import torch
    return value.detach().requires_grad_(value.requires_grad) if isinstance(value, torch.Tensor) else value


def _as_double(value):
    import torch
    is_float = isinstance(value, torch.Tensor) and value.dtype == torch.float32
    return value.detach().double().requires_grad_(value.requires_grad) if is_float else value


def _ours(value):
    """A PyTorch argument as ours: tensors with their strides; dtypes, devices and memory formats by name."""
    import torch
    if isinstance(value, torch.Tensor):
        return numbanet.from_numpy(value.detach().numpy(), device=DEVICE).requires_grad_(value.requires_grad)
    if isinstance(value, torch.device):
        return DEVICE
    if isinstance(value, (torch.dtype, torch.memory_format)):
        return str(value).removeprefix("torch.")
    return value


def _map(function, value):
    """`function` of every leaf of nested tuples, lists and dicts."""
    if isinstance(value, dict):
        return {k: _map(function, v) for k, v in value.items()}
    if isinstance(value, (tuple, list)) and not hasattr(value, "numel"):
        return type(value)(_map(function, v) for v in value)
    return function(value)


def _flat(value):
    if isinstance(value, (tuple, list, dict)):
        for v in value.values() if isinstance(value, dict) else value:
            yield from _flat(v)
    else:
        yield value
