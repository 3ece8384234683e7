"""The index on disk: what an update touches, what survives, and what is told of one that cannot be used."""

import errno
import json
import multiprocessing
import os
import shutil
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from numbanet.errors import CheckpointError, DataError, UsageError
from numbanet.files import FolderLock
from numbanet.search import ImageIndex, update_index
from numbanet.search import updating as updating_module
from numbanet.search.catalogue import Catalogue
from numbanet.search.reading import PictureFiles
from tests.faults import Disk, Killed
from tests.search.conftest import picture, small_embedder, write_pictures


def update(path, folders=None, embedder=None, **options):
    return update_index(path, embedder or small_embedder(), folders, source="the small network", num_workers=0, **options)


def contents(path) -> dict[str, np.ndarray]:
    """Each file's vector, by the last part of its path."""
    with ImageIndex(path) as index:
        vectors, paths = index.vectors()
        found = {Path(p).name: vectors[row] for row, names in enumerate(paths) for p in names}
        assert len(found) == len(index)
    return found


def expected(folder) -> dict[str, np.ndarray]:
    paths = sorted(p for p in folder.rglob("*.png"))
    return dict(zip([p.name for p in paths], small_embedder()(paths)))


def check(path, folder) -> None:
    """The index holds exactly the folder's pictures, each with its vector."""
    received, wanted = contents(path), expected(folder)
    assert received.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(received[name], wanted[name], atol=1e-6)


@pytest.fixture
def decoded(monkeypatch):
    """Paths of the files that were decoded."""
    seen, real = [], PictureFiles.__getitem__

    def get(self, index):
        made = real(self, index)
        if made.pixels is not None:
            seen.append(Path(self.paths[index]).name)
        return made
    monkeypatch.setattr(PictureFiles, "__getitem__", get)
    return seen


def test_a_folder_is_indexed_and_found(tmp_path):
    write_pictures(tmp_path / "in", 10)
    done = update(tmp_path / "out", [tmp_path / "in"])
    assert (done.added, done.files, done.rows, done.removed, done.skipped) == (10, 10, 10, 0, [])
    check(tmp_path / "out", tmp_path / "in")
    with ImageIndex(tmp_path / "out") as index:
        assert index.description.layer_text == "what feeds 4" and index.description.folders == [str(tmp_path / "in")]
        queries = small_embedder()([picture(7), picture(3)])
        found = index.search(queries, 4)
        assert [Path(hits[0].path).name for hits in found] == ["p007.png", "p003.png"] and found[0][0].score == pytest.approx(1, abs=1e-6)
        vectors, paths = index.vectors()
        for query, hits in zip(queries, found):
            order = np.argsort(-(vectors @ query))[:4]
            assert [hit.path for hit in hits] == [paths[i][0] for i in order]
        assert len(index.search(queries[0], 99)[0]) == 10
        assert index.search(np.empty((0, 24), np.float32)) == []
        with pytest.raises(UsageError, match="expected vectors of 24 numbers"):
            index.search(np.zeros(23))
        with pytest.raises(UsageError, match="k expects"):
            index.search(queries, 0)
    rows = np.load(tmp_path / "out" / "vectors-1.npy", mmap_mode="r")
    assert rows.shape == (10, 24) and rows.dtype == np.float32


def test_only_what_changed_is_touched(tmp_path, decoded):
    folder = write_pictures(tmp_path / "in", 9)
    update(tmp_path / "out", [folder])
    assert len(decoded) == 9
    decoded.clear()
    done = update(tmp_path / "out")
    assert (done.unchanged, done.added, decoded) == (9, 0, [])
    picture(100).save(folder / "p001.png")                          # other contents
    os.utime(folder / "p003.png", (1, 1))                           # the same, other time
    (folder / "p004.png").rename(folder / "renamed.png")
    shutil.copy(folder / "p006.png", folder / "copy.png")
    (folder / "p007.png").unlink()
    picture(101).save(folder / "new.png")
    done = update(tmp_path / "out")
    assert sorted(decoded) == ["new.png", "p001.png"]
    assert (done.added, done.changed, done.removed, done.reused, done.files, done.rows) == (3, 2, 2, 3, 10, 9)
    check(tmp_path / "out", folder)


def test_equal_contents_share_a_row(tmp_path):
    folder = write_pictures(tmp_path / "in", 3)
    shutil.copy(folder / "p000.png", folder / "z.png")
    assert update(tmp_path / "out", [folder]).rows == 3
    with ImageIndex(tmp_path / "out") as index:
        hits = index.search(small_embedder()([folder / "p000.png"]), 2)[0]
    assert [Path(h.path).name for h in hits] == ["p000.png", "z.png"] and hits[0].row == hits[1].row


