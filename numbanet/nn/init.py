"""Initial values of parameters, with PyTorch's names and formulas.

Every function fills its tensor in place, outside the tape, and returns it. Random ones draw from `generator`, or from
the default generator of :mod:`numbanet.random`. Within :func:`skip` none of them does anything.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps

import numpy as np

from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.errors import ShapeError, UsageError

_thread = threading.local()


@contextmanager
def skip():
    """Layers that are made inside have parameters of undefined values, in this thread: for weights that are loaded right afterwards.

    Memory that nobody has written to takes no place, and no random numbers are drawn.
    """
    before = getattr(_thread, "skipping", False)
    _thread.skipping = True
    try:
        yield
    finally:
        _thread.skipping = before


def _fills(function: Callable) -> Callable:
    """A function that fills its first argument, outside the tape and unless that is skipped (decorator)."""
    @wraps(function)
    def fill(tensor: Tensor, *args, **kwargs) -> Tensor:
        if getattr(_thread, "skipping", False):
            return tensor
        with no_grad():
            return function(tensor, *args, **kwargs)
    return fill


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity shrinks the standard deviation, inverted; `param` is leaky ReLU's slope."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else float(param)) ** 2))
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}
    gains.update({f"conv{kind}{rank}d": 1.0 for kind in ("", "_transpose") for rank in (1, 2, 3)})
    if nonlinearity not in gains:
        raise UsageError(f"calculate_gain: expected one of {', '.join((*gains, 'leaky_relu'))}, "
                         f"received {nonlinearity!r}")
    return gains[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """(inputs that reach one output, outputs that one input reaches) of a weight (O, I, taps...)."""
    if tensor.ndim < 2:
        raise ShapeError(f"init: fan in and fan out expect a weight of at least 2 dimensions, "
                         f"received shape {tuple(tensor.shape)}")
    taps = math.prod(tensor.shape[2:])
    return tensor.shape[1] * taps, tensor.shape[0] * taps


@_fills
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator=None) -> Tensor:
    """U(a, b)."""
    return tensor.uniform_(a, b, generator=generator)


@_fills
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator=None) -> Tensor:
    """N(mean, std^2)."""
    return tensor.normal_(mean, std, generator=generator)


@_fills
def constant_(tensor: Tensor, val: float) -> Tensor:
    return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    return constant_(tensor, 0.0)


@_fills
def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
                  generator=None) -> Tensor:
    """N(mean, std^2) restricted to [a, b], by the inverse of its distribution function."""
    if not a < b or std <= 0:
        raise UsageError(f"trunc_normal_: expected a < b and std > 0, received a={a}, b={b}, std={std}")
    low, high = (0.5 * math.erfc((mean - edge) / (std * math.sqrt(2))) for edge in (a, b))
    uniform = tensor.new_empty(tensor.shape, dtype="float64").uniform_(low, high, generator=generator).numpy()
    tiny = np.finfo(np.float64).tiny
    quantile = normal_quantile(np.clip(uniform, tiny, 1 - 2.0 ** -53))
    return _assign(tensor, np.clip(quantile * std + mean, a, b))


@_fills
def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix, cut or padded with zeros to the shape."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_: expected 2 dimensions, received shape {tuple(tensor.shape)}")
    return _assign(tensor, np.eye(*tensor.shape))


@_fills
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution's weight (K, C, taps...) that hands its input channels through."""
    if tensor.ndim not in (3, 4, 5):
        raise ShapeError(f"dirac_: expected the weight of a convolution (3 to 5 dimensions), "
                         f"received shape {tuple(tensor.shape)}")
    filters, channels, *taps = tensor.shape
    if filters % groups:
        raise ShapeError(f"dirac_: groups expects a divisor of {filters} filters, received {groups}")
    values = np.zeros(tensor.shape)
    centre = tuple(n // 2 for n in taps)
    per_group = filters // groups
    for group in range(groups):
        for channel in range(min(per_group, channels)):
            values[(group * per_group + channel, channel, *centre)] = 1.0
    return _assign(tensor, values)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator=None) -> Tensor:
    """U(-r, r), r = gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6.0 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator=None) -> Tensor:
    """N(0, s^2), s = gain sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(fans(tensor))), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise UsageError(f"kaiming: mode expects 'fan_in' or 'fan_out', received {mode!r}")
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def kaiming_uniform_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                     generator=None) -> Tensor:
    """U(-r, r), r = gain sqrt(3 / fan); `a` is leaky ReLU's slope (He et al., 2015)."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                    generator=None) -> Tensor:
    """N(0, s^2), s = gain / sqrt(fan); `a` is leaky ReLU's slope (He et al., 2015)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


@_fills
def orthogonal_(tensor: Tensor, gain: float = 1.0, generator=None) -> Tensor:
    """A (semi-)orthogonal matrix over the flattened trailing dimensions (Saxe et al., 2013)."""
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_: expected at least 2 dimensions, received shape {tuple(tensor.shape)}")
    rows = tensor.shape[0]
    columns = math.prod(tensor.shape[1:])
    drawn = tensor.new_empty((rows, columns), dtype="float64").normal_(0.0, 1.0, generator=generator).numpy()
    q, r = np.linalg.qr(drawn.T if rows < columns else drawn)
    q = q * np.sign(np.diag(r))          # the sign makes the distribution uniform over orthogonal matrices
    return _assign(tensor, gain * (q.T if rows < columns else q).reshape(tensor.shape))


def _assign(tensor: Tensor, values: np.ndarray) -> Tensor:
    """Copy values that were computed on the host."""
    tensor.backend.copy(tensor.backend.from_numpy(np.ascontiguousarray(values, dtype=tensor.dtype)), out=tensor.array)
    tensor.storage.version += 1
    return tensor


def normal_quantile(p: np.ndarray) -> np.ndarray:
    """The inverse of the standard normal distribution function for 0 < p < 1, to about 1e-16 (Wichura 1988, AS 241)."""
    q = p - 0.5
    central = np.abs(q) <= 0.425
    r = np.sqrt(-np.log(np.where(central, 0.5, np.minimum(p, 1 - p))))
    near, far = r - 1.6, r - 5.0
    tail = np.where(r <= 5.0, np.polyval(_NEAR[0], near) / np.polyval(_NEAR[1], near),
                    np.polyval(_FAR[0], far) / np.polyval(_FAR[1], far))
    square = 0.180625 - q * q
    return np.where(central, q * np.polyval(_CENTRE[0], square) / np.polyval(_CENTRE[1], square), np.sign(q) * tail)


# Numerator and denominator, highest power first, of the three rational approximations of PPND16.
_CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.3871328727963666080),
    (5226.4952788528545610, 28729.085735721942674, 39307.895800092710610, 21213.794301586595867,
     5394.1960214247511077, 687.18700749205790830, 42.313330701600911252, 1.0))
_NEAR = (
    (7.74545014278341407640e-4, 0.0227238449892691845833, 0.241780725177450611770, 1.27045825245236838258,
     3.64784832476320460504, 5.76949722146069140550, 4.63033784615654529590, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 0.0151986665636164571966, 0.148103976427480074590,
     0.689767334985100004550, 1.67638483018380384940, 2.05319162663775882187, 1.0))
_FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.00124266094738807843860, 0.0265321895265761230930,
     0.296560571828504891230, 1.78482653991729133580, 5.46378491116411436990, 6.65790464350110377720),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     0.0148753612908506148525, 0.136929880922735805310, 0.599832206555887937690, 1.0))
