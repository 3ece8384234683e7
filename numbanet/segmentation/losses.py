"""Losses of pixels: cross-entropy, the soft Dice loss, and their sum."""

from __future__ import annotations

from numbanet.errors import ShapeError, UsageError
from numbanet.nn import functional as F
from numbanet.ops.factories import arange

VOID = -100         # the label of pixels that do not count: cross_entropy's default

LOSSES = ("cross_entropy", "dice", "dice+cross_entropy")


def dice_loss(logits, target, *, ignore_index: int = VOID, smooth: float = 1.0):
    """1 less the mean over classes of Dice's coefficient (2 sum p t + smooth) / (sum p + sum t + smooth), over all pixels of the batch.

    Milletari, Navab and Ahmadi: V-Net, 3DV 2016, arXiv:1606.04797, with plain sums in the denominator, of every class.

    Parameters
    ----------
    logits : Tensor (N, C, ...)
    target : Tensor int64 (N, ...)
    ignore_index : int
        Pixels with this label count nowhere.
    smooth : float
        Keeps classes that do not occur from dividing by nothing.

    Returns
    -------
    Tensor ()

    Raises
    ------
    ShapeError
        `target` is not of the logits' shape without its classes.
    """
    if logits.ndim < 3 or tuple(target.shape) != (logits.shape[0], *logits.shape[2:]):
        raise ShapeError(f"dice_loss: target expects {(logits.shape[0], *logits.shape[2:])} for logits of {tuple(logits.shape)}, received "
                         f"{tuple(target.shape)}")
    classes = logits.shape[1]
    axes = (0, *range(2, logits.ndim))
    numbers = arange(classes, device=logits.device).reshape(1, classes, *(1,) * (logits.ndim - 2))
    label = target.unsqueeze(1)                                             # (N, 1, ...)
    truth = (label == numbers).to(dtype=logits.dtype)                       # (N, C, ...); void is no class
    p = F.softmax(logits, 1) * (label != ignore_index).to(dtype=logits.dtype)
    common, whole = (p * truth).sum(axes), (p + truth).sum(axes)            # (C,)
    return 1 - ((2 * common + smooth) / (whole + smooth)).mean()


def segmentation_loss(name: str | None):
    """One of :data:`LOSSES` as a function of logits and target; None is the cross-entropy.

    Raises
    ------
    UsageError
        Another name.
    """
    if name not in (None, *LOSSES):
        raise UsageError(f"--loss: expected one of {', '.join(LOSSES)}, received {name!r}")
    if name == "dice":
        return dice_loss
    if name == "dice+cross_entropy":
        return lambda logits, target: dice_loss(logits, target) + F.cross_entropy(logits, target, ignore_index=VOID)
    return lambda logits, target: F.cross_entropy(logits, target, ignore_index=VOID)
