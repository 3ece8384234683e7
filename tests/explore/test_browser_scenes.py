"""The page of a detector and of a segmenter in headless Chromium: boxes, the slider, the colours of classes, test pictures to click."""

import contextlib
import io
import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from numbanet.cli import main
from numbanet.detection import load_detector
from numbanet.segmentation import load_segmenter
from numbanet.segmentation.drawing import overlay
from tests.cli.test_kinds import SMALL
from tests.explore.browser import SECONDS, Page
from tests.explore.test_browser import browser, pixels_of, shots  # noqa: F401  (two fixtures)


@contextlib.contextmanager
def explored(kind, folder, browser):  # noqa: F811
    """(the run, its page, ready) of `numbanet explore RUN` for a small network of that kind."""
    run = folder / kind
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main([str(word) for word in ("train", kind, *SMALL[kind], "--epochs", 2, "--out", run)]) == 0
    command = [sys.executable, "-m", "numbanet", "explore", str(run), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        told = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", told)
        assert found, told + process.stderr.read()
        page = Page(browser)
        page.open(found[0])
        page.until("document.body && document.body.dataset.ready")
        yield run, page
        assert page.complaints == []
        assert [url for url in page.requests if not url.startswith((found[0], "data:", "blob:"))] == []
        page.close()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0 and "Traceback" not in errors, errors


@pytest.fixture(scope="module")
def detecting(browser, tmp_path_factory):  # noqa: F811
    with explored("detector", tmp_path_factory.mktemp("explored"), browser) as found:
        yield found


@pytest.fixture(scope="module")
def segmenting(browser, tmp_path_factory):  # noqa: F811
    with explored("segmenter", tmp_path_factory.mktemp("explored"), browser) as found:
        yield found


def take_sample(page, number: int) -> None:
    page.evaluate("delete document.body.dataset.painted")
    page.click(f"#sample-list li:nth-child({number + 1}) button")
    page.until("document.body.dataset.painted")


def move(page, selector: str, across: float, down: float) -> None:
    left, top, width, height = page.box(selector)
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=left + across * width, y=top + down * height)


def listed(page) -> list:
    return page.evaluate("[...document.querySelectorAll('.objects li:not([hidden])')].map(l => l.innerText.replace(/\\s+/g, ' ').trim())")


def test_boxes_down_to_a_score(detecting, shots):  # noqa: F811
    """What stands in the list and over the picture is what `detect` gives at that threshold, while the slider moves."""
    run, page = detecting
    samples = sorted((run / "samples").iterdir())
    assert page.evaluate("document.querySelectorAll('#sample-list img').length") == len(samples) == 6
    take_sample(page, 1)
    detector = load_detector(run)
    page.evaluate("document.querySelector('#least').focus()")
    page.press("Home")
    for moves in (0, 3):
        page.press("ArrowRight", moves)
        least = float(page.evaluate("document.querySelector('#least').value"))
        assert least == pytest.approx(0.05 + 0.01 * moves)
        expected = detector(samples[1], least)
        shown = listed(page)
        assert len(shown) == len(expected) == page.evaluate("document.querySelectorAll('.object:not([hidden])').length")
        for text, one in zip(shown, expected):
            name, percent, left, top = re.fullmatch(r"(\S+) ([\d.]+)% left (\d+), top (\d+), right \d+, bottom \d+", text).groups()
            assert name == one["class"] and float(percent) == pytest.approx(100 * one["score"], abs=0.11)
            assert int(left) == pytest.approx(one["box"][0], abs=1) and int(top) == pytest.approx(one["box"][1], abs=1)
        assert f"{len(expected) or 'no'} object" in page.text(".scene .hint")
    page.press("Home")
    assert len(listed(page)) > 1
    page.screenshot(shots / "objects-1200.png", whole=False)
    page.press("End")
    assert listed(page) == [] and "no objects" in page.text(".scene .hint")
    take_sample(page, 0)
    assert page.evaluate("document.querySelector('#least').value") == "1", "the next picture is looked at with the same"


