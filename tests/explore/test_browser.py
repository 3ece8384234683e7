"""The explorer's page in headless Chromium: what a person does with mouse and keyboard, and whether they are shown the engine's numbers.

Skipped where no browser is found. NUMBANET_CHROMIUM names one, NUMBANET_SCREENSHOTS a folder for the pictures to look at.
"""

import base64
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet.cli import main
from numbanet.train.prediction import load_classifier
from numbanet.vision import FILTERS, convolve, record_activations
from numbanet.vision.colours import colour_table
from numbanet.vision.units import dissect
from tests.explore.browser import SECONDS, Browser, Page, find_browser

for needed in ("starlette", "uvicorn", "websockets"):
    pytest.importorskip(needed)
if find_browser() is None:
    pytest.skip("no Chromium: none on the path, and NUMBANET_CHROMIUM names none", allow_module_level=True)

SEVEN = ((0.28, 0.22), (0.72, 0.22), (0.7, 0.3), (0.5, 0.6), (0.44, 0.85))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a trained LeNet-5."""
    folder = tmp_path_factory.mktemp("explored")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(["train", "lenet5", "--epochs", "2", "--optimizer", "adamw"]) == 0
    return folder / "runs" / "lenet5-1"


@pytest.fixture(scope="module")
def address(run):
    """Of `numbanet explore RUN`, a process of its own that ends by Ctrl-C with code 0 and without complaint."""
    command = [sys.executable, "-m", "numbanet", "explore", str(run), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        told = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", told)
        assert found, told + process.stderr.read()
        yield found[0]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0 and "Traceback" not in errors and "ERROR" not in errors, errors


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(find_browser(), tmp_path_factory.mktemp("browser") / "profile")
    yield browser
    browser.close()


@pytest.fixture
def page(browser, address):
    """The page, ready. In the end nothing was logged in it, and nothing was asked of anybody else."""
    page = Page(browser)
    page.open(address)
    page.until("document.body && document.body.dataset.ready")
    yield page
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith((address, "data:"))] == []
    page.close()


@pytest.fixture
def shots(tmp_path):
    folder = Path(os.environ.get("NUMBANET_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def draw_seven(page) -> Image.Image:
    """With the mouse; returns the paper, as the page sends it."""
    left, top, width, height = page.box("#canvas")
    page.drag([(left + across * width, top + down * height) for across, down in SEVEN])
    page.until("document.body.dataset.painted")
    sent = page.evaluate("document.getElementById('canvas').toDataURL('image/png')")
    return Image.open(io.BytesIO(base64.b64decode(sent.partition(",")[2])))


def through(run, picture: Image.Image):
    """(activations, probabilities) of the same picture, without server and page."""
    classifier = load_classifier(run)
    file = io.BytesIO()
    picture.save(file, "PNG")
    file.seek(0)
    x = numbanet.tensor(classifier.preprocessing.batch_transform()(classifier.preprocessing.read(file)[None]))
    activations, output = record_activations(classifier.model, x)
    return activations, numbanet.softmax(output, 1).numpy()[0]


def pixels_of(page, selector: str) -> np.ndarray:
    """uint8 (H, W, 4) of a canvas."""
    found = page.evaluate(f"(() => {{ const c = document.querySelector({json.dumps(selector)}); "
                          "return [c.height, c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]; })()")
    return np.array(found[2], np.uint8).reshape(found[0], found[1], 4)


def test_a_drawn_digit(page, run, shots):
    """Read rightly; classes, layers, shapes and the colours of a map are the engine's."""
    activations, probabilities = through(run, draw_seven(page))
    shown = [re.fullmatch(r"([\d.]+)%\n(\d)", text).groups() for text in
             page.evaluate("[...document.querySelectorAll('#top button')].map(b => b.innerText.trim())")]
    assert shown[0][1] == "7" and probabilities.argmax() == 7
    assert shown == [(f"{100 * probabilities[k]:.1f}", str(k)) for k in np.argsort(-probabilities, kind="stable")[:5]]
    strips = page.evaluate("[...document.querySelectorAll('.strip h3')].map(h => [h.firstChild.textContent, h.children[1].innerText])")
    assert strips == [[a.path, " x ".join(map(str, a.output.shape[1:]))] for a in activations]
    number = int(page.text(".map b"))
    values = activations[0].output.numpy()[0]
    most = np.abs(values).max()
    index = np.round(255 * (values[number].astype(np.float64) + most) / (2 * most)).astype(int)
    table = colour_table("signed").astype(int)
    drawn = pixels_of(page, ".map canvas")
    off = np.min([np.abs(table[np.clip(index + d, 0, 255)] - drawn[..., :3]).max(-1) for d in (-1, 0, 1)], 0)
    assert off.max() == 0, "no pixel is more than one of 256 steps of colour away"
    assert page.evaluate("document.querySelector('#cam-image').naturalWidth") > 0 and '"7"' in page.text("#cam-text")
    page.screenshot(shots / "digit-1200.png")
    with Image.open(shots / "digit-1200.png") as picture:
        assert picture.width == 1200 and len(picture.convert("RGB").resize((300, 300)).getcolors(90_000)) > 300


