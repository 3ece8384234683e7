"""Boxes (left, top, right, bottom), with torchvision's names: overlaps, suppression, and losses made of tensor operations."""

from __future__ import annotations

from numbanet import dtypes
from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import is_grad_enabled
from numbanet.errors import DTypeError, ShapeError, UsageError
from numbanet.ops.elementwise import maximum, minimum
from numbanet.ops.loss import binary_cross_entropy_with_logits
from numbanet.ops.rearrange import stack, unbind

__all__ = ["batched_nms", "box_area", "box_convert", "box_iou", "clip_boxes_to_image", "generalized_box_iou", "generalized_box_iou_loss",
           "nms", "remove_small_boxes", "sigmoid_focal_loss"]

FORMATS = ("xyxy", "xywh", "cxcywh")


def box_convert(boxes, in_fmt, out_fmt):
    """Boxes (..., 4) in another format.

    Parameters
    ----------
    boxes : Tensor (..., 4)
    in_fmt, out_fmt : "xyxy", "xywh" or "cxcywh"
        Two corners; the first corner, width and height; the middle, width and height.
    """
    for name, fmt in (("in_fmt", in_fmt), ("out_fmt", out_fmt)):
        if fmt not in FORMATS:
            raise UsageError(f"box_convert: {name} expects one of {', '.join(FORMATS)}, received {fmt!r}")
    _check("box_convert", boxes)
    if in_fmt == out_fmt:
        return boxes.clone()
    a, b, c, d = unbind(boxes, -1)
    if in_fmt == "xywh":
        a, b, c, d = a, b, a + c, b + d
    elif in_fmt == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if out_fmt == "xywh":
        a, b, c, d = a, b, c - a, d - b
    elif out_fmt == "cxcywh":
        a, b, c, d = (a + c) / 2, (b + d) / 2, c - a, d - b
    return stack([a, b, c, d], -1)


def box_area(boxes):
    """(right - left) * (bottom - top) of boxes (..., 4)."""
    _check("box_area", boxes)
    left, top, right, bottom = unbind(boxes, -1)
    return (right - left) * (bottom - top)


def clip_boxes_to_image(boxes, size):
    """Boxes (..., 4) cut at the edges of an image of `size` (height, width)."""
    _check("clip_boxes_to_image", boxes)
    height, width = size
    left, top, right, bottom = unbind(boxes, -1)
    return stack([left.clamp(0, width), top.clamp(0, height), right.clamp(0, width), bottom.clamp(0, height)], -1)


def remove_small_boxes(boxes, min_size):
    """Positions int64 of the boxes (N, 4) whose width and height are at least `min_size`."""
    _check("remove_small_boxes", boxes)
    left, top, right, bottom = unbind(boxes, -1)
    return ((right - left >= min_size) & (bottom - top >= min_size)).nonzero().reshape(-1)


def box_iou(boxes1, boxes2):
    """Intersection over union of each of boxes1 (N, 4) with each of boxes2 (M, 4): (N, M).

    A kernel computes it; where a gradient is wanted, it is made of tensor operations instead.
    """
    if is_grad_enabled() and (boxes1.requires_grad or boxes2.requires_grad):
        return _pairs("box_iou", boxes1, boxes2)[0]
    return Tensor._wrap(boxes1.backend.box_iou(boxes1.array, _beside(boxes1, boxes2)), boxes1.backend)


def generalized_box_iou(boxes1, boxes2):
    """IoU of each pair less the share of the box around both that neither covers: (N, 4), (M, 4) to (N, M), from -1 to 1.

    Rezatofighi et al. (2019), Generalized Intersection over Union, arXiv:1902.09630.
    """
    iou, union, around = _pairs("generalized_box_iou", boxes1, boxes2)
    return iou - (around - union) / around


def _pairs(operation, boxes1, boxes2):
    """(IoU, union, area of the box around both), each (N, M)."""
    for boxes in (boxes1, boxes2):
        _check(operation, boxes)
        if boxes.ndim != 2:
            raise ShapeError(f"{operation}: boxes expects (count, 4), received shape {tuple(boxes.shape)}")
    return _overlap(unbind(boxes1.unsqueeze(1), -1), unbind(boxes2.unsqueeze(0), -1))


def _overlap(a, b):
    """(IoU, union, area around both) of edges that broadcast."""
    sides = [(minimum(a[i + 2], b[i + 2]) - maximum(a[i], b[i])).clamp(0) for i in (0, 1)]
    around = [maximum(a[i + 2], b[i + 2]) - minimum(a[i], b[i]) for i in (0, 1)]
    common = sides[0] * sides[1]
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union, union, around[0] * around[1]


