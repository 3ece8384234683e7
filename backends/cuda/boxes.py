"""Overlaps of rectangles: `contract/boxes.py`.

nms: the boxes are sorted by score, and then decided in rounds. A box goes if a better one that remains overlaps it, and remains if no
better one that is undecided does. A thread that sees the decision of another in the same round decides no differently than a round
later, so the result is that of going through them one by one. There are as many rounds as the longest chain of such decisions, few in
practice, of N threads each that stop at the first box that decides.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.cuda.compile import Sizes, device, kernel
from numbanet.backends.cuda.index import grid_stride, split, thread
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.sorting import INT64, ORDERS

UINT8 = np.dtype(np.uint8)


@device
def _side(low1, high1, low2, high2):
    """The length that two intervals have in common; NaN stays NaN."""
    low = low1 if low1 > low2 or low1 != low1 else low2
    high = high1 if high1 < high2 or high1 != high1 else high2
    length = high - low
    return 0.0 if length < 0.0 else length


@kernel
def iou(boxes1, boxes2, out, total, M: Sizes, row1, column1, row2, column2, out_row, out_column):
    for i in grid_stride(total):
        n, m = split(i, M)
        a, b = n * row1, m * row2
        left1, top1, right1, bottom1 = boxes1[a], boxes1[a + column1], boxes1[a + 2 * column1], boxes1[a + 3 * column1]
        left2, top2, right2, bottom2 = boxes2[b], boxes2[b + column2], boxes2[b + 2 * column2], boxes2[b + 3 * column2]
        common = _side(left1, right1, left2, right2) * _side(top1, bottom1, top2, bottom2)
        area1, area2 = (right1 - left1) * (bottom1 - top1), (right2 - left2) * (bottom2 - top2)
        out[n * out_row + m * out_column] = common / (area1 + area2 - common)


@kernel
def ordered_boxes(boxes, classes, positions, ordered, own, total, row, column, class_step):
    """ordered[i] = left, top, right, bottom and area of the i-th best box, own[i] its class."""
    for i in grid_stride(total):
        b = positions[i] * row
        left, top, right, bottom = boxes[b], boxes[b + column], boxes[b + 2 * column], boxes[b + 3 * column]
        ordered[5 * i], ordered[5 * i + 1], ordered[5 * i + 2], ordered[5 * i + 3] = left, top, right, bottom
        ordered[5 * i + 4] = (right - left) * (bottom - top)
        own[i] = classes[positions[i] * class_step] if class_step else 0


@kernel
def decide(ordered, own, states, undecided, threshold, smaller, total):
    """One round of states 0 undecided, 1 remains, 2 gone; undecided[0] becomes 1 where another one is needed."""
    for i in grid_stride(total):
        if states[i] == 0:
            left, top, right, bottom, area = ordered[5 * i], ordered[5 * i + 1], ordered[5 * i + 2], ordered[5 * i + 3], ordered[5 * i + 4]
            state, j = 1, 0
            while j < i and state != 2:
                other = states[j]
                if other != 2 and own[j] == own[i]:
                    b = 5 * j
                    common = _side(left, right, ordered[b], ordered[b + 2]) * _side(top, bottom, ordered[b + 1], ordered[b + 3])
                    area2 = ordered[b + 4]
                    whole = area + area2 - common
                    if smaller:
                        whole = area if area < area2 or area != area else area2
                    if common / whole > threshold:
                        state = 2 if other == 1 else 0
                j += 1
            if state == 0:
                undecided[0] = 1
            else:
                states[i] = state


@kernel
def kept_positions(positions, states, out, count, total, out_step):
    """out[k] = the position of the k-th box that remains, -1 after the last."""
    for i in grid_stride(total):
        before = 0
        for j in range(i):
            before += 1 if states[j] == 1 else 0
        here = states[i] == 1
        if here:
            out[before * out_step] = positions[i]
        if i == total - 1:
            remain = before + 1 if here else before
            count[0] = remain
            for k in range(remain, total):
                out[k * out_step] = -1


@implements
def box_iou(boxes1, boxes2, out):
    launch(iou, out.size, boxes1, boxes2, out, out.size, out.shape[1], *boxes1.steps, *boxes2.steps, *out.steps)


@implements
def nms(boxes, scores, classes, iou_threshold, smaller, out):
    allocator, total = boxes.lease.allocator, boxes.shape[0]
    if not total:
        launch(no_boxes, 1, out[1])
        return
    positions, _ = ORDERS[True](scores, 0)
    ordered, own = allocator.empty((5 * total,), boxes.dtype), allocator.empty((total,), INT64)
    launch(ordered_boxes, total, boxes, positions if classes is None else classes, positions, ordered, own, total, *boxes.steps,
           0 if classes is None else classes.steps[0])
    states = allocator.from_numpy(np.zeros(total, UINT8))
    while True:
        undecided = allocator.from_numpy(np.zeros(1, UINT8))
        launch(decide, total, ordered, own, states, undecided, number(iou_threshold, boxes.dtype), int(smaller), total)
        if not allocator.to_numpy(undecided)[0]:
            break
    launch(kept_positions, total, positions, states, out[0], out[1], total, out[0].steps[0])


@kernel
def no_boxes(count):
    if thread() == 0:
        count[0] = 0