def test_a_unit_by_mouse(page, run, shots):
    """A click on a pixel shows that pixel: the value, the sum, and every product are the engine's."""
    activations, _ = through(run, draw_seven(page))
    for layer, across, down in ((0, 0.4, 0.6), (3, 0.75, 0.25), (3, 0.99, 0.01)):
        selector = f".strip:nth-child({layer + 1}) .map:nth-child(2) canvas"
        page.box(f".strip:nth-child({layer + 1})")
        page.until(f"document.querySelector({json.dumps(selector)})")
        number = int(page.text(f".strip:nth-child({layer + 1}) .map:nth-child(2) b"))
        _, height, width = activations[layer].output.shape[1:]
        unit = number, int(down * height), int(across * width)
        page.click(selector, across, down)
        page.until(f"document.querySelector('#unit h3').innerText.includes({json.dumps('map {}, row {}, column {}'.format(*unit))})")
        truth = dissect(activations[layer], unit)
        assert float(page.text("#unit-value")) == pytest.approx(float(activations[layer].output.numpy()[(0, *unit)]), abs=0.06)
        assert float(page.text("#unit-total")) == pytest.approx(truth.total, abs=0.06)
        tables = page.evaluate("[...document.querySelectorAll('#unit table')].map(t => [...t.rows].map(r => [...r.cells].map("
                               "c => c.title === 'beyond the border' ? null : Number(c.title))))")
        assert len(tables) == 3 * len(truth.parts)
        for part, (patch, kernel, products) in zip(truth.parts, zip(*[iter(tables)] * 3)):
            for shown, expected in ((patch, part.patch), (kernel, part.kernel), (products, part.products)):
                np.testing.assert_allclose(np.array(shown, float), expected, rtol=1e-5, atol=1e-6)
        assert page.text("#unit-said").startswith(f"{activations[layer].path}: map {number}")
    page.screenshot(shots / "unit-1200.png", whole=False)


def focused(page) -> dict:
    return page.evaluate("""(() => { const e = document.activeElement, b = e.getBoundingClientRect(), s = getComputedStyle(e);
        return { name: e.getAttribute('aria-label') || e.innerText || e.id, tag: e.tagName, id: e.id, outline: s.outlineStyle,
            width: parseFloat(s.outlineWidth),
            seen: b.width > 0 && b.bottom > 0 && b.top < innerHeight && b.right > 0 && b.left < innerWidth,
            covered: (() => { const middle = Math.min(Math.max(b.y + b.height / 2, 0), innerHeight - 1);
                const f = document.elementFromPoint(b.x + b.width / 2, middle);
                return !e.contains(f); })() }; })()""")


