"""Pictures whose object is known: a square with a texture on smooth clouds. A small network learns them in seconds."""

import numpy as np

import numbanet
from numbanet import nn

SIZE, CLASSES = 32, 3       # level stripes, upright stripes, a chessboard


def draw_scenes(count: int, seed: int):
    """float32 (N, 3, 32, 32), labels (N,), boxes (N, 4): top, left, bottom, right."""
    rng = np.random.default_rng(seed)
    images, labels, boxes = np.empty((count, 3, SIZE, SIZE), np.float32), rng.integers(0, CLASSES, count), np.empty((count, 4), int)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for i, label in enumerate(labels):
        slopes, phase = rng.uniform(-0.15, 0.15, (3, 2)), rng.uniform(0, 6, 3)
        images[i] = 0.6 * np.sin(slopes[:, :1, None] * rows + slopes[:, 1:, None] * columns + phase[:, None, None])
        images[i] += rng.normal(0, 0.15, (3, SIZE, SIZE))
        side = rng.integers(9, 14)
        top, left = rng.integers(0, SIZE - side + 1, 2)
        pattern = [rows // 2, columns // 2, rows // 2 + columns // 2][label] % 2 * 2 - 1
        inside = np.s_[top:top + side, left:left + side]
        images[(i, slice(None), *inside)] += rng.uniform(0.5, 1.2, (3, 1, 1)) * rng.choice([-1, 1]) * pattern[inside]
        boxes[i] = top, left, top + side, left + side
    return images, labels, boxes


def train_network(seed: int = 0):
    """A classifier of the scenes, and the position of its last maps."""
    images, labels, _ = draw_scenes(600, seed=1)
    with numbanet.random.fork_rng():
        numbanet.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(3, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(),
                              nn.MaxPool2d(2), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                              nn.Linear(24, CLASSES))
        optimizer = numbanet.optim.AdamW(model.parameters(), lr=6e-3)
        order = np.random.default_rng(2)
        for _ in range(6):
            for batch in order.permutation(600).reshape(-1, 50):
                loss = nn.functional.cross_entropy(model(numbanet.tensor(images[batch])), numbanet.tensor(labels[batch]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return model.eval()


def hits(maps: np.ndarray, boxes: np.ndarray) -> float:
    """How often a map's greatest value lies in the box: the pointing game (Zhang and others, 2016)."""
    peaks = [divmod(int(m.argmax()), m.shape[1]) for m in maps]
    return float(np.mean([top <= y < bottom and left <= x < right for (y, x), (top, left, bottom, right) in zip(peaks, boxes)]))