def test_folders_are_added(tmp_path):
    first, second = write_pictures(tmp_path / "a", 3), write_pictures(tmp_path / "b", 2, 3)
    update(tmp_path / "out", [first])
    assert update(tmp_path / "out", [second]).files == 5
    assert update(tmp_path / "out").files == 5
    assert update(tmp_path / "out", [tmp_path]).files == 5          # holds both
    assert json.loads((tmp_path / "out" / "index.json").read_text())["folders"] == [str(tmp_path)]


def test_bad_files_are_skipped_listed_and_not_tried_again(tmp_path, decoded):
    folder = write_pictures(tmp_path / "in", 3)
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / os.fsdecode(b"odd\xff.png")).write_bytes((folder / "p000.png").read_bytes())
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    done = update(tmp_path / "out", [folder])
    assert done.files == 4 and [(Path(p).name, r[:12]) for p, r in done.skipped] == [("bad.png", "not an image")]
    decoded.clear()
    assert len(update(tmp_path / "out").skipped) == 1 and not decoded
    picture(9).save(folder / "bad.png")
    assert update(tmp_path / "out").skipped == []


def test_rows_of_removed_files_are_passed_over_and_then_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(updating_module, "FEW_ROWS", 4)
    folder = write_pictures(tmp_path / "in", 20)
    update(tmp_path / "out", [folder])
    for i in range(8):
        next(folder.rglob(f"p{i:03}.png")).unlink()
    update(tmp_path / "out")
    check(tmp_path / "out", folder)
    with ImageIndex(tmp_path / "out") as index:
        assert index.count == 20
        hits = index.search(small_embedder()([picture(0)]), 12)[0]
        assert len(hits) == 12 and not any(h.path.endswith("p000.png") for h in hits)
        for i in range(8, 15):
            next(folder.rglob(f"p{i:03}.png")).unlink()
        update(tmp_path / "out")
        assert len(index.search(small_embedder()([picture(17)]), 3)[0]) == 3    # opened before, of files that are gone
        index.refresh()
        assert index.count == index.catalogue.counts()[1] == 5 and index.generation == 2
    check(tmp_path / "out", folder)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["files.sqlite", "index.json", "vectors-2.npy"]


def test_another_network_layer_or_version(tmp_path):
    folder = write_pictures(tmp_path / "in", 2)
    update(tmp_path / "out", [folder])
    for other in (small_embedder(1), small_embedder(layer="0")):
        with pytest.raises(UsageError, match="has other weights, another layer or other preprocessing"):
            update(tmp_path / "out", embedder=other)
    with pytest.raises(UsageError, match="is of whole pictures"):
        update(tmp_path / "out", detector="/somewhere")
    check(tmp_path / "out", folder)
    file = tmp_path / "out" / "index.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "format": 2}))
    for act in (lambda: ImageIndex(tmp_path / "out"), lambda: update(tmp_path / "out", [folder])):
        with pytest.raises(DataError, match="written by a newer version"):
            act()
    for damaged in ("{", "[]", json.dumps({**values, "dimension": "x"}), json.dumps({"format": 1})):
        file.write_text(damaged)
        with pytest.raises(DataError, match="damaged"):
            ImageIndex(tmp_path / "out")
    assert update(tmp_path / "out", [folder]).unchanged == 2        # named again, nothing is computed again
    check(tmp_path / "out", folder)


def test_no_index_no_pictures_no_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    for act, message in ((lambda: ImageIndex(tmp_path / "none"), "does not exist; make one with"),
                         (lambda: ImageIndex(tmp_path / "empty"), "is no index"),
                         (lambda: update(tmp_path / "none"), "is no index"),
                         (lambda: update(tmp_path / "none", [tmp_path / "empty"]), "no pictures"),
                         (lambda: update(tmp_path / "none", [tmp_path / "gone"]), "the folder is missing")):
        with pytest.raises(DataError, match=message):
            act()
    assert not (tmp_path / "none").exists()
    folder = write_pictures(tmp_path / "in", 2)
    with pytest.raises(UsageError, match="exists, and is no index"):
        update(folder, [folder])
    update(tmp_path / "out", [folder])
    shutil.move(folder, tmp_path / "moved")                        # a disk that is not there must not empty the index
    with pytest.raises(DataError, match="the folder is missing"):
        update(tmp_path / "out")
    with ImageIndex(tmp_path / "out") as index:
        assert len(index) == 2
    with pytest.raises(UsageError, match="is none of the index's folders"):
        update(tmp_path / "out", forget=[tmp_path / "other"])
    with pytest.raises(UsageError, match="an index needs a folder"):
        update(tmp_path / "out", forget=[folder])
    done = update(tmp_path / "out", [tmp_path / "moved"], forget=[folder])      # moved, not lost: nothing is computed again
    assert (done.reused, done.removed, done.files, done.rows) == (2, 2, 2, 2)
    check(tmp_path / "out", tmp_path / "moved")


