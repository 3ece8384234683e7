"""Groups of the same and of similar pictures, against brute force."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from numbanet.errors import UsageError
from numbanet.search import ImageIndex, find_duplicates, similar_pairs, update_index
from numbanet.search import duplicates as duplicates_module
from numbanet.search.duplicates import connect
from tests.search.conftest import picture, small_embedder


def write(folder):
    """Three pictures, each also saved a little brighter; the first also copied, twice."""
    folder.mkdir()
    for i in range(3):
        original = picture(i, (60, 45))
        original.save(folder / f"{i}.png", compress_level=0)
        Image.fromarray((np.asarray(original) * 0.9 + 12).astype(np.uint8)).save(folder / f"{i}-changed.png")
    shutil.copy(folder / "0.png", folder / "0-copy.png")
    shutil.copy(folder / "0.png", folder / "0-again.png")
    return folder


def names(groups):
    return [[Path(m.path).stem for m in group.members] for group in groups]


def open_index(tmp_path, folder, **options) -> ImageIndex:
    update_index(tmp_path / "index", small_embedder(layer="1"), [folder], source="the small network", num_workers=0, **options)
    return ImageIndex(tmp_path / "index")


def test_exact_and_near(tmp_path):
    with open_index(tmp_path, write(tmp_path / "in")) as index:
        vectors, paths = index.vectors()
        cosines = vectors @ vectors.T
        groups = find_duplicates(index, 1.0)
        assert names(groups) == [["0-again", "0-copy", "0"]]        # as large as each other: by path
        assert groups[0].is_exact and all(m.score == 1 and m.same_bytes for m in groups[0].members)
        apart = min(cosines[a, b] for a, b in _partners(paths))
        groups = find_duplicates(index, float(apart) - 1e-4)
        assert {frozenset(g) for g in names(groups)} >= {frozenset(("1", "1-changed")), frozenset(("2", "2-changed"))} or \
            len(groups) == 1                                # noise resembles noise: then all are one group
        for group in groups:
            assert os.path.getsize(group.members[0].path) == max(os.path.getsize(m.path) for m in group.members)
            assert [m.score for m in group.members] == sorted((m.score for m in group.members), reverse=True)


def _partners(paths):
    stems = [Path(p[0]).stem.split("-")[0] + ("-changed" if "changed" in p[0] else "") for p in paths]
    for i in range(3):
        yield stems.index(str(i)), stems.index(f"{i}-changed")


@pytest.mark.parametrize("threshold", [0, -1, 1.1, float("nan")])
def test_thresholds_that_no_cosine_is(tmp_path, threshold):
    with open_index(tmp_path, write(tmp_path / "in")) as index, pytest.raises(UsageError, match="threshold expects"):
        find_duplicates(index, threshold)


@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_pairs_against_brute_force(rng, count, monkeypatch, backend):
    from numbanet.backends import get_backend
    monkeypatch.setattr(duplicates_module, "BLOCK", 16)
    x = rng.standard_normal((count, 3)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = {(int(a), int(b)) for first, second in similar_pairs(x, 0.7, get_backend(backend)) for a, b in zip(first, second)}
    assert found == {(a, b) for a in range(count) for b in range(a + 1, count) if x[a] @ x[b] >= 0.7}


def test_connected_groups(rng):
    """Against a search from each node."""
    first, second = rng.integers(0, 60, (2, 35))
    root = np.arange(60)
    connect(root, first[:20], second[:20])
    connect(root, first[20:], second[20:])
    near = {i: {i} for i in range(60)}
    for _ in range(60):
        for a, b in zip(first, second):
            near[a] = near[b] = near[a] | near[b]
            for member in near[a]:
                near[member] = near[a]
    assert root.tolist() == [min(near[i]) for i in range(60)]


def test_a_large_index_walks_over_its_graph(tmp_path, monkeypatch):
    pytest.importorskip("usearch.index", exc_type=ImportError)
    monkeypatch.setattr(duplicates_module, "FIRST", 4)
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(12):
        picture(i, (60, 45)).save(folder / f"{i}.png")
        for j in range(6):                  # more copies than neighbours are asked for first
            picture(i, (60, 45)).save(folder / f"{i}-{j}.bmp")
            Image.fromarray(np.asarray(picture(i, (60, 45))) ^ np.uint8(j == 0)).save(folder / f"{i}-{j}.png", compress_level=j)
    with open_index(tmp_path, folder, exact_rows=10) as index:
        assert index.is_approximate
        received = {frozenset(group) for group in names(find_duplicates(index, 0.99999))}
    with open_index(tmp_path, folder, exact_rows=1000) as index:
        assert not index.is_approximate
        assert received == {frozenset(group) for group in names(find_duplicates(index, 0.99999))}
