"""The graph of near neighbours above a size where comparing with every vector takes too long: HNSW of the package usearch, extra `search`.

It holds half-precision copies to walk over; candidates are judged by the exact vectors, which stay on disk. Nothing is lost with it: it
is made of the vectors again whenever it is missing, damaged or behind.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from numbanet.files import atomic_file

CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 128, 128
ADDED = 1 << 14         # vectors added between two looks at the progress
SAVED = 1 << 18         # added between two saves, so that a kill costs little


def available() -> bool:
    """Whether usearch is installed and works here."""
    try:
        import usearch.index  # noqa: F401
    except ImportError:
        return False
    return True


class Neighbours:
    """The graph in a file.

    Parameters
    ----------
    path : Path
    dimension : int
    """

    def __init__(self, path, dimension: int):
        self.path, self.dimension = Path(path), dimension
        self._graph = None

    def _empty(self):
        from usearch.index import Index, MetricKind, ScalarKind
        return Index(ndim=self.dimension, metric=MetricKind.IP, dtype=ScalarKind.F16, connectivity=CONNECTIVITY,
                     expansion_add=EXPANSION_ADD, expansion_search=EXPANSION_SEARCH)

    def stamp(self, digest: bool = True) -> dict | None:
        """What tells the file from another: size, time, and with `digest` its SHA-256; None where there is none."""
        try:
            found = os.stat(self.path)
            made = {"size": found.st_size, "mtime": found.st_mtime_ns}
            if digest:
                with open(self.path, "rb") as file:
                    made["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None
        return made

    def is_whole(self, stamp: dict | None, thorough: bool = False) -> bool:
        """Whether the file is the one that was stamped: a damaged one could crash who reads it."""
        if not stamp:
            return False
        quick = self.stamp(False)
        if quick is None or quick["size"] != stamp.get("size"):
            return False
        if quick["mtime"] == stamp.get("mtime") and not thorough:
            return True
        return self.stamp()["sha256"] == stamp.get("sha256")

    def open(self) -> bool:
        """Map the file to search in it; False where that fails."""
        self._graph = _loaded(self._empty(), "view", self.path)
        return self._graph is not None

    def search(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Rows of about `count` nearest vectors of each query, int64 (Q, count); -1 where there are fewer. After :meth:`open`."""
        self._graph.expansion_search = max(EXPANSION_SEARCH, 2 * count)
        found = self._graph.search(np.ascontiguousarray(queries, np.float32), count)
        keys = np.full((len(queries), count), -1, np.int64)
        if len(queries) == 1 and np.ndim(found.keys) == 1:
            keys[0, :len(found.keys)] = found.keys
            return keys
        for q, length in enumerate(np.atleast_1d(found.counts)):
            keys[q, :length] = found.keys[q, :length]
        return keys

    def close(self) -> None:
        """Let the file go."""
        self._graph = None

    def prepare(self, rows: np.ndarray, stamp: dict | None) -> int:
        """Begin to let the graph hold exactly these rows (int64, sorted): those that are gone leave it. Returns how many are to be added.

        Parameters
        ----------
        rows
        stamp : of the file as it was last saved, which is used if it is whole
        """
        self.close()
        self._changed, graph = False, None
        if self.is_whole(stamp, thorough=True):
            graph = _loaded(self._empty(), "load", self.path)
        graph = self._empty() if graph is None else graph
        there = np.sort(np.fromiter(graph.keys, np.int64, len(graph))) if len(graph) else np.empty(0, np.int64)
        gone, self._new = np.setdiff1d(there, rows, assume_unique=True), np.setdiff1d(rows, there, assume_unique=True)
        if len(gone) > len(there) // 4:         # a graph of many holes finds less
            graph, self._new, gone = self._empty(), rows, gone[:0]
        if len(gone):
            graph.remove(gone.astype(np.uint64))
            self._changed = True
        self._building = graph
        return len(self._new)

    def add(self, vectors: np.ndarray, keep: Callable[[dict | None, bool], None]) -> Iterator[int]:
        """Add what is missing after :meth:`prepare`, and save; yields each row.

        Parameters
        ----------
        vectors : (N, D), mapped: only the rows that are added are read
        keep : called with a new stamp whenever the file was saved, and whether it is complete; with None where it did not change
        """
        graph, since = self._building, 0
        for first in range(0, len(self._new), ADDED):
            some = self._new[first:first + ADDED]
            graph.add(some.astype(np.uint64), np.ascontiguousarray(vectors[some]), copy=True)
            since += len(some)
            yield from some
            if since >= SAVED and first + ADDED < len(self._new):
                self._save()
                keep(self.stamp(), False)
                since = 0
        if self._changed or len(self._new):
            self._save()
        self._building = None
        keep(self.stamp() if self._changed or len(self._new) else None, True)

    def _save(self) -> None:
        with atomic_file(self.path) as temporary:
            self._building.save(str(temporary))


def _loaded(graph, how: str, path: Path):
    """The graph of a file, or None where usearch refuses it or it is of other vectors."""
    dimension = graph.ndim
    try:
        getattr(graph, how)(str(path))
    except Exception:           # usearch raises whatever a damaged file leads it to
        return None
    if graph.ndim != dimension:
        return None
    graph.expansion_add, graph.expansion_search = EXPANSION_ADD, EXPANSION_SEARCH
    return graph
