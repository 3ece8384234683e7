"""Padding."""

from __future__ import annotations

from numbanet.autograd.operation import Operation
from numbanet.errors import ShapeError, UnsupportedOperationError
from numbanet.ops.shape import narrow, permute, reshape

__all__ = ["pad"]


class Pad(Operation):
    """More elements around the old ones: a constant, or copies of the map's own."""

    operation_name = "pad"

    def forward(self, backend, x, padding, mode, value):
        self.save(padding, mode)
        return backend.pad_forward(x, padding, mode, value)

    def backward(self, backend, grad_y, needs):
        padding, mode = self.saved
        if mode == "constant" and min(map(min, padding)) >= 0:              # the old elements, where they are
            index = tuple((before, n - after, 1) for n, (before, after) in zip(grad_y.shape, padding))
            return backend.slice_view(grad_y, index)
        return backend.pad_backward_input(grad_y, padding, mode)


def pad(x, pad, mode="constant", value=None):
    """Pad the last axes, as in `torch.nn.functional.pad`.

    Parameters
    ----------
    x : Tensor
    pad : sequence of ints
        (before, after) of the last axis, then of the one before it, and so on. Negative numbers cut elements off: after
        the padding, with mode "circular" before it.
    mode : "constant", "reflect", "replicate" or "circular"
        All but "constant" pad the last one, two or three axes of (N, C, L), (N, C, H, W), (N, C, D, H, W), or of one
        sample of them.
    value : number, optional
        What "constant" fills in; 0 by default.

    Raises
    ------
    ShapeError
        An odd number of paddings, more than axes, or more than the mode can take from the map.
    """
    padding = tuple(int(p) for p in pad)
    if len(padding) % 2 or len(padding) > 2 * x.ndim:
        raise ShapeError(f"pad: pad expects pairs (before, after) for at most {x.ndim} axes, the last one first, "
                         f"received {padding}")
    pairs = tuple(zip(padding[-2::-2], padding[::-2]))                 # from the first padded axis to the last
    if mode == "constant":
        return Pad.apply(x, ((0, 0),) * (x.ndim - len(pairs)) + pairs, mode, 0 if value is None else value)
    if value is not None:
        raise ShapeError(f"pad: value expects None with mode {mode!r}, received {value!r}")
    axes = len(pairs)
    if axes not in (1, 2, 3) or x.ndim - axes not in (1, 2):
        raise UnsupportedOperationError(f"pad: mode {mode!r} pads the last 1 to 3 axes of x with one or two axes before them, "
                                        f"received {axes} of {x.ndim}")
    batched = x if x.ndim == axes + 2 else reshape(x, 1, *x.shape)
    grown = tuple((max(a, 0), max(b, 0)) for a, b in pairs)
    if mode == "circular":
        padded = _PAD_MAPS[axes](_cut(batched, pairs), grown, mode)
    else:
        padded = _cut(_PAD_MAPS[axes](batched, grown, mode), pairs)
    return padded if padded.ndim == x.ndim else reshape(padded, *padded.shape[1:])


def _cut(x, pairs):
    """x without the elements that negative numbers cut off its last axes."""
    for axis, (before, after) in enumerate(pairs, x.ndim - len(pairs)):
        if before < 0 or after < 0:
            first = max(-before, 0)
            x = narrow(x, axis, first, x.shape[axis] - first - max(-after, 0))
    return x


def _pad_signal(x, pairs, mode):
    flat = Pad.apply(reshape(x, *x.shape[:2], 1, x.shape[2]), ((0, 0),) * 3 + pairs, mode, 0)
    return reshape(flat, *x.shape[:2], flat.shape[3])


def _pad_map(x, pairs, mode):
    return Pad.apply(x, ((0, 0),) * 2 + pairs, mode, 0)


def _pad_volume(x, pairs, mode):
    """Planes first, then the depth."""
    N, C, D, H, W = x.shape
    y = _pad_map(reshape(permute(x, 0, 2, 1, 3, 4), N * D, C, H, W), pairs[1:], mode)
    OH, OW = y.shape[2:]
    y = reshape(permute(reshape(y, N, D, C, OH, OW), 0, 2, 1, 3, 4), N, C, D, OH * OW)
    y = _pad_map(y, (pairs[0], (0, 0)), mode)
    return reshape(y, N, C, y.shape[2], OH, OW)


_PAD_MAPS = {1: _pad_signal, 2: _pad_map, 3: _pad_volume}
