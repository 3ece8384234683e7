"""Mixed precision, with PyTorch's names: `autocast` and `GradScaler`.

    scaler = numbanet.amp.GradScaler()                  # for float16; bfloat16 needs none
    with numbanet.amp.autocast("cuda", numbanet.float16):
        loss = F.cross_entropy(model(x), y)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()

``numbanet.compile(..., precision="bf16" | "fp16")`` and ``Trainer(precision=...)`` do the same. Micikevicius et al., Mixed Precision
Training, ICLR 2018.
"""

from __future__ import annotations

import functools
import math

from numbanet import dtypes
from numbanet._tensor import Tensor
from numbanet.autograd.autocast import state
from numbanet.autograd.grad_mode import no_grad
from numbanet.errors import CheckpointError, UnsupportedOperationError, UsageError

__all__ = ["GradScaler", "PRECISIONS", "autocast", "check_precision", "is_autocast_enabled"]

PRECISIONS = {"bf16": "bfloat16", "bfloat16": "bfloat16", "fp16": "float16", "float16": "float16"}


class autocast:
    """Within it, matrix products and convolutions on GPUs take 16-bit operands, sums and losses float32: a context manager or decorator.

    Parameters
    ----------
    device_type : "cuda"
        Tensors on other devices compute as ever.
    dtype : bfloat16 (the default) or float16
    enabled : bool
        False: as without it, also inside of another one.

    Raises
    ------
    UnsupportedOperationError
        Another device type: the kernels of the CPU compute in float32 and float64.
    """

    def __init__(self, device_type: str = "cuda", dtype=None, enabled: bool = True):
        if device_type.partition(":")[0] != "cuda":
            raise UnsupportedOperationError(f"autocast: expected device_type 'cuda', received {device_type!r}, whose kernels compute in "
                                            "float32 and float64; leave autocast out there")
        dtype = dtypes.as_dtype("bfloat16" if dtype is None else dtype)
        if dtype.name not in ("bfloat16", "float16"):
            raise UsageError(f"autocast: dtype expects bfloat16 or float16, received {dtype}")
        self._dtype, self._before = dtype if enabled else None, []

    def __enter__(self) -> autocast:
        self._before.append(state.dtype)
        state.dtype = self._dtype
        return self

    def __exit__(self, *exception) -> None:
        state.dtype = self._before.pop()

    def __call__(self, function):
        @functools.wraps(function)
        def within(*arguments, **named):
            with self:
                return function(*arguments, **named)
        return within


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether this thread is within :class:`autocast`."""
    return device_type == "cuda" and state.dtype is not None


def check_precision(who: str, precision: str | None, device) -> str | None:
    """The dtype's name of "bf16" or "fp16"; None for None and "float32".

    Raises
    ------
    UsageError
        Another word, or a device whose kernels compute in float32 alone.
    """
    from numbanet.backends import get_backend
    if precision in (None, "float32", "fp32"):
        return None
    if precision not in PRECISIONS:
        raise UsageError(f"{who}: precision expects 'float32', 'bf16' or 'fp16', received {precision!r}")
    if not get_backend(str(device)).computes_16_bit:
        raise UsageError(f"{who}: precision={precision!r} needs a GPU (device 'cuda'); received the device {str(device)!r}, whose kernels "
                         "compute in float32 and float64. Leave precision out there")
    return PRECISIONS[precision]


class GradScaler:
    """Multiplies the loss so that gradients of float16 do not vanish, and skips updates whose gradients are not finite.

    Parameters
    ----------
    device : accepted as PyTorch has it; the scale is a number of the host
    init_scale : float
    growth_factor, backoff_factor : float
        What the scale is multiplied by after `growth_interval` updates in a row that were made, and after one that was not.
    growth_interval : int
    enabled : bool
        False: :meth:`scale` and :meth:`step` do nothing beside, so that one loop serves all precisions.
    """

    def __init__(self, device="cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
                 growth_interval: int = 2000, enabled: bool = True):
        if not growth_factor > 1 or not 0 < backoff_factor < 1 or not init_scale > 0 or growth_interval < 1:
            raise UsageError("GradScaler: expected init_scale above 0, growth_factor above 1, backoff_factor between 0 and 1 and "
                             f"growth_interval of at least 1, received {init_scale}, {growth_factor}, {backoff_factor}, {growth_interval}")
        self._scale, self._growth, self._backoff = float(init_scale), growth_factor, backoff_factor
        self._interval, self._enabled, self._made = growth_interval, enabled, 0
        self._finite: dict[int, bool] = {}          # of optimisers whose gradients are divided already, by identity

    def scale(self, outputs):
        """The loss times the scale; or each tensor of a list or tuple."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, (list, tuple)):
            return type(outputs)([self.scale(o) for o in outputs])
        return outputs * self._scale

    def unscale_(self, optimizer) -> None:
        """Divide the gradients of an optimiser's parameters, so that they can be clipped; :meth:`step` does it otherwise."""
        if not self._enabled:
            return
        if id(optimizer) in self._finite:
            raise UsageError("GradScaler: unscale_() was called for this optimizer already since the last update()")
        gradients = _gradients(optimizer)
        with no_grad():
            for gradient in gradients:
                gradient.mul_(1.0 / self._scale)
        self.are_unscaled(optimizer)

    def are_unscaled(self, optimizer) -> None:
        """The gradients have been divided; look whether they are finite."""
        with no_grad():
            found = [(gradient * 0.0).sum() for gradient in _gradients(optimizer)]      # 0, or NaN where an element is not finite
            self._finite[id(optimizer)] = not found or math.isfinite(sum(found[1:], found[0]).item())

    def step(self, optimizer, *arguments, **named):
        """``optimizer.step()`` unless a gradient is not finite; what that returned, None where it was skipped."""
        if not self._enabled:
            return optimizer.step(*arguments, **named)
        if id(optimizer) not in self._finite:
            self.unscale_(optimizer)
        return optimizer.step(*arguments, **named) if self._finite[id(optimizer)] else None

    def update(self, new_scale: float | None = None) -> None:
        """Adapt the scale, once after all optimisers' steps."""
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = float(new_scale.item() if isinstance(new_scale, Tensor) else new_scale)
        elif not self._finite:
            raise UsageError("GradScaler: update() expects a step() before it")
        elif not all(self._finite.values()):
            self._scale, self._made = self._scale * self._backoff, 0
        else:
            self._made += 1
            if self._made == self._interval:
                self._scale, self._made = self._scale * self._growth, 0
        self._finite.clear()

    def is_enabled(self) -> bool:
        return self._enabled

    def get_scale(self) -> float:
        """The scale; 1 where it is not enabled."""
        return self._scale if self._enabled else 1.0

    def state_dict(self) -> dict:
        """What going on needs, with PyTorch's names."""
        if not self._enabled:
            return {}
        return {"scale": self._scale, "growth_factor": self._growth, "backoff_factor": self._backoff, "growth_interval": self._interval,
                "_growth_tracker": self._made}

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore what :meth:`state_dict` gave."""
        if not self._enabled:
            return
        try:
            self._scale, self._growth, self._backoff, self._interval, self._made = (
                state_dict[name] for name in ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"))
        except KeyError as error:
            raise CheckpointError(f"GradScaler.load_state_dict: the state lacks {error}: that scaler was not enabled") from None


def _gradients(optimizer) -> list[Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
