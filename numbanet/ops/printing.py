"""How tensors are shown: as in PyTorch, four digits, at most a thousand elements."""

from __future__ import annotations

import numpy as np

from numbanet import dtypes
from numbanet._tensor import Tensor

PRECISION, THRESHOLD, EDGE_ITEMS, LINE_WIDTH = 4, 1000, 3, 80


def _edges(values: np.ndarray) -> np.ndarray:
    """What is shown of a large array: the first and last items along each axis."""
    for axis, size in enumerate(values.shape):
        if size > 2 * EDGE_ITEMS:
            values = values.take([*range(EDGE_ITEMS), *range(size - EDGE_ITEMS, size)], axis)
    return values


def _number_format(values: np.ndarray):
    """(number -> text, width) that suit all numbers that are shown."""
    counted = values
    if values.dtype.kind != "f":
        write = str
    else:
        counted = values[np.isfinite(values) & (values != 0)]
        sizes = np.abs(counted).astype(np.float64)
        largest, smallest = sizes.max(initial=0), sizes.min(initial=np.inf)
        whole = bool((sizes == np.floor(sizes)).all())
        if sizes.size and (largest > 1e8 or largest / smallest > 1000 or (not whole and smallest < 1e-4)):
            write = lambda v: f"{v:.{PRECISION}e}"
        elif whole:
            write = lambda v: f"{v:.0f}." if np.isfinite(v) else f"{v:.0f}"
        else:
            write = lambda v: f"{v:.{PRECISION}f}"
    return write, max((len(write(v)) for v in counted.flat), default=0)


def _contents(values: np.ndarray, indent: int) -> str:
    if values.dtype.name == "bfloat16" or values.dtype == np.float16:
        values = values.astype(np.float32)
    is_long = values.size > THRESHOLD
    write, width = _number_format(_edges(values) if is_long else values)
    if values.ndim == 0:
        return write(values[()])

    def block(part, indent):
        """Nested brackets; vectors fill lines, blocks of rank r are r - 1 line ends apart."""
        gap = is_long and len(part) > 2 * EDGE_ITEMS
        shown = [*part[:EDGE_ITEMS], *part[-EDGE_ITEMS:]] if gap else list(part)
        if part.ndim == 1:
            texts = [write(v).rjust(width) for v in shown]
            if gap:
                texts.insert(EDGE_ITEMS, " ...")
            per_line = max(1, (LINE_WIDTH - indent) // (width + 2))
            lines = [", ".join(texts[i:i + per_line]) for i in range(0, len(texts), per_line)]
            return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
        texts = [block(p, indent + 1) for p in shown]
        if gap:
            texts.insert(EDGE_ITEMS, "...")
        return "[" + ("," + "\n" * (part.ndim - 1) + " " * (indent + 1)).join(texts) + "]"

    return block(values, indent)


def to_string(x) -> str:
    """tensor([[1., 2.]], requires_grad=True), and what else is not as usual: device, dtype, operation."""
    if x.backend.is_tracing or x.backend.is_released:
        parts = [f"{'symbolic' if x.backend.is_tracing else 'released'}, shape={x.shape}"]
    else:
        values = x.backend.to_numpy(x.array)
        parts = [_contents(values, len("tensor(")) if values.size else "[]"]
        if not values.size and values.ndim != 1:
            parts.append(f"size={x.shape}")
    if x.device != "cpu":
        parts.append(f"device='{x.device}'")
    if x.dtype not in (dtypes.get_default_dtype(), dtypes.bool) and not (x.dtype == dtypes.int64 and x.numel()):
        parts.append(f"dtype=numbanet.{x.dtype.name}")
    if x.grad_fn is not None:
        parts.append(f"grad_fn=<{x.grad_fn.name}>")
    elif x.requires_grad:
        parts.append("requires_grad=True")
    return f"tensor({', '.join(parts)})"


def _format(x, specification: str) -> str:
    """A tensor of one number is formatted as that number."""
    if x.ndim == 0 and not (x.backend.is_tracing or x.backend.is_released):
        return format(x.item(), specification)
    return format(to_string(x), specification)


Tensor.__repr__ = Tensor.__str__ = to_string
Tensor.__format__ = _format
