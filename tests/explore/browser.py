"""A real browser for the tests: headless Chromium, driven over the DevTools protocol."""

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable", "chrome", "msedge")
QUIET = ("--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions", "--disable-background-networking",
         "--disable-component-update", "--disable-breakpad", "--disable-sync", "--disable-quic", "--disable-dev-shm-usage",
         "--force-device-scale-factor=1", "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
         "--disable-background-timer-throttling")
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
        "ArrowDown": 40}                                # and their numbers in Windows, by which the protocol knows them
SECONDS = 60            # for anything that must happen; nothing is timed by it


def find_browser() -> str | None:
    """The program that NUMBANET_CHROMIUM names, or the first Chromium on the path."""
    named = os.environ.get("NUMBANET_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser process with a profile of its own in `folder`."""

    def __init__(self, program: str, folder: Path):
        options = [*QUIET, "--remote-debugging-port=0", f"--user-data-dir={folder}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            options.append("--no-sandbox")              # Chromium refuses to run as root with one
        self.log = folder.with_suffix(".log").open("w+")
        self.process = subprocess.Popen([program, *options, "about:blank"], stdout=self.log, stderr=self.log, start_new_session=True)
        told, until = folder / "DevToolsActivePort", time.monotonic() + SECONDS
        while not (told.exists() and len(told.read_text().split()) == 2):
            if self.process.poll() is not None or time.monotonic() > until:
                self.close()
                raise RuntimeError(f"{program} did not start: {Path(self.log.name).read_text()[-2000:]}")
            time.sleep(0.05)
        self.port, self.path = told.read_text().split()

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.log.close()


class Page:
    """A page of a browser. What goes wrong in it is kept in `complaints`."""

    def __init__(self, browser: Browser, width: int = 1200, height: int = 900):
        from websockets.sync.client import connect
        self.socket = connect(f"ws://127.0.0.1:{browser.port}{browser.path}", max_size=None, proxy=None)
        self.numbers, self.session, self.complaints, self.requests = itertools.count(1), None, [], []
        self.target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)
        self.resize(width, height)

    def close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            self.send("Target.closeTarget", targetId=self.target)
            self.socket.close()

    def send(self, method: str, **parameters) -> dict:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            answer = json.loads(self.socket.recv(SECONDS))
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._heard(answer)

    def _heard(self, event: dict) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(a.get("value", a.get("description"))) for a in told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(told["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])

    def resize(self, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)

    def evaluate(self, expression: str):
        """The value of a JavaScript expression, once it is settled."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails'].get('exception', {}).get('description')}")
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait for the expression to be true."""
        end = time.monotonic() + SECONDS
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, f"never true: {expression}; the page says {self.evaluate('document.body.innerText')[:500]!r}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """(left, top, width, height) in the window, after scrolling there."""
        return tuple(self.evaluate(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
                                   "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect(); "
                                   "return [b.x, b.y, b.width, b.height]; })()"))

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """With the mouse, at this share of the element's width and height."""
        left, top, width, height = self.box(selector)
        self.drag([(left + across * width, top + down * height)])

    def drag(self, points) -> None:
        """Press at the first point of the window, pass over the others, and release."""
        for kind, (x, y) in [("mouseMoved", points[0]), ("mousePressed", points[0]), *(("mouseMoved", p) for p in points[1:]),
                             ("mouseReleased", points[-1])]:
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=int(kind != "mouseReleased"), clickCount=1)

    def press(self, key: str, times: int = 1, shift: bool = False) -> None:
        text = {"Enter": "\r", " ": " "}.get(key, "")
        told = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 8 * shift}
        for _ in range(times):
            self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **told, **({"text": text} if text else {}))
            self.send("Input.dispatchKeyEvent", type="keyUp", **told)

    def choose_file(self, selector: str, path: Path) -> None:
        document = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """A PNG of the window, or of the whole page."""
        if whole:
            self.evaluate("window.scrollTo(0, 0)")          # where a header that stays in sight belongs
        self.send("Page.bringToFront")                  # a page behind another paints no frames, and would be waited for
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
