"""Bringing an index up to date: only files that are new, changed or gone are touched, and what is done is kept whenever it ends.

Vectors are written behind those that count, flushed, and then entered in the catalogue in one transaction: whatever happens before that
leaves the index as it was, and the next run goes on there.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from numbanet.data.images import is_image_file
from numbanet.errors import CheckpointError, DataError, UsageError
from numbanet.files import FolderLock
from numbanet.search.catalogue import Catalogue, Known
from numbanet.search.embedding import Embedder
from numbanet.search.index import (
    EXACT_ROWS,
    Description,
    check_same,
    folders_of,
    is_index,
    matching_embedder,
    read_description,
    vector_file,
    write_description,
)
from numbanet.search.neighbours import Neighbours, available
from numbanet.search.reading import Embedded, embed_files
from numbanet.search.vectors import checksum

logger = logging.getLogger("numbanet.search")

COMMIT_SECONDS = 2.0            # of work that a kill may cost
COMMIT_FILES = 8192
CHUNK = 1 << 14                 # rows that are copied or checked at once
FEW_ROWS = 1024                 # below which holes are left alone


@dataclass
class Updated:
    """What an update did: numbers of files, and those that were skipped with the reason."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    reused: int = 0             # of those added or changed: contents that were known, which cost no work of the network
    repaired: int = 0           # vectors that were damaged
    skipped: list[tuple[str, str]] = field(default_factory=list)
    files: int = 0              # that can be found now
    rows: int = 0               # different contents
    seconds: float = 0.0


def _plain(iterator: Iterable, total: int, title: str) -> Iterable:
    return iterator


def update_index(path, embedder: Embedder | None = None, folders: Sequence | None = None, *, source: str | None = None,
                 model: str | None = None, metadata=None, detector: str | None = None, reader: Callable | None = None,
                 forget: Sequence = (), num_workers: int | None = None, device: str = "cpu", watch: Callable = _plain,
                 exact_rows: int = EXACT_ROWS) -> Updated:
    """Make an index, or bring one up to date.

    Parameters
    ----------
    path : path of the index
    embedder : Embedder, optional
        By default that of the index.
    folders : sequence of paths, optional
        Of pictures, with all folders inside; those of an index that is there already stay. By default its own.
    source, model, metadata
        Where the embedder came from, so that searching finds it.
    detector, reader
        The folder of a face detector's weights, and what makes pixels of a file with it.
    forget : sequence of paths
        Folders that are to leave the index, whether they are still there or not.
    num_workers : int, optional
        Threads that read and decode.
    watch : callable (iterable, total, title) -> iterable
        To show progress.
    exact_rows : int
        Up to how many vectors there is no graph of neighbours.

    Raises
    ------
    DataError
        A folder is missing, or there are no pictures at all.
    UsageError
        The index is of another network, layer or preprocessing.
    CheckpointError
        Another process is writing to it, or the disk is full; what was done before stays.
    """
    path, began = Path(path), time.perf_counter()
    folders = folders_of(folders or ())
    if not is_index(path):
        if embedder is None or not folders:
            raise DataError(f"{path} is no index; make one with 'numbanet index MODEL FOLDER --out {path}'")
        if path.exists() and (not path.is_dir() or any(p.name != ".lock" for p in path.iterdir())):
            raise UsageError(f"{path}: exists, and is no index; choose another folder with --out")
        _scan(folders, path)            # an empty folder is told before anything is made
    with _explained(path), FolderLock(path):
        description = _description(path, embedder, folders, forget, source, model, metadata, detector)
        if embedder is None:
            embedder = matching_embedder(path, description, source, device)
        folders_of(description.folders)
        return _Update(path, description, embedder, reader, num_workers, watch, exact_rows).run(began)


def _description(path: Path, embedder, folders, forget, source, model, metadata, detector) -> Description:
    """That of the index, with the folders that are added; of a new one, or one whose description is lost, a new one."""
    try:
        description = read_description(path)
    except DataError as error:
        if embedder is None or "newer version" in str(error):
            raise
        description = None
    if description is None:
        if not folders:
            raise DataError(f"{path}: index.json is missing or damaged; name the model and the folders again: 'numbanet index MODEL FOLDER "
                            f"--out {path}'")
        made = Description(os.path.abspath(source) if source and os.path.exists(source) else source or "", embedder.fingerprint,
                           embedder.dimension, embedder.layer if embedder.side == "output" else None, embedder.layer_text, model,
                           None if metadata is None else os.path.abspath(metadata), embedder.raw, [], detector)
    else:
        if embedder is not None:
            check_same(path, description, embedder, source or "the network given")
        if detector is not None and detector != description.detector:
            what = "of whole pictures" if description.detector is None else f"made with the detector of {description.detector}"
            raise UsageError(f"{path}: the index is {what}; make another index with --out")
        made = replace(description, folders=list(description.folders))
    for folder in map(os.path.abspath, forget):
        if folder not in made.folders:
            raise UsageError(f"{path}: {folder} is none of the index's folders, which are {', '.join(made.folders) or 'none'}")
        made.folders.remove(folder)
    made.folders += [folder for folder in folders if folder not in made.folders]
    made.folders = [f for f in made.folders if not any(f != other and Path(f).is_relative_to(other) for other in made.folders)]
    if not made.folders:
        raise UsageError(f"{path}: an index needs a folder of pictures; remove the index itself where nothing of it is wanted")
    if made != description:
        write_description(path, made)
    return made


