"""Overlaps of rectangles on the CPU, as `contract/boxes.py` defines them. float64 is NumPy's.

box_iou: rows of jobs; the M boxes lie as four rows (4, M), of which L are compared with one box at a time.
nms: positions are sorted by class and falling score. A box is compared with those of its class that remain, which lie packed as rows
left, top, right, bottom and area, L at a time and the best first, up to the first that it overlaps: a box that goes has most often gone
by then, and never costs later ones anything. One thread does it: 10,000 boxes take a millisecond, of which waking others is a part.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from numbanet.backends.cpu import memory
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.out_of_line import out_of_line
from numbanet.backends.cpu.registry import implements
from numbanet.backends.cpu.simd import L, any_lane, load_partial, maximum, minimum, splat, store_partial
from numbanet.backends.reference import boxes as numpy


@worker
def common_of(left, top, right, bottom, boxes, m, count):
    """The area that a box has in common with `count` (at most L) of boxes (4, M), from m on."""
    M = boxes.shape[1]
    width = minimum(splat(right), load_partial(boxes, 2 * M + m, count)) - maximum(splat(left), load_partial(boxes, m, count))
    height = minimum(splat(bottom), load_partial(boxes, 3 * M + m, count)) - maximum(splat(top), load_partial(boxes, M + m, count))
    return maximum(width, splat(0.0)) * maximum(height, splat(0.0))


@worker
def iou_of_row(boxes1, boxes2, areas, n, out):
    out_of_line()
    M = boxes2.shape[1]
    left, top, right, bottom = boxes1[n, 0], boxes1[n, 1], boxes1[n, 2], boxes1[n, 3]
    area = (right - left) * (bottom - top)
    for m in range(0, M, L):
        common = common_of(left, top, right, bottom, boxes2, m, M - m)
        store_partial(out, n * M + m, common / (splat(area) + load_partial(areas, m, M - m) - common), M - m)


@kernel("void(const T[:,::1], const T[:,::1], const T[::1], T[:,::1])", parallel=True)
def box_iou_rows(boxes1, boxes2, areas, out):
    for n in prange(boxes1.shape[0]):
        iou_of_row(boxes1, boxes2, areas, n, out)


@implements
def box_iou(boxes1, boxes2, out):
    if not out.size:
        return
    if out.dtype == np.float64:
        return numpy.box_iou(boxes1, boxes2, out)
    dense = out if out.flags.c_contiguous else memory.empty(out.shape, out.dtype)
    box_iou_rows(np.ascontiguousarray(boxes1), np.ascontiguousarray(boxes2.T), numpy.areas_of(boxes2), dense)
    if dense is not out:
        out[...] = dense


@worker
def suppress(boxes, areas, first, last, threshold, smaller, kept, remains):
    """Boxes first, ..., last - 1, best first: remains[n] says which; kept (5, N) holds those from `first` on."""
    out_of_line()
    N, K = boxes.shape[1], 0
    bound = np.float32(threshold * np.float32(0.999999))        # passes whatever the division would: dividing takes longer than all else
    for n in range(first, last):
        left, top, right, bottom, area = boxes[0, n], boxes[1, n], boxes[2, n], boxes[3, n], areas[n]
        gone = False
        for k in range(0, K, L):
            common = common_of(left, top, right, bottom, kept, first + k, K - k)
            beside = load_partial(kept, 4 * N + first + k, K - k)
            whole = minimum(splat(area), beside) if smaller else splat(area) + beside - common
            if any_lane(common > splat(bound) * whole) and any_lane(common / whole > splat(threshold)):     # past the last: 0, or NaN
                gone = True
                break
        remains[n] = not gone
        if not gone:
            kept[0, first + K], kept[1, first + K], kept[2, first + K], kept[3, first + K] = left, top, right, bottom
            kept[4, first + K] = area
            K += 1


@kernel("void(const T[:,::1], const T[::1], i8[::1], T, boolean, T[:,::1], boolean[::1])")
def nms_of_classes(boxes, areas, starts, threshold, smaller, kept, remains):
    for c in range(starts.shape[0] - 1):
        suppress(boxes, areas, starts[c], starts[c + 1], threshold, smaller, kept, remains)


def falling(scores: np.ndarray) -> np.ndarray:
    """Positions of falling float32 scores, NaN first, equal ones as they stand: of 64-bit keys, which sort in vectors, unlike positions."""
    bits = np.where(np.isnan(scores), np.float32(np.nan), scores + np.float32(0)).view(np.uint32)      # one zero, one NaN
    rising = bits ^ np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    keys = (~rising).astype(np.uint64) << np.uint64(32) | np.arange(len(scores), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


@implements
def nms(boxes, scores, classes, iou_threshold, smaller, out):
    N = len(boxes)
    if boxes.dtype == np.float64 or not N:
        return numpy.nms(boxes, scores, classes, iou_threshold, smaller, out)
    order = falling(scores)
    places, starts = np.arange(N), np.array([0, N])         # places: in `order`, sorted by class
    if classes is not None:
        places = np.argsort(classes[order], kind="stable")
        starts = np.concatenate([[0], np.flatnonzero(np.diff(classes[order][places])) + 1, [N]])
    ordered = np.ascontiguousarray(boxes[order[places]].T)
    areas = numpy.areas_of(ordered.T)
    kept, found = memory.empty((5, N), boxes.dtype), np.empty(N, bool)
    nms_of_classes(ordered, areas, starts, np.float32(iou_threshold), bool(smaller), kept, found)
    remains = np.empty(N, bool)
    remains[places] = found
    chosen = order[remains]
    out[0][...] = -1
    out[0][:len(chosen)] = chosen
    out[1][0] = len(chosen)
