"""What is not run, not compared or allowed to differ from PyTorch, each with its reason."""

from __future__ import annotations

from collections.abc import Callable

# Entries whose names stand for something else here, or for functions that numbanet does not have.
NOT_RUN = {
    "trace": "numbanet.trace records a graph; PyTorch's is the sum of a diagonal",
    "norm.nuc": "the nuclear norm needs singular values; numbanet has no linear algebra",
    "nn.functional.interpolate.bicubic": "numbanet resizes by nearest, linear and area interpolation",
    "nn.functional.interpolate.trilinear": "numbanet resizes volumes by none of the modes",
    "nn.functional.interpolate.nearest-exact": "numbanet resizes by nearest, linear and area interpolation",
    "bmm.triton_optimized": "the samples of bmm, for a GPU",
}

# Memory that is not initialised, or numbers from another generator: shapes and dtypes are compared.
NOT_COMPARED = frozenset(
    "bernoulli empty empty_like new_empty normal normal.number_mean normal.in_place rand_like randint randint_like randn "
    "randn_like".split())


def is_drawn(name: str, kwargs: dict) -> bool:
    """Whether a sample's values are arbitrary or random."""
    return name in NOT_COMPARED or "dropout" in name and 0 < kwargs.get("p", 0.5) < 1 and kwargs.get("training", True)


def _same(*names: str) -> Callable[[str], bool]:
    return lambda name: name in names


# (which entries, part of the failure's text, reason), of samples and of error inputs
_KNOWN = [
    (lambda name: name.startswith(("nn.functional.interpolate", "nn.functional.upsample")), "of 5 dimensions is not supported",
     "volumes are not resized"),
    (_same("nn.functional.layer_norm"), "float64 is missed by 1.3e-05, by PyTorch by 0",
     "a row of one element: the gradient is a difference of equal numbers times 1 / sqrt(eps) = 316"),
    (_same("nn.functional.batch_norm"), "received shape (0,)", "a batch has channels: (N, C) at least"),
    (_same("gather", "scatter", "scatter_add"), "expected int64 (or a bool mask), received uint8", "uint8 is no dtype of indices"),
    (_same("bernoulli", "norm"), "1 results for 2", "counts and drawn numbers have no gradient; PyTorch gives zeros"),
    (lambda name: True, "unexpected keyword argument 'layout'", "there is one layout of memory"),
    (lambda name: True, "accepted; PyTorch: no message", "a number may stand for either operand"),
    (_same("nn.functional.max_pool1d", "nn.functional.max_pool3d"), "accepted; PyTorch: Expected", "a map without channels gives one"),
    (_same("index_put"), "accumulate=True", "x[index] = values does not accumulate; index_add and scatter_add do"),
    (_same("narrow"), "accepted; PyTorch: start must be an 0-dim integral", "True is the integer 1, as in Python"),
    (_same("amax", "amin"), "within [0, 64]", "NumPy's arrays have at most 64 dimensions"),
]


def reason_of(name: str, failure: str) -> str | None:
    """Why a failure is known and accepted; None for an unknown one."""
    return next((reason for concerns, text, reason in _KNOWN if concerns(name) and text in failure), None)