def test_two_writers(tmp_path):
    folder = write_pictures(tmp_path / "in", 2)
    update(tmp_path / "out", [folder])
    with FolderLock(tmp_path / "out"), pytest.raises(CheckpointError, match="another process .* is writing there"):
        update(tmp_path / "out")
    with FolderLock(tmp_path / "out"):
        check(tmp_path / "out", folder)                             # reading is allowed


@pytest.mark.parametrize("damage", ["missing", "cut", "header", "flipped"])
def test_damaged_vectors_are_made_again(tmp_path, damage, decoded):
    folder, file = write_pictures(tmp_path / "in", 8), tmp_path / "out" / "vectors-1.npy"
    update(tmp_path / "out", [folder])
    decoded.clear()
    whole = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(whole[:128 + 5 * 96 + 7])
    elif damage == "header":
        file.write_bytes(b"nonsense" + whole[8:])
    else:
        whole[128 + 3 * 96 + 5] ^= 64
        file.write_bytes(whole)
    if damage == "flipped":
        with ImageIndex(tmp_path / "out") as index, pytest.raises(DataError, match="is damaged; 'numbanet index"):
            index.search(index.vectors()[0][0], 8)
    else:
        with pytest.raises(DataError, match="damaged, expected 8 vectors"):
            ImageIndex(tmp_path / "out")
    done = update(tmp_path / "out")
    assert done.repaired == len(decoded) == {"missing": 8, "cut": 3, "header": 8, "flipped": 1}[damage]
    check(tmp_path / "out", folder)