def test_everything_by_keyboard(page, run):
    """From the top of the page with Tab, arrow keys, Space and Enter alone; whatever has the focus is named, outlined and in sight."""
    page.press("Tab")
    assert focused(page)["name"] == "To the layers"
    for name in ("Picture", "Layers", "Window sizes", "Classical filters", "Choose a picture, or drop one here"):
        page.press("Tab")
        assert focused(page)["name"] == name
    for _ in range(page.evaluate("document.querySelectorAll('#sample-list button').length")):
        page.press("Tab")
        assert focused(page)["name"].startswith("test picture ")
    page.press("Tab")
    assert focused(page)["id"] == "canvas"
    for key, times in (("ArrowUp", 6), ("ArrowLeft", 5), (" ", 1), ("ArrowRight", 8), ("ArrowDown", 2), ("ArrowLeft", 2), ("ArrowDown", 9)):
        page.press(key, times)
    assert "pen down" in page.evaluate("document.activeElement.getAttribute('aria-description')")
    page.press("Enter")
    page.until("document.body.dataset.painted")
    stops, seen = [], []
    for _ in range(60):
        page.press("Tab")
        page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        stop = focused(page)
        if stop["tag"] == "BODY" or stop["name"] == "To the layers":
            break
        assert stop["name"] and stop["outline"] != "none" and stop["width"] >= 2 and stop["seen"] and not stop["covered"], stop
        stops.append(stop["name"])
        seen.append(page.evaluate("document.activeElement.closest('.strip')?.querySelector('h3').firstChild.textContent"))
    assert stops[:2] == ["Show it to the network", "Clear"]
    stroke = Image.new("L", (20, 20))
    stroke.paste(255, (9, 3, 11, 17))
    activations, _ = through(run, stroke)
    assert [s for s in seen if s] == [a.path for a in activations], "one stop for every layer, and none is passed over"
    sliders = ["input", "kernel", "stride", "padding", "dilation"]
    assert [s for s in stops if s in sliders] == sliders
    assert stops[-9:] == [f"row {i}, column {j}" for i in (1, 2, 3) for j in (1, 2, 3)]

    page.evaluate("document.querySelector('#clear').focus()")
    page.press("Tab", 1 + 5)                                # five classes, then the first layer
    page.press("ArrowRight", 2)
    third = page.evaluate("[...document.querySelectorAll('.map canvas')].indexOf(document.activeElement)")
    assert third == 2
    page.press("Enter")
    page.until("document.querySelector('#unit h3').innerText.includes('row 14, column 14')")
    page.press("ArrowRight", 3)
    page.press("ArrowUp")
    page.until("document.querySelector('#unit h3').innerText.includes('row 13, column 17')")
    page.press("Escape")
    page.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('.strip').querySelector('h3').firstChild.textContent") == activations[1].path
    page.press("Tab", shift=True)
    assert "of features.c1" in focused(page)["name"] and page.evaluate("[...document.querySelectorAll('.map canvas')]"
                                                                       ".indexOf(document.activeElement)") == 2


def test_every_control_has_a_name(page):
    """As a screen reader is told."""
    draw_seven(page)
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    controls = [n for n in nodes if not n.get("ignored") and n["role"]["value"] not in ("RootWebArea", "generic")
                and any(p["name"] == "focusable" and p["value"]["value"] for p in n.get("properties", ()))]
    assert len(controls) > 40
    assert [n["role"]["value"] for n in controls if not n.get("name", {}).get("value")] == []
    images = page.evaluate("[...document.querySelectorAll('img')].filter(i => !i.alt && !i.closest('[hidden]')).length")
    assert images == 0


def test_window_sizes(page):
    assert "(7 - 3 + 2*0) / 3 + 1 = 2.33" in page.text("#size-formula") and "does not fit" in page.text("#size-formula")
    page.evaluate("document.querySelector('[aria-label=padding]').focus()")
    page.press("ArrowRight")
    page.until("document.querySelector('#size-formula').innerText.includes('= 3')")
    assert "fits: output 3" in page.text("#size-formula") and "does not" not in page.text("#size-formula")
    assert page.evaluate("document.querySelectorAll('#size-drawing rect').length") == 9 + 3 * 3


