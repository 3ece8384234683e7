"""Vectors on disk: one ``.npy`` file that grows at its end, mapped into memory by who reads it.

How many of its rows count is not the file's to say: the catalogue does, whose commits are atomic. What a killed process has written behind
them is overwritten by the next one, and the header, which programs other than this read, is brought up to date after each commit.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from numbanet.errors import CheckpointError, DataError
from numbanet.files import atomic_file

HEADER = 128        # bytes: room for the header with any number of rows


class VectorFile:
    """float32 rows of one dimension in a file.

    Parameters
    ----------
    path : Path
    dimension : int
    """

    def __init__(self, path, dimension: int):
        self.path, self.dimension = Path(path), dimension
        self.row_bytes = 4 * dimension

    def create(self) -> None:
        """An empty file, in the place of one that may stand there."""
        with atomic_file(self.path) as temporary:
            temporary.write_bytes(_header(0, self.dimension))

    def capacity(self) -> int:
        """How many whole rows the file has room for; 0 where it is missing or something else."""
        try:
            with open(self.path, "rb") as file:
                begins = file.read(HEADER)
            size = os.stat(self.path).st_size
        except OSError:
            return 0
        return max(0, size - HEADER) // self.row_bytes if begins[:8] == _header(0, self.dimension)[:8] and len(begins) == HEADER else 0

    def read(self, rows: int) -> np.ndarray:
        """The first rows, mapped read-only, (rows, D).

        Raises
        ------
        DataError
            The file has fewer.
        """
        if self.capacity() < rows:
            raise DataError(f"{self.path}: damaged, expected {rows} vectors of {self.dimension} numbers; 'numbanet index "
                            f"{self.path.parent}' makes those that are lost from their pictures")
        if not rows:
            return np.empty((0, self.dimension), np.float32)
        return np.memmap(self.path, np.float32, "r", HEADER, (rows, self.dimension))

    def write(self, first: int, vectors: np.ndarray) -> None:
        """Put rows at `first` and behind, and flush them to the disk.

        Raises
        ------
        CheckpointError
            The disk is full, or the file cannot be written.
        """
        try:
            self._put(HEADER + first * self.row_bytes, np.ascontiguousarray(vectors, "<f4").reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise CheckpointError(f"write {self.path}: {error.strerror or error}; what the index held before is unchanged. Free space, "
                                  "then run the same command again") from error

    def say(self, rows: int) -> None:
        """Let the header tell the number of rows, for programs that read it; only the catalogue's number counts here."""
        with suppress(OSError):
            self._put(0, _header(rows, self.dimension))

    def _put(self, offset: int, data) -> None:
        handle = os.open(self.path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
        try:
            os.lseek(handle, offset, os.SEEK_SET)
            data = memoryview(data)
            while data:
                data = data[os.write(handle, data):]
            os.fsync(handle)
        finally:
            os.close(handle)


def checksum(vector: np.ndarray) -> int:
    """CRC-32 of a row."""
    return zlib.crc32(np.ascontiguousarray(vector, "<f4"))


def _header(rows: int, dimension: int) -> bytes:
    """Version 1.0 of the format, filled up to HEADER bytes."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}"
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"