@pytest.mark.parametrize("damage", ["missing", "cut", "nonsense", "empty"])
def test_a_damaged_catalogue_is_made_again(tmp_path, damage):
    folder, file = write_pictures(tmp_path / "in", 8), tmp_path / "out" / "files.sqlite"
    update(tmp_path / "out", [folder])
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"cut": whole[:len(whole) // 2], "nonsense": b"x" * len(whole), "empty": b""}[damage])
    with pytest.raises(DataError, match="catalogue|damaged"):
        ImageIndex(tmp_path / "out")
    update(tmp_path / "out")
    check(tmp_path / "out", folder)
    kept = list((tmp_path / "out").glob("files.sqlite.damaged-1"))
    assert len(kept) == (damage in ("cut", "nonsense"))


def operations(folder, monkeypatch, tmp_path) -> int:
    disk = Disk()
    with disk.mounted(monkeypatch):
        update(tmp_path / "measured", [folder])
    return disk.count


@pytest.mark.parametrize("kind", ["full", "killed"])
def test_faults_at_every_file_operation(tmp_path, monkeypatch, kind):
    """Whatever operation fails, or is the last, what was there before is there, and the next run completes the index."""
    monkeypatch.setattr(updating_module, "COMMIT_FILES", 3)
    folder = write_pictures(tmp_path / "in", 3)
    update(tmp_path / "before", [folder])
    write_pictures(folder, 5, 3)
    total = operations(folder, monkeypatch, tmp_path)
    assert total > 15
    seen = set()
    for position in range(1, total + 1):
        path = tmp_path / f"{kind}-{position}"
        shutil.copytree(tmp_path / "before", path)
        error = Killed() if kind == "killed" else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            with Disk(position, error, kind == "killed").mounted(monkeypatch):
                update(path)
        except (Killed, CheckpointError, DataError):
            seen.add("stopped")
        (path / ".lock").unlink(missing_ok=True)
        files = contents(path)
        assert {f"p{i:03}.png" for i in range(3)} <= files.keys()
        seen.add(len(files))
        update(path)
        check(path, folder)
        shutil.rmtree(path)
    assert "stopped" in seen and 8 in seen


def test_a_commit_that_fails(tmp_path, monkeypatch):
    """A full disk inside of SQLite."""
    folder = write_pictures(tmp_path / "in", 3)
    update(tmp_path / "out", [folder])
    write_pictures(folder, 5, 3)
    real = Catalogue.put

    def put(self, files):
        real(self, files)
        raise sqlite3.OperationalError("database or disk is full")
    with monkeypatch.context() as patch:
        patch.setattr(Catalogue, "put", put)
        with pytest.raises(CheckpointError, match="database or disk is full; what it held before is unchanged"):
            update(tmp_path / "out")
    with ImageIndex(tmp_path / "out") as index:
        assert len(index) == 3
    update(tmp_path / "out")
    check(tmp_path / "out", folder)


def _slowly(path, folder):
    """An update in a process of its own, with a commit and a pause after each batch."""
    real = updating_module.embed_files

    def slow(*args):
        for some in real(*args):
            time.sleep(0.1)
            yield some
    updating_module.embed_files, updating_module.COMMIT_SECONDS = slow, 0.0
    update(path, [folder])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are copied by fork")
def test_killed_at_random_moments(tmp_path, rng):
    """SIGKILL in the middle of an update, again and again: what was committed stays, and in the end all is there."""
    folder, path = write_pictures(tmp_path / "in", 60), tmp_path / "out"
    found, killed = [0], 0
    for attempt in range(14):
        process = multiprocessing.get_context("fork").Process(target=_slowly, args=(path, folder))
        process.start()
        process.join(float(rng.uniform(0.05, 0.4)) if attempt else 0.3)
        killed += process.is_alive()
        process.kill()
        process.join()
        try:
            with ImageIndex(path) as index:
                found.append(len(index))
                if found[-1]:
                    index.search(index.vectors()[0][0], 60)         # looks at every row's sum
        except DataError:
            assert found[-1] == 0                                   # before the first commit
        assert found == sorted(found)
    assert killed >= 3
    update(path, [folder])
    check(path, folder)


# The graph of neighbours
def large(tmp_path, count=90):
    pytest.importorskip("usearch.index", exc_type=ImportError)
    folder = write_pictures(tmp_path / "in", count)
    done = update(tmp_path / "out", [folder], exact_rows=20)
    return folder, done


def test_a_graph_above_a_size(tmp_path):
    folder, _ = large(tmp_path)
    with ImageIndex(tmp_path / "out") as index:
        assert index.is_approximate
        queries = small_embedder()([picture(i) for i in range(40)])
        exact, found = index.search(queries, 5, exact=True), index.search(queries, 5)
        assert np.mean([len({h.row for h in a} & {h.row for h in b}) / 5 for a, b in zip(exact, found)]) > 0.99
        assert [h[0].path for h in found] == [h[0].path for h in exact]
        np.testing.assert_allclose([h.score for h in found[0]], [h.score for h in exact[0]], atol=1e-6)
    next(folder.rglob("p005.png")).unlink()
    write_pictures(folder, 3, 90)
    update(tmp_path / "out", exact_rows=20)
    with ImageIndex(tmp_path / "out") as index:
        assert index.is_approximate
        assert [Path(h[0].path).name for h in index.search(small_embedder()([picture(i) for i in (91, 6)]), 1)] == ["p091.png", "p006.png"]
        assert not any(h.path.endswith("p005.png") for h in index.search(small_embedder()([picture(5)]), 10)[0])
    check(tmp_path / "out", folder)
    update(tmp_path / "out", exact_rows=1000)
    assert not (tmp_path / "out" / "neighbours.usearch").exists()


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "behind"])
def test_a_graph_that_is_damaged_or_behind_is_made_again(tmp_path, damage):
    folder, _ = large(tmp_path)
    file = tmp_path / "out" / "neighbours.usearch"
    whole = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(whole[:len(whole) // 2])
    elif damage == "flipped":
        whole[len(whole) // 2] ^= 255
        file.write_bytes(whole)
    else:
        write_pictures(folder, 2, 90)
        update(tmp_path / "out", exact_rows=20, watch=_stop_before_connecting)
    with ImageIndex(tmp_path / "out") as index:
        assert not index.is_approximate                             # and finds all the same
        assert index.search(small_embedder()([picture(44)]), 1)[0][0].path.endswith("p044.png")
    update(tmp_path / "out", exact_rows=20)
    with ImageIndex(tmp_path / "out") as index:
        assert index.is_approximate and len(index.search(small_embedder()([picture(1)]), 10)[0]) == 10


def _stop_before_connecting(iterator, total, title):
    """As if the process ended there."""
    return [] if title == "connecting" else iterator


def test_the_graph_is_saved_on_the_way(tmp_path, monkeypatch):
    from numbanet.search import neighbours
    monkeypatch.setattr(neighbours, "ADDED", 16)
    monkeypatch.setattr(neighbours, "SAVED", 32)
    stopped = []

    def stop(iterator, total, title):
        if title != "connecting":
            return iterator
        stopped.append(total)
        return [row for row, _ in zip(iterator, range(60))]
    pytest.importorskip("usearch.index", exc_type=ImportError)
    folder = write_pictures(tmp_path / "in", 90)
    update(tmp_path / "out", [folder], exact_rows=20, watch=stop)
    update(tmp_path / "out", exact_rows=20, watch=stop)
    assert stopped == [90, 58]
    update(tmp_path / "out", exact_rows=20)
    with ImageIndex(tmp_path / "out") as index:
        assert index.is_approximate


def test_without_usearch(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(updating_module, "available", lambda: False)
    folder = write_pictures(tmp_path / "in", 30)
    update(tmp_path / "out", [folder], exact_rows=20)
    assert "pip install 'numbanet[search]'" in caplog.text
    check(tmp_path / "out", folder)
