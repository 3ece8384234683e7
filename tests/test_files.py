"""Atomic files and folders: the old state or the new one, whatever fails, and whenever."""

import errno
import os
import stat

import pytest

from numbanet.errors import CheckpointError
from numbanet.files import atomic_file, atomic_folder, write_text
from tests.faults import Disk, Killed


def write_folder(path, text):
    with atomic_folder(path) as temporary:
        for name in ("a", "b"):
            (temporary / name).write_text(text, encoding="utf-8")


def contents(path):
    """None, the text of a file, or the texts of a folder's files."""
    if not path.exists():
        return None
    return path.read_text() if path.is_file() else {p.name: p.read_text() for p in path.iterdir()}


KINDS = [pytest.param(write_text, lambda text: text, id="file"),
         pytest.param(write_folder, lambda text: {"a": text, "b": text}, id="folder")]


def operations(write, path, monkeypatch) -> int:
    disk = Disk()
    with disk.mounted(monkeypatch):
        write(path, "measured")
    return disk.count


@pytest.mark.parametrize(("write", "shown"), KINDS)
@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_the_old_state(write, shown, exists, tmp_path, monkeypatch):
    (tmp_path / "tried").mkdir()
    if exists:
        write(tmp_path / "tried" / "x", "old")
    total = operations(write, tmp_path / "tried" / "x", monkeypatch)
    assert total >= 6
    refused = 0
    for position in range(1, total + 1):
        folder = tmp_path / str(position)
        folder.mkdir()
        path = folder / "x"
        if exists:
            write(path, "the old state")
        try:
            with Disk(position).mounted(monkeypatch):
                write(path, "the new state, longer than the old")
        except CheckpointError as error:
            refused += 1
            assert str(path) in str(error) and "No space left" in str(error) and "unchanged" in str(error)
            assert contents(path) == (shown("the old state") if exists else None)
            assert list(folder.iterdir()) == ([path] if exists else [])
        else:                                   # cleaning up and flushing the folder may fail without harm
            assert contents(path) == shown("the new state, longer than the old")
    assert refused >= 5


def test_a_killed_process_leaves_a_whole_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    total = operations(write_text, path, monkeypatch)
    seen = set()
    for position in range(1, total + 1):
        write_text(path, "old")
        with pytest.raises(Killed), Disk(position, Killed(), for_good=True).mounted(monkeypatch):
            write_text(path, "new, and longer")
        seen.add(contents(path))
    assert seen == {"old", "new, and longer"}


@pytest.mark.parametrize(("write", "shown"), KINDS)
def test_contents_reach_the_disk_before_the_name(write, shown, tmp_path, monkeypatch):
    """Otherwise a power cut could leave the new name with nothing behind it."""
    events = []

    def flushed(handle):
        if stat.S_ISREG(os.fstat(handle).st_mode):
            events.append("flush")
    monkeypatch.setattr(os, "fsync", flushed)
    for name in ("replace", "rename"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *paths, real=real: (events.append("rename"), real(*paths)))
    write(tmp_path / "x", "text")
    assert events == ["flush"] * (1 if write is write_text else 2) + ["rename"]
    assert contents(tmp_path / "x") == shown("text")


def test_folders_of_the_way_are_made_and_modes_are_usual(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "touched").touch()
    write_text(tmp_path / "a" / "b" / "x", "text")
    write_folder(tmp_path / "a" / "y", "text")
    for made, usual in ((tmp_path / "a" / "b" / "x", "touched"), (tmp_path / "a" / "y", "made")):
        assert stat.S_IMODE(made.stat().st_mode) == stat.S_IMODE((tmp_path / usual).stat().st_mode)


def test_an_error_of_the_writer_passes_and_leaves_nothing(tmp_path):
    for atomic in (atomic_file, atomic_folder):
        with pytest.raises(ZeroDivisionError), atomic(tmp_path / "x"):
            1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("write", "shown"), KINDS)
def test_a_folder_that_cannot_be_written(write, shown, tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(CheckpointError, match="Permission denied.*unchanged.*--out"):
        write(tmp_path / "x", "text")


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="write .*file"):
        write_text(tmp_path / "file" / "x", "text")
