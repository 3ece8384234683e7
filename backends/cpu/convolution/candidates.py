"""Algorithms that a convolution could take besides the one that `choose.py` names: what `numbanet.autotune` measures.

Names: "gather" (windows copied into panels), "winograd" (also where few tiles make it doubtful), "winograd 2x2" (smaller tiles of 3 x 3
taps, with fewer weights), "scatter" (backward-input by products that are added up), "product" (a 1x1 layer's weight gradient as one matrix
product).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from numbanet.backends.cpu.convolution import choose, whole
from numbanet.backends.cpu.convolution.forward import (
    F32,
    NO_BIAS,
    Algorithm,
    backward_input,
    execute,
    execute_with_statistics,
    forward,
    grouped,
    has_adjacent_pixels,
    kernels,
    mirrored,
    product,
)
from numbanet.backends.cpu.convolution.preactivate import NOTHING, coefficients
from numbanet.backends.cpu.convolution.walk import forward_walk, mirrored_walk
from numbanet.backends.cpu.limits import limits
from numbanet.backends.cpu.prepared import holding, offers, shared
from numbanet.backends.precision import get_float32_precision

HELD = 1, 2, 7, 8, 9        # weight and bias, and, of a preactivated convolution, center, scale and shift


def kind(algorithm: Algorithm) -> str:
    """Its name."""
    return algorithm.packing if isinstance(algorithm.packing, str) else algorithm.packing[0]


@lru_cache(maxsize=4096)
def _products(geometry, batch, is_mirrored, precision) -> tuple[Algorithm, ...]:
    """As `forward` or, mirrored, `backward_input`: the general product, and Winograd's algorithm where its transforms are of use."""
    walk = mirrored_walk(geometry) if is_mirrored else forward_walk(geometry)
    arrange = mirrored if is_mirrored else grouped
    sizes = (4, 2) if geometry.kernel_size == (3, 3) else (None,)
    made = [product(walk, batch, may, True, lambda weight: arrange(weight, geometry), size)
            for may, size in ((False, None), *((choose.may_use_winograd(geometry), size) for size in sizes))]
    return tuple({kind(a): a for a in made}.values())


def _usable(x, *shapes) -> bool:
    return x.dtype == F32 and all(0 not in shape for shape in (x.shape, *shapes))


@offers("conv2d_forward", "conv2d_fused", "conv2d_activated", "conv2d_with_statistics", "conv2d_preactivated",
        "conv2d_preactivated_with_statistics")
def forward_candidates(arguments, constant) -> dict[str, Callable]:
    """Of a convolution whose weights may be packed once, or change."""
    x, weight, bias = arguments[:3]
    geometry = arguments[-1] if len(arguments) == 4 else arguments[4]
    if not _usable(x) or choose.is_depthwise(geometry):
        return {}
    are_packed = all(arguments[i] is None or i in constant for i in HELD if i < len(arguments))
    is_plain = len(arguments) == 4 or len(arguments) == 7 and arguments[3] is None
    own = ("whole" if is_plain and not are_packed and whole.covers_the_map(geometry)
           else kind(forward(geometry, x.shape[0], has_adjacent_pixels(x), are_packed)))
    found = {kind(a): a for a in _products(geometry, x.shape[0], False, get_float32_precision())}
    return {name: lambda a=a: _forward_call(a, arguments, are_packed) for name, a in found.items() if name != own}


def _forward_call(algorithm: Algorithm, arguments: tuple, are_packed: bool) -> Callable:
    low, high = limits(*arguments[5:7]) if len(arguments) >= 7 else limits(None, None)
    activation = arguments[5] if len(arguments) == 6 else None
    terms = slice(7, len(arguments))
    fixed = preactivation(*arguments[terms]) if are_packed else None

    def pack(weight, bias):
        return algorithm.pack(weight, NO_BIAS if bias is None else bias)
    packed = shared(algorithm.packing, pack, *arguments[1:3]) if are_packed else None

    def call(*given):
        x, weight, bias, residual, out = *given[:3], given[3] if len(given) > 5 else None, given[-1]
        ready, read = (packed.value, fixed) if are_packed else (pack(weight, bias), preactivation(*given[terms]))
        if isinstance(out, tuple):
            execute_with_statistics(algorithm, ready, x, out, residual, low, high, read)
        else:
            execute(algorithm, ready, x, out, residual, low, high, activation, preactivation=read)

    def tell(*given):
        if packed is None or isinstance(given[-1], tuple):
            return None
        return kernels(algorithm, packed.value, given[0], given[-1], given[3] if len(given) > 5 else None, low, high, activation, fixed)
    call.kernel, call.kernels = f"conv2d {kind(algorithm)}", tell
    return holding(call, *(i for i in HELD if i < len(arguments)), weights={1: algorithm.hold(packed)}) if are_packed else call


def preactivation(*terms):
    """`preactivate.coefficients` where there are terms."""
    return coefficients(*terms) if terms else NOTHING


@offers("conv2d_backward_input", "conv2d_backward_input_added")
def backward_input_candidates(arguments, constant) -> dict[str, Callable]:
    """Forward products over the gradient at stride 1, or scattering."""
    from numbanet.backends.cpu.convolution import scattered_input_gradient
    grad_y, geometry = arguments[0], arguments[-1]
    if not _usable(grad_y) or choose.is_depthwise(geometry) or choose.has_small_groups(geometry):
        return {}
    batch = grad_y.shape[0]
    own = kind(backward_input(geometry, batch)) if choose.is_forward_over_gradients(geometry) else "scatter"
    if choose.folds(geometry):
        own = "folded"
    if whole.covers_the_map(geometry) and (len(arguments) == 3 or arguments[2] is None):
        own = "whole"
    found = {}
    if choose.has_unit_stride(geometry):
        for a in _products(geometry, batch, True, get_float32_precision()):
            found[kind(a)] = lambda grad_y, weight, added, out, a=a: execute(a, a.pack(weight, NO_BIAS), grad_y, out, added)
    found["scatter"] = lambda grad_y, weight, added, out: scattered_input_gradient(grad_y, weight, added, geometry, out)
    return {name: lambda name=name, run=run: _backward_call(name, run) for name, run in found.items() if name != own}


def _backward_call(name: str, run: Callable) -> Callable:
    def call(*given):
        run(given[0], given[1], given[2] if len(given) == 5 else None, given[-1])
    call.kernel = f"conv2d {name}"
    return call


@offers("conv2d_backward_weight", "conv2d_preactivated_backward_weight")
def backward_weight_candidates(arguments, constant) -> dict[str, Callable]:
    """Winograd's algorithm, the gathered product, and a plain one of 1x1 layers."""
    from numbanet.backends.cpu.convolution import WEIGHT_GRADIENTS, weight_gradient_name
    grad_y, x, geometry, *terms = arguments
    if not _usable(x) or choose.is_depthwise(geometry) or choose.has_small_groups(geometry):
        return {}
    own, names = weight_gradient_name(geometry, x), ["gather"]
    if choose.may_use_winograd_gradient(geometry) and choose.winograd_gradient_plan(geometry, x.shape[0]) is not None:
        names.append("winograd")
    if choose.is_plain_product(geometry) and not terms:
        names.append("product")
    return {name: lambda name=name: _weight_call(name, WEIGHT_GRADIENTS[name]) for name in names if name != own}


def _weight_call(name: str, run: Callable) -> Callable:
    def call(grad_y, x, geometry, *rest):
        *terms, out = rest
        run(grad_y, x, geometry, out, *([coefficients(*terms)] if terms else []))
    call.kernel = f"conv2d {name}"
    return call