def generalized_box_iou_loss(boxes1, boxes2, reduction="none", eps=1e-7):
    """1 - GIoU of boxes of the same position, (..., 4) to (...), as in torchvision.

    Parameters
    ----------
    reduction : "none", "mean" or "sum"
    eps : float
        Added to what is divided by, so that boxes without area give a number.
    """
    for boxes in (boxes1, boxes2):
        _check("generalized_box_iou_loss", boxes)
    a, b = unbind(boxes1, -1), unbind(boxes2, -1)
    sides = [minimum(a[i + 2], b[i + 2]) - maximum(a[i], b[i]) for i in (0, 1)]
    common = sides[0].clamp(0) * sides[1].clamp(0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    around = (maximum(a[2], b[2]) - minimum(a[0], b[0])) * (maximum(a[3], b[3]) - minimum(a[1], b[1]))
    return _reduced("generalized_box_iou_loss", 1 - common / (union + eps) + (around - union) / (around + eps), reduction)


def sigmoid_focal_loss(inputs, targets, alpha=0.25, gamma=2, reduction="none"):
    """Binary cross-entropy of logits that counts less where it is small already, of inputs' shape.

    Lin et al. (2017), Focal Loss for Dense Object Detection, arXiv:1708.02002.

    Parameters
    ----------
    inputs, targets : Tensor
        Logits, and 0 or 1 (or between), of one shape and dtype.
    alpha : float
        Weight of positives, 1 - alpha that of negatives; below 0 there are no weights.
    gamma : float
        Power of 1 - p, p the probability of what is true.
    reduction : "none", "mean" or "sum"
    """
    p = inputs.sigmoid()
    loss = binary_cross_entropy_with_logits(inputs, targets, reduction="none")
    wrong = p + targets - 2 * p * targets                       # 1 - the probability of what is true
    loss = loss * (wrong * wrong if gamma == 2 else wrong ** gamma)
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return _reduced("sigmoid_focal_loss", loss, reduction)


def nms(boxes, scores, iou_threshold):
    """Positions int64 of the boxes (N, 4) that remain, by falling score: those that overlap a better one by more than the threshold go.

    The answer's length depends on values, so it cannot be traced.

    Parameters
    ----------
    boxes : Tensor (N, 4)
    scores : Tensor (N,)
    iou_threshold : float from 0 to 1

    Returns
    -------
    Tensor int64 (K,)
    """
    return _suppressed("nms", boxes, scores, None, iou_threshold)


def batched_nms(boxes, scores, idxs, iou_threshold):
    """As :func:`nms`, but boxes of different `idxs` (N,), classes or pictures, leave each other alone."""
    if dtypes.is_floating_point(idxs.dtype):
        raise DTypeError(f"batched_nms: idxs expects integers, received {idxs.dtype}")
    return _suppressed("batched_nms", boxes, scores, idxs, iou_threshold)


def suppress(boxes, scores, iou_threshold, *, smaller=False):
    """As :func:`nms`; with `smaller` an overlap is the share of the smaller box that lies in the other."""
    return _suppressed("suppress", boxes, scores, None, iou_threshold, smaller)


def _suppressed(operation, boxes, scores, classes, iou_threshold, smaller=False):
    backend = boxes.backend
    if backend.is_tracing:
        from numbanet.errors import UnsupportedOperationError
        raise UnsupportedOperationError(f"{operation}: how many boxes remain depends on their values; leave it out of what is traced")
    classes = None if classes is None else _beside(boxes, classes.to(dtype=dtypes.int64))
    kept, count = backend.nms(boxes.array, _beside(boxes, scores), classes, float(iou_threshold), bool(smaller))
    return Tensor._wrap(kept, backend)[:int(backend.to_numpy(count)[0])]


def _beside(x, other):
    """The array of `other`, which has to be on x's device."""
    if other.device != x.device:
        raise UsageError(f"boxes: expected tensors of one device, received {x.device} and {other.device}; move one with .to()")
    return other.array


def _check(operation, boxes):
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise ShapeError(f"{operation}: boxes expects (..., 4), received shape {tuple(boxes.shape)}")


def _reduced(operation, loss, reduction):
    if reduction not in ("none", "mean", "sum"):
        raise UsageError(f"{operation}: reduction expects 'none', 'mean' or 'sum', received {reduction!r}")
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()
