"""The loss of a detector: a composition of tensor operations over fixed shapes, so that the whole step can be compiled."""

from __future__ import annotations

import numbanet
from numbanet.detection.targets import BACKGROUND, IGNORED
from numbanet.nn import functional as F
from numbanet.ops.boxes import generalized_box_iou_loss, sigmoid_focal_loss

BOX, FIT = 2.0, 0.5             # weights of the losses of boxes and of their fit, beside that of the classes
TINY = 1e-7


def detection_loss(outputs, targets):
    """Focal loss of the classes, generalised IoU of the boxes, and cross-entropy of how well they fit, by the number of positives.

    Parameters
    ----------
    outputs : Tensor (N, P, num_classes + 5)
        Of :class:`~numbanet.detection.Detector`.
    targets : Tensor float32 (N, P, 5)
        Of :meth:`~numbanet.detection.Levels.encode`.

    Returns
    -------
    Tensor ()
    """
    k = outputs.shape[2] - 5
    logits, boxes, fit = outputs[:, :, :k], outputs[:, :, k:k + 4], outputs[:, :, k + 4]
    labels, truth = targets[:, :, 0], targets[:, :, 1:]
    classes = numbanet.arange(k, dtype=outputs.dtype, device=outputs.device)
    positive = (labels > BACKGROUND).to(dtype=outputs.dtype)
    counted = (labels > IGNORED).to(dtype=outputs.dtype)
    count = positive.sum().clamp(1.0)
    is_class = (labels.unsqueeze(2) == classes).to(dtype=outputs.dtype)
    classified = (sigmoid_focal_loss(logits, is_class) * counted.unsqueeze(2)).sum()
    placed = (generalized_box_iou_loss(boxes, truth) * positive).sum()
    fitting = (F.binary_cross_entropy_with_logits(fit, _iou(boxes.detach(), truth), reduction="none") * positive).sum()
    return (classified + BOX * placed + FIT * fitting) / count


def _iou(a, b):
    """Of boxes (N, P, 4) at the same positions, without a gradient."""
    low, high = numbanet.maximum(a[:, :, :2], b[:, :, :2]), numbanet.minimum(a[:, :, 2:], b[:, :, 2:])
    sides, first, second = (high - low).clamp(0.0), a[:, :, 2:] - a[:, :, :2], b[:, :, 2:] - b[:, :, :2]
    common = sides[:, :, 0] * sides[:, :, 1]
    return common / (first[:, :, 0] * first[:, :, 1] + second[:, :, 0] * second[:, :, 1] - common + TINY)
