"""Pictures that are there more than once: the same bytes, or so similar that one was made of the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from numbanet.backends import get_backend
from numbanet.errors import UsageError
from numbanet.search.index import ImageIndex

THRESHOLD = 0.95
BLOCK = 1024            # rows compared with all that follow, at once
FIRST, MOST = 32, 4096  # neighbours that a large index is asked for: at first, and where all of these are similar
GATHERED = 1 << 14      # vectors of neighbours in memory at once
ROUNDING = 4e-7         # of float32 products: vectors with themselves are not quite 1


class Copy(NamedTuple):
    """A member of a group: its path, its cosine with the group's first, and whether another member has the same bytes."""

    path: str
    score: float
    same_bytes: bool


@dataclass
class Group:
    """Files that show the same: the largest file first, then by falling similarity to it."""

    members: list[Copy]

    @property
    def is_exact(self) -> bool:
        """Whether all have the same bytes."""
        return all(member.same_bytes for member in self.members) and min(member.score for member in self.members) >= 1 - 1e-6


def find_duplicates(index: ImageIndex, threshold: float = THRESHOLD, watch=lambda iterator, total, title: iterator) -> list[Group]:
    """Groups of files of equal contents, or whose vectors' cosine reaches `threshold`, from one member to the next.

    Small indexes compare all pairs; large ones walk over the graph of neighbours, and may miss a pair that it misses.

    Raises
    ------
    UsageError
        `threshold` is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"dedup: threshold expects a number above 0 and at most 1, received {threshold}")
    vectors, paths = index.vectors()
    pairs = _from_graph(index, threshold) if index.is_approximate else similar_pairs(vectors, threshold, index.backend)
    root = np.arange(len(vectors))
    for first, second in watch(pairs, -(-len(vectors) // BLOCK), "comparing"):
        connect(root, first, second)
    order = np.argsort(root, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(root[order])) + 1) if len(order) else []
    made = [_group(rows, vectors, paths) for rows in groups if len(rows) > 1 or len(paths[rows[0]]) > 1]
    return sorted(made, key=lambda group: (-len(group.members), group.members[0].path))


def similar_pairs(vectors: np.ndarray, threshold: float, backend=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions (first, second) of all pairs whose inner product reaches `threshold`, first < second, a block of rows at a time."""
    backend = backend or get_backend("cpu")
    for begin in range(0, len(vectors), BLOCK):
        block, rest = np.ascontiguousarray(vectors[begin:begin + BLOCK]), vectors[begin:]
        products = backend.to_numpy(backend.matmul(backend.from_numpy(block), backend.transpose(backend.from_numpy(rest), (1, 0))))
        first, second = np.nonzero(products >= threshold - ROUNDING)
        after = second > first
        yield first[after] + begin, second[after] + begin


def _from_graph(index: ImageIndex, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same from neighbours in the graph; rows with many get asked again for more."""
    vectors, _ = index.vectors()
    for begin in range(0, len(vectors), BLOCK):
        rows = np.arange(begin, min(begin + BLOCK, len(vectors)))
        wanted, found = FIRST, [(np.empty(0, np.int64), np.empty(0, np.int64))]
        while len(rows):
            wanted, full = min(wanted, len(vectors)), []
            for some in np.array_split(rows, -(-len(rows) * wanted // GATHERED)):
                hits = index.nearest_positions(vectors[some], wanted)
                scores = np.where(hits >= 0, np.einsum("qkd,qd->qk", vectors[hits], vectors[some]), -1)
                near = scores >= threshold - ROUNDING
                first, place = np.nonzero(near)
                found.append((some[first], hits[first, place]))
                full.append(some[near.all(1)])
            rows = np.concatenate(full) if wanted < min(len(vectors), MOST) else rows[:0]
            wanted *= 4
        yield tuple(np.concatenate(parts) for parts in zip(*found))


def connect(root: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Join what is connected: afterwards root[i] is the least position of i's group. `root` is changed."""
    while True:
        a, b = root[first], root[second]
        apart = a != b
        if not apart.any():
            return
        np.minimum.at(root, np.maximum(a, b)[apart], np.minimum(a, b)[apart])
        while (root[root] != root).any():
            root[:] = root[root]


def _group(rows, vectors, paths) -> Group:
    members = [(path, row) for row in rows for path in paths[row]]
    lead = min(members, key=lambda member: (-_size(member[0]), member[0]))
    made = [Copy(path, 1.0 if row == lead[1] else float(np.dot(vectors[row].astype(np.float64), vectors[lead[1]])), len(paths[row]) > 1)
            for path, row in members]
    return Group(sorted(made, key=lambda copy: (copy.path != lead[0], -copy.score, copy.path)))


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