def _scan(folders: Sequence[str], own: Path) -> dict[str, os.stat_result]:
    """All picture files in folders, and what the system says of each.

    Raises
    ------
    DataError
        There are none.
    """
    found, own = {}, os.path.abspath(own)
    for folder in folders:
        for root, names, files in os.walk(folder):
            names[:] = sorted(n for n in names if not n.startswith(".") and os.path.join(root, n) != own)
            for name in files:
                file = os.path.join(root, name)
                if is_image_file(file):
                    try:
                        found[file] = os.stat(file)
                    except OSError:         # removed meanwhile, or a link to nowhere
                        continue
    if not found:
        raise DataError(f"{', '.join(folders)}: no pictures; expected files that end in .jpg, .png, ... in the folder or those inside")
    return found


class _Update:
    """One update under the lock."""

    def __init__(self, path: Path, description: Description, embedder: Embedder, reader, num_workers, watch, exact_rows: int):
        self.path, self.description, self.embedder = path, description, embedder
        self.reader, self.num_workers, self.watch, self.exact_rows = reader, num_workers, watch, exact_rows
        self.done = Updated()

    def run(self, began: float) -> Updated:
        there = _scan(self.description.folders, self.path)
        self.catalogue = _open_catalogue(self.path)
        try:
            if self.catalogue.get("fingerprint", self.description.fingerprint) != self.description.fingerprint:
                self._set_aside()           # vectors of another network, whose index.json was lost
            self._open_vectors()
            self._repair()
            known = {file.path: file for file in self.catalogue.files()}
            gone, work = self._compare(there, known)
            self.rows_of = {file.hash: (file.row, file.crc) for file in known.values() if file.row is not None}
            self._embed(work, known)
            self._forget(gone)
            self._compact()
            self._connect()
            self.done.files, self.done.rows, _ = self.catalogue.counts()
            self.done.skipped = [(file.path, file.error) for file in self.catalogue.files() if file.row is None]
        finally:
            self.catalogue.close()
        self.done.seconds = time.perf_counter() - began
        return self.done

    def _set_aside(self) -> None:
        self.catalogue.close()
        _keep_aside(self.path / "files.sqlite")
        self.catalogue = _open_catalogue(self.path)

    def _open_vectors(self) -> None:
        self.generation, self.rows = self.catalogue.get("generation", 0), self.catalogue.get("rows", 0)
        if not self.generation:
            self.generation = 1 + max((int(p.stem[8:]) for p in self.path.glob("vectors-*.npy") if p.stem[8:].isdecimal()), default=0)
            self.vectors = vector_file(self.path, self.description, self.generation)
            self.vectors.create()
            with self.catalogue.transaction():
                for name, value in (("generation", self.generation), ("rows", 0), ("revision", 0),
                                    ("fingerprint", self.description.fingerprint)):
                    self.catalogue.set(name, value)
        self.vectors = vector_file(self.path, self.description, self.generation)
        for file in self.path.glob("vectors-*.npy"):        # of a compaction that was interrupted, or is done
            if file != self.vectors.path:
                _remove(file)

    def _repair(self) -> None:
        """Forget vectors that are not what was written, so that they are made again."""
        capacity = min(self.rows, self.vectors.capacity())
        stored = self.vectors.read(capacity)
        bad = [file for file in self.catalogue.files()
               if file.row is not None and (file.row >= capacity or checksum(stored[file.row]) != file.crc)]
        if bad:
            logger.warning("%s: %d vectors are damaged and are made again", self.path, len({file.row for file in bad}))
            self.done.repaired = len(bad)
            with self.catalogue.transaction():
                self.catalogue.put(file._replace(row=None, crc=None, mtime=-1) for file in bad)
                self._bump()
        if not self.vectors.path.is_file() or self.vectors.capacity() < self.rows:
            with self.catalogue.transaction():
                self.catalogue.set("rows", capacity)
            self.rows = capacity
            if not capacity:
                self.vectors.create()

    def _bump(self) -> None:
        self.catalogue.set("revision", self.catalogue.get("revision", 0) + 1)

    def _compare(self, there, known) -> tuple[list[str], list[str]]:
        """Files that are gone, and files to read: new, changed, or those that could not be read at all."""
        gone, work = [path for path in known if path not in there], []
        for path, stat in there.items():
            file = known.get(path)
            if file is None or (file.size, file.mtime) != (stat.st_size, stat.st_mtime_ns) or not file.hash:
                work.append(path)
            elif file.row is not None:
                self.done.unchanged += 1
        return gone, sorted(work)

    def _embed(self, work: list[str], known) -> None:
        if not work:
            return
        batches = embed_files(self.embedder, work, self.num_workers, lambda found: found in self.rows_of, self.reader)
        waiting: list[Embedded] = []
        last = time.monotonic()
        try:
            for one in self.watch((one for some in batches for one in some), len(work), "embedding"):
                waiting.append(one)
                if len(waiting) >= COMMIT_FILES or time.monotonic() - last > COMMIT_SECONDS:
                    self._commit(waiting, work, known)
                    waiting, last = [], time.monotonic()
        except KeyboardInterrupt:
            self._commit(waiting, work, known)
            raise
        self._commit(waiting, work, known)

    def _commit(self, some: list[Embedded], work, known) -> None:
        """Vectors first, flushed; then one transaction that makes them count."""
        files, new, rows_of, rows = [], [], {}, self.rows
        for one in some:
            row, crc = self.rows_of.get(one.hash) or rows_of.get(one.hash) or (None, None)
            if row is None and one.vector is not None:
                row, crc = rows, checksum(one.vector)
                rows_of[one.hash] = row, crc
                new.append(one.vector)
                rows += 1
            elif row is not None:
                self.done.reused += 1
            files.append(Known(work[one.position], one.size, one.mtime, one.hash, row, crc, "" if row is not None else one.error))
        if new:
            self.vectors.write(self.rows, np.stack(new))
        if files:
            with self.catalogue.transaction():
                self.catalogue.put(files)
                self.catalogue.set("rows", rows)
                self._bump()
        self.rows = rows
        self.rows_of |= rows_of
        self.vectors.say(rows)
        for file in files:
            before = known.get(file.path)
            if file.row is not None and before is None:
                self.done.added += 1
            elif file.row is not None and before.mtime != -1:
                self.done.changed += 1

    def _forget(self, gone: list[str]) -> None:
        if gone:
            with self.catalogue.transaction():
                self.catalogue.remove(gone)
                self._bump()
            self.done.removed = len(gone)

    def _compact(self) -> None:
        """Write the vectors anew where most rows are no file's any more."""
        rows = np.unique(np.fromiter((row for row, _ in self.catalogue.rows()), np.int64))
        if self.rows <= FEW_ROWS or len(rows) * 2 > self.rows:
            return
        stored, new = self.vectors.read(self.rows), vector_file(self.path, self.description, self.generation + 1)
        new.create()
        for first in range(0, len(rows), CHUNK):
            new.write(first, stored[rows[first:first + CHUNK]])
        new.say(len(rows))
        with self.catalogue.transaction():
            self.catalogue.move_rows(zip(rows.tolist(), range(len(rows))))
            self.catalogue.set("generation", self.generation + 1)
            self.catalogue.set("rows", len(rows))
            self.catalogue.set("neighbours", "null")
            self._bump()
        old, self.vectors = self.vectors, new
        self.generation, self.rows = self.generation + 1, len(rows)
        _remove(old.path)

    def _connect(self) -> None:
        """Bring the graph of neighbours up to date, or take it away where it is not needed."""
        rows = np.unique(np.fromiter((row for row, _ in self.catalogue.rows()), np.int64))
        graph = Neighbours(self.path / "neighbours.usearch", self.description.dimension)
        if len(rows) <= self.exact_rows:
            self.catalogue.set("neighbours", "null")
            _remove(graph.path)
            return
        if not available():
            logger.warning("%d vectors: searching compares with each of them; pip install 'numbanet[search]' makes it faster", len(rows))
            return
        revision = self.catalogue.get("revision", 0)
        stamp = json.loads(self.catalogue.get("neighbours", "null")) or {}
        if stamp.get("generation") != self.generation:
            stamp = {}
        elif stamp.get("revision") == revision and graph.is_whole(stamp, thorough=True):
            return

        def keep(found: dict | None, complete: bool) -> None:
            found = stamp if found is None else found
            self.catalogue.set("neighbours", json.dumps(found | {"generation": self.generation, "revision": revision if complete else -1}))

        missing = graph.prepare(rows, stamp)
        for _ in self.watch(graph.add(self.vectors.read(self.rows), keep), missing, "connecting"):
            pass


@contextmanager
def _explained(path: Path):
    """Errors of the disk, told as what they mean here."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"update {path}: {error.strerror or error}; what was done before stays. Free space, or make the folder "
                              "writable, then run the same command again") from error


def _remove(file: Path) -> None:
    """Take away what nobody needs; what stays does no harm."""
    with suppress(OSError):
        file.unlink(missing_ok=True)


def _open_catalogue(path: Path) -> Catalogue:
    """The catalogue for writing; a damaged one is kept aside, and a new one made."""
    file = path / "files.sqlite"
    try:
        return Catalogue(file, create=True)
    except DataError as error:
        kept = _keep_aside(file)
        logger.warning("%s; it is kept as %s, and the index is made anew from the pictures", error, kept.name)
        return Catalogue(file, create=True)


def _keep_aside(file: Path) -> Path:
    number = 1
    while (kept := file.with_name(f"{file.name}.damaged-{number}")).exists():
        number += 1
    os.replace(file, kept)
    _remove(file.with_name(f"{file.name}-journal"))
    return kept
