"""Suppression of many boxes beside a vectorised NumPy version: ``python benchmarks/boxes.py [COUNT]``.

Boxes as a detector gives them (clusters around objects) and boxes anywhere, most of which remain; both in turns, medians and quartiles.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np

import numbanet
from numbanet.ops.boxes import nms

ROUNDS, THRESHOLD = 7, 0.5


def suppressed(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy suppression, each better box compared with all that are left at once."""
    left, top, right, bottom = boxes.T
    areas, order, kept = (right - left) * (bottom - top), np.argsort(-scores, kind="stable"), []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        width = np.maximum(np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]), 0)
        height = np.maximum(np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]), 0)
        common = width * height
        order = rest[common / (areas[best] + areas[rest] - common) <= threshold]
    return np.array(kept)


def made_up(kind: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if kind == "clusters":
        middles, sizes = rng.uniform(50, 950, (200, 2)), rng.uniform(20, 150, (200, 2))
        of = rng.integers(0, 200, count)
        corner = middles[of] - sizes[of] / 2 + rng.normal(0, 6, (count, 2))
        corners = corner, corner + sizes[of] * rng.uniform(0.8, 1.25, (count, 2))
    else:
        corner = rng.uniform(0, 1000, (count, 2))
        corners = corner, corner + rng.uniform(10, 60, (count, 2))
    return np.concatenate(corners, 1).astype(np.float32), rng.random(count).astype(np.float32)


def milliseconds(run, *arguments) -> float:
    started = time.perf_counter()
    run(*arguments)
    return 1e3 * (time.perf_counter() - started)


def main(count: int = 10_000) -> None:
    rng = np.random.default_rng(0)
    print(f"{count:,} boxes, threshold {THRESHOLD}")
    print(f"{'boxes':<10} {'remain':>7} {'NumPy ms':>9} {'numbanet ms':>12} {'times as fast':>14}  quartiles")
    for kind in ("clusters", "anywhere"):
        boxes, scores = made_up(kind, count, rng)
        tensors = numbanet.tensor(boxes), numbanet.tensor(scores)
        kept = nms(*tensors, THRESHOLD).numpy()
        assert (kept == suppressed(boxes, scores, THRESHOLD)).all()
        theirs, ours = [], []
        for _ in range(ROUNDS):
            theirs.append(milliseconds(suppressed, boxes, scores, THRESHOLD))
            ours.append(milliseconds(nms, *tensors, THRESHOLD))
        low, middle, high = statistics.quantiles([a / b for a, b in zip(theirs, ours)], n=4)
        print(f"{kind:<10} {len(kept):>7,} {statistics.median(theirs):>9.1f} {statistics.median(ours):>12.2f} {middle:>14.1f}  "
              f"{low:.1f} to {high:.1f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
