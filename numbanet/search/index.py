"""An index of pictures: a folder with what is known of the files, their vectors, and above a size the graph of their neighbours.

    index.json          which network and layer made the vectors, and of which folders
    files.sqlite        the files (see `catalogue.py`)
    vectors-1.npy       a row for each different contents (see `vectors.py`)
    neighbours.usearch  above EXACT_ROWS rows, where usearch is installed (see `neighbours.py`)
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from numbanet.backends import get_backend
from numbanet.errors import DataError, UsageError
from numbanet.files import write_text
from numbanet.search.catalogue import Catalogue
from numbanet.search.embedding import Embedder, open_embedder
from numbanet.search.neighbours import Neighbours, available
from numbanet.search.vectors import VectorFile, checksum

FORMAT = 1
EXACT_ROWS = 50_000     # up to here every vector is compared: 100,000 x 512 take about 10 ms on two cores
CANDIDATES = 64         # of the graph, at least, which exact products put in order


@dataclass
class Description:
    """What ``index.json`` says.

    Attributes
    ----------
    source : path of weights, run or ONNX file, or a model's name
    model, metadata : as the embedder was opened with
    layer : asked for; None for what feeds the classifier
    layer_text : the same in words
    fingerprint, dimension : of the embedder
    folders : absolute paths
    detector : folder of the weights of a face detector, whose faces are embedded instead of whole pictures
    """

    source: str
    fingerprint: str
    dimension: int
    layer: str | None = None
    layer_text: str = ""
    model: str | None = None
    metadata: str | None = None
    raw: bool = False
    folders: list[str] = field(default_factory=list)
    detector: str | None = None
    format: int = FORMAT


class Hit(NamedTuple):
    """A picture that was found: its path, its similarity (the cosine, 1 for the same) and its row."""

    path: str
    score: float
    row: int


def is_index(path) -> bool:
    """Whether a folder is an index, or was one before it was damaged."""
    return (Path(path) / "index.json").is_file() or (Path(path) / "files.sqlite").is_file()


class ImageIndex:
    """An index on disk, to search in. :func:`numbanet.search.update_index` makes it and brings it up to date.

    Parameters
    ----------
    path : path of the folder
    device : str
        Of the backend that compares vectors.

    Raises
    ------
    DataError
        It is no index, damaged, or of a newer version.
    """

    def __init__(self, path, device: str = "cpu"):
        self.path, self.backend = Path(path), get_backend(device)
        self.description = read_description(self.path)
        self.catalogue = Catalogue(self.path / "files.sqlite")
        self.refresh()

    def refresh(self) -> None:
        """Look at the index as it is now, which others may have changed."""
        for attempt in range(3):
            with self.catalogue.snapshot():
                self.generation, self.count = self.catalogue.get("generation", 1), self.catalogue.get("rows", 0)
                self._stamp = json.loads(self.catalogue.get("neighbours", "null"))
                revision = self.catalogue.get("revision", 0)
            try:
                self._rows = np.asarray(vector_file(self.path, self.description, self.generation).read(self.count))
                break
            except DataError:       # it was compacted in between, or is damaged
                if attempt == 2:
                    raise
        self._graph = self._position = None
        graph = Neighbours(self.path / "neighbours.usearch", self.description.dimension)
        stamp = self._stamp or {}
        current = stamp.get("revision") == revision and stamp.get("generation") == self.generation
        if current and available() and graph.is_whole(stamp) and graph.open():
            self._graph = graph

    @property
    def is_approximate(self) -> bool:
        """Whether searching walks over the graph of neighbours."""
        return self._graph is not None

    def embedder(self, source=None, device: str = "cpu", batch_size: int = 32) -> Embedder:
        """The embedder that made the vectors; `source` is where its network is now, if it was moved.

        Raises
        ------
        UsageError
            It is another network, or other weights.
        """
        return matching_embedder(self.path, self.description, source, device, batch_size)

    def __len__(self) -> int:
        """Files that can be found."""
        return self.catalogue.counts()[0]

    def search(self, queries, k: int = 10, exact: bool = False) -> list[list[Hit]]:
        """The k files nearest to each of the vectors (Q, D), the nearest first; equal ones in the order of their rows and paths.

        Parameters
        ----------
        exact : bool
            Compare with every vector, also where there is a graph.
        """
        queries = np.ascontiguousarray(np.atleast_2d(np.asarray(queries, np.float32)))
        if queries.ndim != 2 or queries.shape[1] != self.description.dimension:
            raise UsageError(f"search: expected vectors of {self.description.dimension} numbers, received shape {queries.shape}")
        if k < 1:
            raise UsageError(f"search: k expects at least 1, received {k}")
        if not self.count or not len(queries):
            return [[] for _ in queries]
        wanted = k
        while True:             # rows that no file has any more are passed over, so that more may have to be asked for
            wanted = min(wanted, self.count)
            values, rows = self._nearest(queries, wanted, exact)
            with self.catalogue.snapshot():
                moved = self.catalogue.get("generation") != self.generation
                files = {} if moved else self.catalogue.of_rows(np.unique(rows[rows >= 0]))
            if moved:           # the vectors were written anew meanwhile: rows have other numbers
                self.refresh()
                return self.search(queries, k, exact)
            found = [self._hits(*one, files) for one in zip(values, rows)]
            if wanted == self.count or min(map(len, found)) >= k:
                return [hits[:k] for hits in found]
            wanted *= 2

    def _hits(self, values, rows, files) -> list[Hit]:
        hits = []
        for value, row in zip(values, rows):
            for known in files.get(int(row), ()):
                if known.crc != checksum(self._rows[row]):
                    raise DataError(f"{self.path}: the vector of {known.path} is damaged; 'numbanet index {self.path}' makes it anew")
                hits.append(Hit(known.path, float(value), int(row)))
        return hits

    def _nearest(self, queries, k: int, exact: bool) -> tuple[np.ndarray, np.ndarray]:
        if exact or self._graph is None or k > len(self._rows) // 8:
            return nearest_rows(queries, self._rows, k, self.backend)
        values, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        for q, candidates in enumerate(self._graph.search(queries, max(CANDIDATES, 2 * k))):
            candidates = np.sort(candidates[(candidates >= 0) & (candidates < self.count)])
            size = min(k, len(candidates))
            values[q, :size], best = nearest_rows(queries[q:q + 1], self._rows[candidates], size, self.backend)
            rows[q, :size] = candidates[best[0]]
        return values, rows

    def nearest_positions(self, queries, count: int) -> np.ndarray:
        """Positions in :meth:`vectors` of about `count` neighbours of each query by the graph alone, (Q, count); -1 where there are fewer.

        For indexes that are approximate.
        """
        rows = self._graph.search(queries, count)
        if self._position is None:
            self._position = np.full(self.count, -1, np.int64)
            alive = np.unique(np.fromiter((row for row, _ in self.catalogue.rows()), np.int64))
            self._position[alive] = np.arange(len(alive))
        return np.where((rows >= 0) & (rows < self.count), self._position[np.clip(rows, 0, self.count - 1)], -1)

    def vectors(self) -> tuple[np.ndarray, list[list[str]]]:
        """All vectors (N, D), mapped where possible, and the paths of each: several where files have equal contents."""
        rows, paths = [], []
        for row, path in self.catalogue.rows():
            if rows and rows[-1] == row:
                paths[-1].append(path)
            elif row < self.count:
                rows.append(row)
                paths.append([path])
        whole = len(rows) == len(self._rows)
        return (self._rows if whole else self._rows[rows]), paths

    def close(self) -> None:
        """Let the files go."""
        self.catalogue.close()
        if self._graph is not None:
            self._graph.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def nearest_rows(queries, rows, k: int, backend) -> tuple[np.ndarray, np.ndarray]:
    """(cosines (Q, k), positions (Q, k)) of the nearest rows, by comparing with all of them."""
    found = backend.nearest_rows(backend.from_numpy(np.ascontiguousarray(queries)), backend.from_numpy(rows), k)
    return tuple(backend.to_numpy(one) for one in found)


def vector_file(path: Path, description: Description, generation: int) -> VectorFile:
    return VectorFile(path / f"vectors-{generation}.npy", description.dimension)


def read_description(path) -> Description:
    """What a folder's ``index.json`` says.

    Raises
    ------
    DataError
        It is missing, damaged, or of a newer version.
    """
    path = Path(path)
    file = path / "index.json"
    if not file.is_file():
        what = "does not exist" if not path.exists() else "is no folder" if not path.is_dir() else "is no index"
        if is_index(path):
            what = "is an index without its index.json"
        raise DataError(f"{path} {what}; make one with 'numbanet index MODEL FOLDER --out {path}'")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        version = values["format"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged ({type(error).__name__}: {error}); make the index again with 'numbanet index MODEL FOLDER --out "
                        f"{path}', which keeps the vectors that fit") from None
    if not isinstance(version, int) or version > FORMAT:
        raise DataError(f"{file}: written by a newer version (format {version}, this one reads up to {FORMAT}); update numbanet, or make "
                        "another index")
    known = {f.name for f in fields(Description)}
    try:
        made = Description(**{name: value for name, value in values.items() if name in known})
        right = isinstance(made.dimension, int) and made.dimension > 0 and isinstance(made.folders, list) and \
            all(isinstance(text, str) for text in (made.source, made.fingerprint, *made.folders))
    except TypeError as error:
        raise DataError(f"{file}: damaged ({error}); make the index again") from None
    if not right:
        raise DataError(f"{file}: damaged (wrong types); make the index again")
    return made


def write_description(path: Path, description: Description) -> None:
    write_text(path / "index.json", json.dumps(asdict(description), indent=2) + "\n")


def matching_embedder(path, description: Description, source=None, device: str = "cpu", batch_size: int = 32) -> Embedder:
    """The embedder that a description tells of, or UsageError where it is no longer the same."""
    embedder = open_embedder(description.source if source is None else source, description.layer, device, model=description.model,
                             metadata=description.metadata, raw=description.raw, batch_size=batch_size)
    check_same(path, description, embedder, description.source if source is None else source)
    return embedder


def check_same(path, description: Description, embedder: Embedder, source) -> None:
    """That an embedder gives the vectors of an index.

    Raises
    ------
    UsageError
        It does not.
    """
    if embedder.fingerprint != description.fingerprint:
        raise UsageError(f"{path}: the index is of {description.source} ({description.layer_text}, {description.dimension} numbers); "
                         f"{source} ({embedder.layer_text}, {embedder.dimension} numbers) has other weights, another layer or other "
                         "preprocessing. Use what the index was made with, or make another index with --out")


def shown(path: str | os.PathLike) -> str:
    """A path as text that can be printed, whatever bytes it is made of."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def folders_of(folders: Sequence) -> list[str]:
    """Absolute paths of folders that exist.

    Raises
    ------
    DataError
        One does not.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            what = "expected a folder, received a file" if Path(folder).exists() else "the folder is missing"
            raise DataError(f"{shown(folder)}: {what}; an index is made of folders of pictures, and 'numbanet index INDEX --forget FOLDER' "
                            "takes one out of it")
    return [os.path.abspath(folder) for folder in folders]