def test_classical_filters(page, shots):
    """Another filter, then another number in it: the ranges are the engine's."""
    pixels = np.array(draw_seven(page).convert("RGB"))
    x = numbanet.tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1)), dtype=numbanet.float32)
    page.evaluate("(() => { const s = document.querySelector('#filter-name'); s.value = 'laplacian'; "
                  "s.dispatchEvent(new Event('change')); })()")
    page.until("document.querySelectorAll('#filter-results img').length === 3")

    def ranges():
        return [tuple(map(float, re.search(r"(-?[\d.]+) to (-?[\d.]+);", text).groups())) for text in
                page.evaluate("[...document.querySelectorAll('#filter-results figcaption')].slice(1).map(f => f.innerText)")]
    own = FILTERS["laplacian"].array.copy()
    for kernel in (own.copy(), own):
        if kernel is own:
            page.evaluate("(() => { const i = document.querySelectorAll('#kernel input')[4]; i.value = '-3'; "
                          "i.dispatchEvent(new Event('input')); })()")
            own[1, 1] = -3
        expected = []
        for mode in ("correlation", "convolution"):
            y = convolve(x, kernel, mode).numpy()
            expected.append(tuple(float(f"{v:.0f}") for v in (y.min(), y.max())))
        page.until(f"document.querySelector('#filter-results').innerText.includes({json.dumps('{:.0f} to {:.0f};'.format(*expected[0]))})")
        assert ranges() == expected
    assert page.evaluate("document.querySelector('#filter-name').value") == "own"
    page.screenshot(shots / "filters-1200.png")


@pytest.mark.parametrize("width", [380, 800, 1200, 1700])
def test_nothing_sticks_out(page, shots, width):
    """At any width the page scrolls down only."""
    page.resize(width, 800)
    draw_seven(page)
    page.evaluate("document.querySelector('.strip').scrollIntoView()")      # only strips near the window are painted
    page.until("document.querySelector('.map canvas')")
    page.click(".map canvas")
    page.until("document.querySelector('#unit-value')")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(shots / f"page-{width}.png")


def test_chosen_files(page, tmp_path):
    """A broken one, one that is too large, and a good one."""
    draw_seven(page)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    page.choose_file("#file", tmp_path / "broken.png")
    page.until("document.querySelector('#status').classList.contains('error')")
    assert "picture: " in page.text("#status") and str(tmp_path) not in page.text("body")
    page.complaints.clear()                                 # Chromium logs every answer that is an error
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(21 * 2**20)
    page.choose_file("#file", tmp_path / "large.png")
    page.until("document.querySelector('#status').innerText.includes('a picture may have 20 MB, this one has 21')")
    digit = Image.new("L", (64, 64), 255)
    digit.paste(0, (30, 10, 36, 54))
    digit.save(tmp_path / "digit.png")
    page.choose_file("#file", tmp_path / "digit.png")
    page.until("document.querySelector('#status:not(.error)')?.innerText.includes('painted')")


def test_a_page_that_closes_while_it_waits(browser, address, page):
    """The server goes on for the others."""
    for _ in range(3):
        other = Page(browser)
        other.open(address)
        other.until("document.body && document.body.dataset.ready")
        left, top, width, height = other.box("#canvas")
        other.drag([(left + across * width, top + down * height) for across, down in SEVEN])
        other.close()
    draw_seven(page)
    assert "7" in page.text("#top")


def test_another_sites_page_is_refused(browser, address):
    """A real browser on a page of another origin: it may ask, but the engine does not, and it cannot read the answer."""
    script = """<script>window.told = []; (async () => {
        for (const [path, options] of [['api/model', {}], ['api/model', {mode: 'no-cors'}], ['main.js', {mode: 'no-cors'}],
            ['api/look', {method: 'POST', body: 'x', mode: 'no-cors'}]]) {
          try { const a = await fetch('ADDRESS' + path, options); told.push(a.type + ' ' + a.status); } catch { told.push('refused'); } }
        window.done = true; })();</script>"""

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(script.replace("ADDRESS", address).encode())

        def log_message(self, *_):
            pass
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = Page(browser)
        page.open(f"http://localhost:{server.server_port}/")
        page.until("window.done")
        told = page.evaluate("told")
        server.shutdown()
    page.close()
    assert told == ["refused"] * 4


def test_the_port_is_taken(address, run):
    """A second explorer on the same port says so, and the first one goes on."""
    port = int(re.search(r":(\d+)/", address)[1])
    answer = subprocess.run([sys.executable, "-m", "numbanet", "explore", str(run), "--port", str(port), "--no-browser"],
                            capture_output=True, text=True, timeout=SECONDS)
    assert answer.returncode == 2 and "cannot be used" in answer.stderr and "Traceback" not in answer.stderr
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS):
        pass
