"""What an index knows of its files, in SQLite: path, size, time, contents' hash, row of the vector and its checksum, or what was wrong.

Every change is a transaction: after a kill or a power cut the catalogue is as after the last commit.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from numbanet.errors import CheckpointError, DataError

SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, hash TEXT NOT NULL,
                                  row INTEGER, crc INTEGER, error TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_row ON files (row);
"""
WAIT = 30.0         # seconds for a writer's commit to end


class Known(NamedTuple):
    """A file as the catalogue knows it; `row` is None where it has no vector, and `error` says why."""

    path: str
    size: int
    mtime: int
    hash: str
    row: int | None
    crc: int | None
    error: str


class Catalogue:
    """The table of an index's files.

    Parameters
    ----------
    path : Path
    create : bool
        Make it where it is missing; otherwise only read it.

    Raises
    ------
    DataError
        It is missing or damaged.
    """

    def __init__(self, path, create: bool = False):
        self.path = Path(path)
        with self._explained():
            if create:
                self._connection = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
                self._connection.execute("PRAGMA synchronous = EXTRA")       # also the removal of the journal reaches the disk
                problem = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if problem != "ok":
                    self._connection.close()
                    raise DataError(f"{self.path}: damaged ({problem})")
                self._connection.executescript(SCHEMA)
            else:
                if not self.path.exists():
                    raise DataError(f"{self.path}: the index has no catalogue; 'numbanet index {self.path.parent}' makes it anew")
                self._connection = _open_existing(self.path)
                self._connection.execute("SELECT path, size, mtime, hash, row, crc, error FROM files LIMIT 1").fetchall()

    @contextmanager
    def _explained(self):
        try:
            yield
        except sqlite3.OperationalError as error:
            text = str(error)
            if "no such" in text or "malformed" in text:
                raise DataError(f"{self.path}: damaged ({text}); 'numbanet index {self.path.parent}' rebuilds it") from None
            raise CheckpointError(f"{self.path}: {text}; what it held before is unchanged. Free space, or wait for others that use it") \
                from error
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.path}: damaged ({error}); 'numbanet index {self.path.parent}' rebuilds it") from None

    @contextmanager
    def transaction(self):
        """All changes inside, or none."""
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self):
        """What is read inside belongs together, whatever others write meanwhile."""
        with self._explained():
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("COMMIT")

    def _all(self, text: str, values=()) -> list:
        with self._explained():
            return self._connection.execute(text, values).fetchall()

    def get(self, name: str, default=None):
        """A value of the index as a whole."""
        found = self._all("SELECT value FROM about WHERE name = ?", (name,))
        return found[0][0] if found else default

    def set(self, name: str, value) -> None:
        self._all("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    def files(self) -> Iterable[Known]:
        """All files, by path."""
        for path, *rest in self._all("SELECT path, size, mtime, hash, row, crc, error FROM files ORDER BY path"):
            yield Known(os.fsdecode(path), *rest)

    def rows(self) -> list[tuple[int, str]]:
        """(row, path) of all files that have a vector, by row; files of equal contents share one."""
        return [(row, os.fsdecode(path)) for row, path in self._all("SELECT row, path FROM files WHERE row IS NOT NULL ORDER BY row, path")]

    def of_rows(self, rows: Iterable[int]) -> dict[int, list[Known]]:
        """The files of some rows; rows that no file has are left out."""
        found, rows = {}, [int(r) for r in rows]
        for first in range(0, len(rows), 500):
            some = rows[first:first + 500]
            for path, *rest in self._all("SELECT path, size, mtime, hash, row, crc, error FROM files WHERE row IN "
                                         f"({','.join('?' * len(some))}) ORDER BY path", some):
                known = Known(os.fsdecode(path), *rest)
                found.setdefault(known.row, []).append(known)
        return found

    def move_rows(self, places: Iterable[tuple[int, int]]) -> None:
        """Let each row (old, new) have another number, all at once."""
        with self._explained():
            self._connection.execute("CREATE TEMP TABLE moved (old INTEGER PRIMARY KEY, new INTEGER)")
            self._connection.executemany("INSERT INTO moved VALUES (?, ?)", places)
            self._connection.execute("UPDATE files SET row = (SELECT new FROM moved WHERE old = row) WHERE row IS NOT NULL")
            self._connection.execute("DROP TABLE moved")

    def counts(self) -> tuple[int, int, int]:
        """(files with a vector, different vectors, files without)."""
        return self._all("SELECT COUNT(row), COUNT(DISTINCT row), COUNT(*) - COUNT(row) FROM files")[0]

    def put(self, files: Iterable[Known]) -> None:
        """Add files, or replace what is known of them."""
        with self._explained():
            self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
                                         ((os.fsencode(path), *rest) for path, *rest in files))

    def remove(self, paths: Iterable[str]) -> None:
        with self._explained():
            self._connection.executemany("DELETE FROM files WHERE path = ?", ((os.fsencode(path),) for path in paths))

    def close(self) -> None:
        self._connection.close()


def _open_existing(path: Path) -> sqlite3.Connection:
    """For reading; where possible able to roll back what a killed writer left half done."""
    base = path.absolute().as_uri()
    mode = "rw" if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK) else "ro"
    return sqlite3.connect(f"{base}?mode={mode}", uri=True, timeout=WAIT, isolation_level=None, check_same_thread=False)