def test_hovering_a_box(detecting, tmp_path):
    """The smallest of those under the mouse is named and marked, here and in the list; also of a picture of one's own."""
    run, page = detecting
    Image.open(run / "samples" / "002.png").resize((150, 100)).save(tmp_path / "own.png")
    page.evaluate("delete document.body.dataset.painted")
    page.choose_file("#file", tmp_path / "own.png")
    page.until("document.body.dataset.painted")
    page.evaluate("document.querySelector('#least').focus()")
    page.press("Home")
    found = load_detector(run)(tmp_path / "own.png", 0.05)
    left, top, right, bottom = found[0]["box"]
    x, y = (left + right) / 2, (top + bottom) / 2
    inside = [o for o in found if o["box"][0] < x < o["box"][2] and o["box"][1] < y < o["box"][3]]
    smallest = min(inside, key=lambda o: (o["box"][2] - o["box"][0]) * (o["box"][3] - o["box"][1]))
    move(page, ".stage", x / 150, y / 100)
    page.until("document.querySelector('.object.marked')")
    assert page.text("#object").startswith(f"{smallest['class']}, {100 * smallest['score']:.1f}%"[:-2])
    assert page.evaluate("document.querySelectorAll('.marked').length") == 2
    area = page.evaluate("(() => { const s = document.querySelector('.stage').getBoundingClientRect(), "
                         "b = document.querySelector('.object.marked').getBoundingClientRect(); "
                         "return [(b.x - s.x) / s.width, (b.y - s.y) / s.height, b.width / s.width, b.height / s.height]; })()")
    box = smallest["box"]
    assert area == pytest.approx([box[0] / 150, box[1] / 100, (box[2] - box[0]) / 150, (box[3] - box[1]) / 100], abs=0.02)
    move(page, "h1", 0.5, 0.5)
    page.until("!document.querySelector('.marked')")
    page.evaluate("document.querySelector('.objects button').focus()")
    assert page.evaluate("document.querySelectorAll('.marked').length") == 2, "the keyboard marks, too"


def test_the_colours_of_classes(segmenting, shots):  # noqa: F811
    """The picture on the page is that of `segment`; a pixel tells its class; a class can be hidden; the slider takes the colours away."""
    run, page = segmenting
    take_sample(page, 2)
    page.until("document.querySelector('.stage canvas')?.dataset.painted")
    found = load_segmenter(run)(sorted((run / "samples").iterdir())[2])
    classes, height, width = load_segmenter(run).classes, *found.labels.shape
    expected = overlay(found.picture, found.labels, classes).astype(int)
    drawn = pixels_of(page, ".stage canvas")[..., :3].astype(int)
    assert np.abs(drawn - expected).max() <= 1
    page.screenshot(shots / "labels-1200.png", whole=False)
    counts = np.bincount(found.labels.reshape(-1))
    shares = [f"{classes[k]} {100 * counts[k] / counts.sum():.1f}%" for k in np.argsort(-counts, kind="stable") if counts[k]]
    assert listed(page) == shares
    for y, x in ((0, 0), (height // 2, width // 3), (height - 1, width - 1)):
        move(page, ".stage canvas", (x + 0.5) / width, (y + 0.5) / height)
        page.until(f"document.querySelector('#pixel').innerText.startsWith('row {y}, column {x}: ')")
        assert page.text("#pixel") == (f"row {y}, column {x}: {classes[found.labels[y, x]]}, "
                                       f"{round(100 * float(found.confidence[y, x]))}% sure")
    coloured = page.evaluate("[...document.querySelectorAll('.objects button')].findIndex(b => !b.disabled)")
    if coloured >= 0:
        name = page.evaluate(f"document.querySelectorAll('.objects button')[{coloured}].childNodes[1].textContent")
        page.click(f".objects li:nth-child({coloured + 1}) button")
        drawn = pixels_of(page, ".stage canvas")[..., :3]
        of_it = found.labels == classes.index(name)
        assert np.array_equal(drawn[of_it], found.picture[of_it])
    page.evaluate("document.querySelector('#strength').focus()")
    page.press("Home")
    assert np.array_equal(pixels_of(page, ".stage canvas")[..., :3], found.picture)


@pytest.mark.parametrize("width", [380, 800, 1200, 1700])
@pytest.mark.parametrize("kind", ["detecting", "segmenting"])
def test_nothing_sticks_out(kind, width, request, shots):  # noqa: F811
    _, page = request.getfixturevalue(kind)
    page.resize(width, 800)
    take_sample(page, 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(shots / f"{kind}-{width}.png", whole=False)
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    named = [n for n in nodes if not n.get("ignored") and n["role"]["value"] in ("button", "slider", "link", "combobox")]
    assert len(named) > 10 and [json.dumps(n["role"]) for n in named if not n.get("name", {}).get("value")] == []
    page.resize(1200, 900)
