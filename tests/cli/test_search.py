"""Searching among pictures on the command line: what is typed, what is seen, and what is told of bad input."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import run
from tests.search.conftest import picture


@pytest.fixture
def photos(tmp_path) -> Path:
    """Pictures in a folder: two kinds of colour, a copy, and one that is broken."""
    rng = np.random.default_rng(0)
    for kind, colour in (("red", (200, 40, 40)), ("blue", (30, 60, 210))):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(5):
            pixels = np.clip(rng.normal(colour, 12, (30, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / kind / f"{i}.png")
    (tmp_path / "photos" / "copy.png").write_bytes((tmp_path / "photos" / "red" / "0.png").read_bytes())
    (tmp_path / "photos" / "broken.png").write_bytes(b"nothing")
    return tmp_path / "photos"


def index(photos, *options):
    return run("index", "resnet20_cifar", photos, *options)


def narrow(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines())


def test_the_whole_way(photos, tmp_path, caplog):
    answer = index(photos)
    assert answer.code == 0 and "photos-index: 11 pictures, 10 different, 64 numbers each" in answer.out
    assert "what feeds fc of" in answer.out and "11 added, 0 changed, 0 removed, 0 unchanged, 1 skipped" in answer.out
    assert "1 file was skipped" in answer.err and "broken.png: not an image" in answer.err and "random weights" in answer.err + caplog.text
    answer = run("index", "photos-index", "--json")
    facts = json.loads(answer.out)
    assert facts["unchanged"] == 11 and facts["added"] == 0 and facts["skipped"][0]["path"].endswith("broken.png")

    answer = run("search", "photos-index", photos / "red" / "0.png", "--top", 6, "--out", "found.png")
    lines = answer.out.splitlines()
    assert answer.code == 0 and "wrote found.png" in lines[-1] and Image.open("found.png").size[0] == 1200
    assert [line.split()[2] for line in lines[2:4]] == ["copy.png", "red/0.png"] and "1.0000" in lines[2]
    assert all("red/" in line for line in lines[3:8])
    hits = json.loads(run("search", "photos-index", photos / "blue" / "1.png", "--json", "--exact").out)[0]["found"]
    assert len(hits) == 10 and [Path(h["path"]).parent.name for h in hits[:5]] == ["blue"] * 5
    assert [h["score"] for h in hits] == sorted((h["score"] for h in hits), reverse=True)

    answer = run("cluster", "photos-index", "--clusters", 2, "--out", "clusters.png")
    assert answer.code == 0 and "11 pictures in 2 groups" in answer.out and "mutual information with the folders" in answer.out
    groups = json.loads(run("cluster", "photos-index", "--clusters", 2, "--batches", "--json").out)["clusters"]
    assert [g["size"] for g in groups] == [6, 5] and {Path(p["path"]).parent.name for p in groups[1]["pictures"]} == {"blue"}

    answer = run("dedup", "photos-index", "--threshold", 1, "--out", "copies.png")
    assert answer.code == 0 and "1 groups of duplicates, 1 files more" in answer.out and "same bytes" in answer.out
    assert json.loads(run("dedup", "photos-index", "--threshold", 1, "--json").out)["groups"][0]["same_bytes"]

    answer = run("identify", "photos-index", photos / "blue" / "2.png", "--threshold", 0.9, "--out", "named.png")
    assert answer.code == 0 and "blue  1.0000  whole picture" in answer.out
    answer = run("identify", "photos-index", photos / "blue" / "2.png", "--box", "0,0,20,30", "--box", "5,5,40,30", "--json")
    assert [one["name"] for one in json.loads(answer.out)[0]["found"]] == ["blue", "blue"]


@pytest.mark.parametrize("verb", ["index", "search", "cluster", "dedup", "identify"])
def test_eighty_columns(photos, verb):
    deep = photos / ("a very long name of a folder " * 3) / ("and another one " * 4)
    deep.mkdir(parents=True)
    (deep / "copy.png").write_bytes((photos / "red" / "0.png").read_bytes())
    index(photos)
    arguments = {"index": ["photos-index"], "cluster": ["photos-index", "--clusters", 3], "dedup": ["photos-index"]}
    answer = run(verb, *arguments.get(verb, ["photos-index", "photos/red/0.png"]))
    assert answer.code == 0 and narrow(answer.out)
    assert narrow("\n".join(line for line in run(verb, "--help").out.splitlines() if not line.startswith("  numbanet")))


def test_standard_input(photos, monkeypatch):
    index(photos)
    for verb in ("search", "identify"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((photos / "blue" / "3.png").read_bytes())))
        answer = run(verb, "photos-index", "-", "--out", f"{verb}.png")
        assert answer.code == 0 and "blue/3.png" in answer.out and Path(f"{verb}.png").exists()


def test_embed(photos):
    answer = run("embed", "resnet20_cifar", photos, photos / "red" / "1.png", "--layer", "layer2", "--out", "v.npz")
    assert answer.code == 0 and "12 pictures, 32 numbers each: layer2 of" in answer.out and "broken.png" in answer.err
    stored = np.load("v.npz")
    assert stored["vectors"].shape == (12, 32) and stored["paths"][-1] == str(photos / "red" / "1.png")
    np.testing.assert_allclose(np.linalg.norm(stored["vectors"], axis=1), 1, rtol=1e-5)
    assert json.loads(run("embed", "resnet20_cifar", photos / "red", "--json").out)["images"] == 5
    answer = run("embed", "resnet20_cifar", photos / "broken.png", "--out", "none.npz")
    assert answer.code == 1 and "nothing was written" in answer.err and not Path("none.npz").exists()


def test_a_trained_run_and_digits_as_they_are(trained, tmp_path):
    from numbanet.data.datasets import MNISTSample
    digits = MNISTSample(False)
    (tmp_path / "digits").mkdir()
    for i in range(60):
        Image.fromarray(digits.data[i]).save(tmp_path / "digits" / f"{i:02}.png")
    assert run("index", trained.run, "digits", "--raw").code == 0
    hits = json.loads(run("search", "digits-index", "digits/07.png", "--top", 4, "--json").out)[0]["found"]
    assert hits[0]["path"].endswith("07.png")
    same = [digits.targets[int(Path(h["path"]).stem)] == digits.targets[7] for h in hits]
    assert sum(same) >= 3


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (("index", "resnet20_cifar"), 2, "expected folders of pictures"),
    (("index", "resnet20_cifar", "nowhere"), 1, "nowhere: the folder is missing"),
    (("index", "resnet20_cifar", "photos/copy.png"), 1, "expected a folder, received a file"),
    (("index", "resnet20_cifar", "empty"), 1, "no pictures"),
    (("index", "resnet19", "photos"), 2, "did you mean"),
    (("index", "resnet20_cifar", "photos", "--layer", "layer9"), 2, "layer 'layer9' does not exist"),
    (("index", "resnet20_cifar", "photos", "--out", "photos"), 2, "exists, and is no index"),
    (("index", "resnet20_cifar", "photos", "--batch-size", "0"), 2, "--batch-size: expected at least 1"),
    (("index", "resnet20_cifar", "photos", "--workers", "-1"), 2, "--workers"),
    (("index", "resnet20_cifar", "photos", "--detector", "empty"), 1, "pnet.pt is missing"),
    (("search", "photos", "photos/copy.png"), 1, "photos is no index; make one with 'numbanet index MODEL FOLDER --out photos'"),
    (("search", "nowhere", "photos/copy.png"), 1, "nowhere does not exist"),
    (("search", "photos-index", "photos/broken.png"), 1, "photos/broken.png: not an image"),
    (("search", "photos-index", "photos"), 1, "expected an image file, received a folder"),
    (("search", "photos-index", "none.png"), 1, "none.png: the file is missing"),
    (("search", "photos-index", "photos/copy.png", "--top", "0"), 2, "--top"),
    (("search", "photos-index", "photos/copy.png", "--out", "x.jpg"), 2, "--out: expected a name that ends in .png"),
    (("search", "photos-index", "photos/copy.png", "--network", "lenet5"), 2, "has other weights"),
    (("cluster", "photos-index", "--clusters", "11"), 2, "expected at most 10, the number of different pictures"),
    (("cluster", "photos-index", "--seed", "-1"), 2, "--seed"),
    (("dedup", "photos-index", "--threshold", "0"), 2, "threshold expects"),
    (("identify", "photos-index", "photos/copy.png", "--box", "1,2,3"), 2, "--box: expected left,top,right,bottom"),
    (("identify", "photos-index", "photos/copy.png", "--box", "90,90,99,99"), 1, "lies outside of the picture"),
    (("identify", "photos-index", "photos/broken.png", "photos/copy.png"), 1, "not an image"),
    (("embed", "resnet20_cifar", "photos", "--out", "x.npy"), 2, "ends in .npz"),
    (("embed", "resnet20_cifar", "empty"), 1, "no pictures"),
])
def test_what_cannot_be_done(photos, tmp_path, arguments, code, message):
    (tmp_path / "empty").mkdir()
    index(photos)
    answer = run(*arguments)
    assert (answer.code, message in answer.err) == (code, True), answer


def test_a_locked_index(photos):
    from numbanet.files import FolderLock
    index(photos)
    with FolderLock("photos-index"):
        answer = run("index", "photos-index")
        assert answer.code == 1 and "another process" in answer.err
        assert run("search", "photos-index", "photos/copy.png").code == 0


def test_names_that_are_no_text(photos):
    import os
    picture(1).save(photos / "x.png")
    os.rename(photos / "x.png", os.fsencode(photos) + b"/odd\xff.png")
    os.rename(photos / "broken.png", os.fsencode(photos) + b"/broken\xfe.png")
    answer = index(photos)
    assert answer.code == 0 and "broken\\udcfe.png" in answer.err
    assert "odd\\udcff.png" in run("search", "photos-index", "photos/copy.png", "--top", 12).out
