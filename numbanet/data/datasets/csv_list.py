"""Images that a CSV file lists: one row each, with its path and its label."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numbanet.data.datasets.image_files import ImageFiles
from numbanet.data.images import is_image_file, load_image
from numbanet.errors import DataError, UsageError

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "img", "image_path", "image_id", "id", "name")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "y", "labels")
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
DELIMITERS = ",;\t"


class CSVDataset(ImageFiles):
    """Images and labels that a CSV file lists.

    The first line may name the columns: paths are sought in `path`, `file`, `filename`, `image`, ..., labels in `label`, `class`, ...
    Without names the first column is the path and the second the label. Columns are set apart by comma, semicolon or tab. Paths are
    relative to the CSV file's folder. Labels that are all whole numbers are classes in the order of the numbers, others in that of
    their names.

    Parameters
    ----------
    csv_file
        The list, UTF-8.
    root
        Folder that paths are relative to; by default that of the list.
    split : str, optional
        Only rows with this word in their column `split`.
    classes : sequence of str, optional
        The labels that there may be, in order: a test list takes those of its training list.
    path_column, label_column : str, optional
        Names of columns, where the usual ones are not meant.
    transform, target_transform, loader, batch_transform
        See `ImageFiles`.

    Attributes
    ----------
    splits : tuple of str
        The words in the column `split`, none without such a column.
    classes, class_to_idx, samples, targets
        See `ImageFiles`.

    Raises
    ------
    DataError
        No such file, not a CSV, without rows or columns of paths and labels, empty or unknown labels, files that are missing: with
        the line.
    """

    def __init__(self, csv_file: str | os.PathLike, root: str | os.PathLike | None = None, transform: Callable | None = None,
                 target_transform: Callable | None = None, loader: Callable[[str], Any] = load_image, *, split: str | None = None,
                 classes: Sequence[str] | None = None, path_column: str | None = None, label_column: str | None = None,
                 batch_transform: Callable | None = None):
        self.csv_file = Path(csv_file)
        self.root = self.csv_file.parent if root is None else Path(root)
        rows = _read_rows(self.csv_file)
        columns, rows = _columns(self.csv_file, rows, path_column, label_column)
        self.splits = tuple(sorted({row[columns[2]] for _, row in rows})) if columns[2] is not None else ()
        if split is not None:
            if split not in self.splits:
                known = f"to be one of {', '.join(self.splits)}" if self.splits else "to be left out: there is no such column"
                raise UsageError(f"{self.csv_file}: expected split {known}, received {split!r}")
            rows = [(line, row) for line, row in rows if row[columns[2]] == split]
        entries = [(line, row[columns[0]].strip(), row[columns[1]].strip()) for line, row in rows]
        self._check(entries)
        classes = _sorted_classes({label for _, _, label in entries}) if classes is None else list(classes)
        positions = {name: i for i, name in enumerate(classes)}
        unknown = next(((line, label) for line, _, label in entries if label not in positions), None)
        if unknown:
            raise DataError(f"{self.csv_file}, line {unknown[0]}: the class {unknown[1]!r} is not one of the {len(classes)} known ones "
                            f"({', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''})")
        samples = [(os.fspath(self.root / path), positions[label]) for _, path, label in entries]
        super().__init__(samples, classes, transform, target_transform, loader, batch_transform)

    def _check(self, entries: list[tuple[int, str, str]]) -> None:
        for line, path, label in entries:
            if not path or not label:
                raise DataError(f"{self.csv_file}, line {line}: expected a path and a label, received an empty "
                                f"{'path' if label else 'label'}")
        missing = [(line, path) for line, path, _ in entries if not os.path.isfile(self.root / path)]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(f"{self.csv_file}, line {missing[0][0]}: there is no file {self.root / missing[0][1]}{more}; paths are "
                            f"relative to {self.root}")


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """(number of the line, cells) of each row that is not empty."""
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected a CSV file as UTF-8 text, received something else ({error.reason} at byte "
                        f"{error.start})") from None
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error})") from error
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a CSV file ({error})") from None
    if not rows:
        raise DataError(f"{path}: expected a row for each image, received an empty file")
    width = len(rows[0][1])
    if width < 2:
        raise DataError(f"{path}, line {rows[0][0]}: expected a path and a label, set apart by comma, semicolon or tab, received "
                        f"{rows[0][1][0][:60]!r}")
    for line, row in rows:
        if len(row) != width:
            raise DataError(f"{path}, line {line}: expected {width} columns as in the first line, received {len(row)}")
    return rows


def _columns(path: Path, rows, path_column: str | None, label_column: str | None):
    """Positions of (path, label, split or None), and the rows below the names."""
    names = [cell.strip().lower() for cell in rows[0][1]]
    chosen = path_column is not None or label_column is not None
    if not chosen and (is_image_file(rows[0][1][0]) or not {*names} & {*PATH_COLUMNS, *LABEL_COLUMNS}):
        return (0, 1, None), rows

    def find(what: str, given: str | None, usual: Sequence[str]) -> int:
        wanted = usual if given is None else (given.lower(),)
        found = next((names.index(name) for name in wanted if name in names), None)
        if found is None:
            raise DataError(f"{path}: expected a column of {what} ({', '.join(wanted[:6])}), received the columns {', '.join(rows[0][1])}; "
                            f"name it with {what}_column")
        return found

    positions = find("path", path_column, PATH_COLUMNS), find("label", label_column, LABEL_COLUMNS)
    if len(rows) < 2:
        raise DataError(f"{path}: expected a row for each image, received only the names of the columns")
    return (*positions, next((names.index(name) for name in SPLIT_COLUMNS if name in names), None)), rows[1:]


def _sorted_classes(labels: set[str]) -> list[str]:
    if all(label.isdecimal() for label in labels):
        return sorted(labels, key=int)
    return sorted(labels)
