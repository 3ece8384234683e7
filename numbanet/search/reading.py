"""Picture files as vectors: threads read, hash and decode while the network works on the pictures before."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from numbanet.data import DataLoader, Dataset
from numbanet.errors import DataError
from numbanet.search.embedding import NOT_FINITE, Embedder

MAX_FILE_BYTES = 1 << 30


@dataclass
class Embedded:
    """What became of a file.

    Attributes
    ----------
    position : int
        In the list of files.
    size, mtime : int
        In bytes and nanoseconds, as they were before the file was read.
    hash : str
        SHA-256 of the contents; "" where they could not be read.
    vector : float32 (D,) or None
    error : str
        Why there is no vector; "" where there is one.
    """

    position: int
    size: int = 0
    mtime: int = 0
    hash: str = ""
    vector: np.ndarray | None = None
    error: str = ""
    pixels: np.ndarray | None = None


def open_file(path, max_bytes: int = MAX_FILE_BYTES):
    """A regular file, opened for reading, with its :func:`os.stat_result`.

    Raises
    ------
    DataError
        It is missing, no file (a pipe would block for ever), too large, or may not be read.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{path}: expected an image file, received {'a folder' if stat.S_ISDIR(found.st_mode) else 'no regular file'}")
        if found.st_size > max_bytes:
            raise DataError(f"{path}: {found.st_size:,} bytes are more than the {max_bytes:,} that an image file may have")
        return open(path, "rb"), found
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


class PictureFiles(Dataset):
    """Files as :class:`Embedded` with `pixels`, or with what is wrong; nothing is raised.

    Parameters
    ----------
    paths : sequence of paths
    read : callable
        Makes pixels of a binary file that has a `name`.
    known : callable, optional
        Of contents' hash: whether their vector is known, so that they need not be decoded.
    """

    def __init__(self, paths: Sequence, read: Callable, known: Callable[[str], bool] = lambda _hash: False):
        self.paths, self.read, self.known = paths, read, known

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Embedded:
        made = Embedded(index)
        try:
            file, found = open_file(self.paths[index])
            made.size, made.mtime = found.st_size, found.st_mtime_ns
            with file:
                made.hash = hashlib.file_digest(file, "sha256").hexdigest()
                if not self.known(made.hash):
                    file.seek(0)
                    made.pixels = self.read(file)
        except DataError as error:
            made.error = str(error).removeprefix(f"{self.paths[index]}: ")
        except (OSError, MemoryError) as error:
            made.error = str(error) or type(error).__name__
        return made


def embed_files(embedder: Embedder, paths: Sequence, num_workers: int | None = None, known: Callable[[str], bool] = lambda _hash: False,
                read: Callable | None = None) -> Iterator[list[Embedded]]:
    """The vectors of files, batch by batch and in order; of files that cannot be used, why.

    Parameters
    ----------
    embedder : Embedder
    paths : sequence of paths
    num_workers : int, optional
        Threads that read and decode, by default one for each core; 0 reads between the batches.
    known : callable, optional
        Of contents' hash (SHA-256, hexadecimal): whether a vector for them is there already; such files come with neither vector nor error.
    read : callable, optional
        Makes pixels of a binary file, instead of ``embedder.read``.
    """
    def batched(some: list[Embedded]):
        pictures = [one for one in some if one.pixels is not None]
        x = embedder.batch([one.pixels for one in pictures]) if pictures else None
        for one in pictures:
            one.pixels = None
        return some, pictures, x

    files = PictureFiles(paths, read or embedder.read, known)
    workers = os.cpu_count() if num_workers is None else num_workers
    for some, pictures, x in DataLoader(files, embedder.batch_size, num_workers=workers, collate_fn=batched, seed=0):
        if pictures:
            for one, vector in zip(pictures, embedder.embed_batch(x), strict=True):
                if np.isfinite(vector).all():
                    one.vector = vector
                else:
                    one.error = NOT_FINITE
        yield some
