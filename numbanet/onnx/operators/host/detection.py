"""Regions and boxes, in NumPy."""

from __future__ import annotations

import math

import numpy as np

from numbanet.errors import ShapeError
from numbanet.onnx.operators.host.sampling import bilinear
from numbanet.onnx.operators.registry import host_operator


@host_operator("RoiAlign")
def roi_align(node, x, rois, batch_indices):
    """Bilinear samples of each region (x1, y1, x2, y2), pooled to (regions, C, OH, OW) (He et al. 2017)."""
    OH, OW = node.attributes.get("output_height", 1), node.attributes.get("output_width", 1)
    ratio, scale = node.attributes.get("sampling_ratio", 0), node.attributes.get("spatial_scale", 1.0)
    usual = "half_pixel" if node.version >= 16 else "output_half_pixel"
    half_pixel = node.attributes.get("coordinate_transformation_mode", usual) == "half_pixel"
    H, W = x.shape[2:]
    y = np.empty((len(rois), x.shape[1], OH, OW))
    for region, (roi, batch) in enumerate(zip(rois.astype(np.float64), batch_indices)):
        left, top, right, bottom = roi * scale - (0.5 if half_pixel else 0.0)
        height, width = bottom - top, right - left
        if not half_pixel:
            height, width = max(height, 1.0), max(width, 1.0)
        per_row, per_column = (ratio, ratio) if ratio > 0 else (math.ceil(height / OH), math.ceil(width / OW))
        if max(per_row * OH, per_column * OW) > 1 << 14:
            raise ShapeError(f"{node}: expected at most {1 << 14} samples along a region's side, received the region {roi.tolist()}")
        ys = top + (np.arange(OH * per_row) + 0.5) * height / (OH * per_row)
        xs = left + (np.arange(OW * per_column) + 0.5) * width / (OW * per_column)
        valid = ((ys >= -1) & (ys <= H))[:, None] & ((xs >= -1) & (xs <= W))
        terms = bilinear(x[batch], np.clip(ys, 0, H - 1)[:, None], np.clip(xs, 0, W - 1)[None, :]) * valid     # (4, C, ys, xs)
        bins = terms.reshape(4, x.shape[1], OH, per_row, OW, per_column)
        # In mode max the specification takes the largest weighted neighbour, not the largest interpolated value.
        y[region] = bins.sum(0).mean((2, 4)) if node.attributes.get("mode", "avg") == "avg" else bins.max((0, 3, 5))
    return y.astype(x.dtype)


def _corners(boxes, centred: bool):
    """(y1, x1, y2, x2), ordered."""
    if centred:
        x, y, width, height = np.moveaxis(boxes, -1, 0)
        return np.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], -1)
    first, second = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], -1)


@host_operator("NonMaxSuppression")
def non_max_suppression(node, boxes, scores, max_per_class=None, iou_threshold=None, score_threshold=None):
    """(batch, class, box) of the best boxes that overlap no better one of their class by more than the threshold."""
    most = 0 if max_per_class is None else int(np.ravel(max_per_class)[0])
    overlap = 0.0 if iou_threshold is None else float(np.ravel(iou_threshold)[0])
    selected = []
    corners = _corners(boxes.astype(np.float64), bool(node.attributes.get("center_point_box", 0)))
    areas = np.prod(corners[..., 2:] - corners[..., :2], -1)
    for batch, kind in np.ndindex(*scores.shape[:2]):
        order = np.argsort(-scores[batch, kind], kind="stable")
        if score_threshold is not None:
            order = order[scores[batch, kind][order] > float(np.ravel(score_threshold)[0])]
        kept = 0
        while order.size and kept < most:
            best, order = order[0], order[1:]
            selected.append((batch, kind, best))
            kept += 1
            low = np.maximum(corners[batch, best, :2], corners[batch, order, :2])
            high = np.minimum(corners[batch, best, 2:], corners[batch, order, 2:])
            shared = np.prod(np.maximum(0, high - low), -1)
            union = areas[batch, best] + areas[batch, order] - shared
            order = order[shared <= overlap * union]
    return np.array(selected, np.int64).reshape(-1, 3)
