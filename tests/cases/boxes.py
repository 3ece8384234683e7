"""Cases of overlaps of rectangles and their suppression."""

import numpy as np

from tests.cases.case import PrimitiveCase, floats, strided

OPERATION_CASES = []        # the primitives have no gradient; losses of boxes are made of other operations


def _boxes(rng, count, whole=True):
    corner, size = rng.uniform(-20, 60, (count, 2)), rng.uniform(0.5, 30, (count, 2))
    boxes = np.concatenate([corner, corner + size], 1)
    return (np.round(boxes) if whole else boxes).astype(np.float32)


def _iou(label, n, m, layout=lambda x: x, change=None):
    def arguments(rng):
        first, second = _boxes(rng, n, False), _boxes(rng, m, False)
        if change is not None:
            change(first, second)
        return layout(first), layout(second)
    return PrimitiveCase("box_iou", arguments, label=label)


def _special(first, second):
    """No area, inside out, outside of all others, NaN and infinity."""
    first[0], first[1] = (5, 5, 5, 5), (9, 9, 3, 2)
    second[0], second[1], second[2, 1], second[3, 2] = (5, 5, 5, 5), (1e4, 1e4, 2e4, 2e4), np.nan, np.inf
    second[4] = first[4]


def _nms(label, count, threshold=0.5, classes=0, smaller=False, layout=lambda x: x, change=None, scores=floats):
    def arguments(rng):
        boxes, values = _boxes(rng, count), scores(rng, count)
        if change is not None:
            change(boxes, values)
        return layout(boxes), layout(values), layout(rng.integers(-2, classes - 2, count)) if classes else None, threshold, smaller
    return PrimitiveCase("nms", arguments, exact=True, label=label)


def _ties(rng, count):
    return rng.integers(0, 4, count).astype(np.float32)


def _strange(boxes, scores):
    boxes[0], boxes[1], boxes[2, 0], boxes[3, 3] = (5, 5, 5, 5), (9, 9, 3, 2), np.nan, np.inf
    boxes[4:9] = boxes[4]
    scores[5], scores[6], scores[8] = np.nan, np.inf, -np.inf


def _equal(boxes, scores):
    boxes[:] = boxes[0]


def _apart(boxes, scores):
    boxes[:] = 100 * np.arange(len(boxes), dtype=np.float32)[:, None] + np.array([0, 0, 9, 9], np.float32)


PRIMITIVE_CASES = [
    *[_iou(f"{n}-{m}", n, m) for n, m in ((1, 1), (7, 33), (40, 16), (0, 5), (5, 0))],
    _iou("strided", 9, 21, strided), _iou("by-columns", 9, 21, np.asfortranarray), _iou("special", 9, 20, change=_special),
    *[_nms(f"{count}", count) for count in (0, 1, 2, 17, 300)],
    *[_nms(f"threshold-{threshold}", 150, threshold) for threshold in (0.0, 0.3, 1.0)],
    _nms("classes", 200, 0.2, 3), _nms("one-class-each", 40, 0.1, 1000), _nms("smaller", 200, 0.4, smaller=True),
    _nms("smaller-classes", 120, 0.3, 2, True), _nms("ties", 200, 0.3, scores=_ties), _nms("ties-classes", 200, 0.3, 4, scores=_ties),
    _nms("strange", 60, change=_strange), _nms("strange-smaller", 60, 0.2, 2, True, change=_strange),
    _nms("equal", 70, change=_equal), _nms("apart", 70, change=_apart),
    _nms("strided", 90, 0.3, 3, layout=strided),
]
