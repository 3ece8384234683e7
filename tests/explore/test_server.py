"""The explorer's server: answers that agree with the engine, and everything it refuses."""

import asyncio
import base64
import io
import threading

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet.train.prediction import Classifier
from numbanet.train.preprocessing import Preprocessing
from numbanet.vision import GradCAM, record_activations
from numbanet.zoo import create_model, model_info

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")
from starlette.testclient import TestClient  # noqa: E402

from numbanet.explore import engine as engine_module  # noqa: E402
from numbanet.explore import server as server_module  # noqa: E402
from numbanet.explore.engine import KEPT, Explorer  # noqa: E402
from numbanet.explore.server import create_app  # noqa: E402

BASE = "http://127.0.0.1:8765"
pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx`")


def png(seed=0, size=(40, 50)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def explorer():
    with numbanet.random.fork_rng():
        numbanet.manual_seed(2)
        model = create_model("lenet5")
    return Explorer(Classifier(model, [f"digit {i}" for i in range(10)], Preprocessing.for_model(model_info("lenet5"))), "lenet5", False)


@pytest.fixture
def client(explorer):
    return TestClient(create_app(explorer, 8765), base_url=BASE, raise_server_exceptions=False)


def ok(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status_code == 200 and "numbanet explorer" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"] and page.headers["x-content-type-options"] == "nosniff"
    for name in ("main.js", "api.js", "draw.js", "layers.js", "unit.js", "sizes.js", "filters.js", "objects.js", "labels.js", "samples.js",
                 "style.css"):
        file = client.get(f"/{name}")
        assert file.status_code == 200
        assert "http://" not in file.text.replace("http://www.w3.org/2000/svg", "") and "https://" not in file.text
    assert client.get("/../pyproject.toml").status_code == 404 and client.get("/api/nothing").json() == {"error": "there is nothing here"}
    assert client.get("/api/look").status_code == 405


def test_a_picture_flows_through(client, explorer):
    model = ok(client.get("/api/model"))
    assert model["name"] == "lenet5" and not model["trained"] and model["input"] == [1, 32, 32] and model["parameters"] == 61706
    found = ok(client.post("/api/look", content=png()))
    preprocessing = explorer.subject.classifier.preprocessing
    x = numbanet.tensor(preprocessing.batch_transform()(preprocessing.read(io.BytesIO(png()))[None]))
    activations, output = record_activations(explorer.subject.classifier.model, x)
    assert [layer["path"] for layer in found["layers"]] == [a.path for a in activations]
    assert [layer["shape"] for layer in found["layers"]] == [list(a.output.shape[1:]) for a in activations]
    probabilities = numbanet.softmax(output, 1).numpy()[0]
    assert [row["class"] for row in found["top"]] == np.argsort(-probabilities)[:5].tolist()
    np.testing.assert_allclose([row["probability"] for row in found["top"]], np.sort(probabilities)[::-1][:5], rtol=1e-5)
    layer = found["layers"][0]
    first = layer["maps"][0]
    values = activations[0].output.numpy()[0, first["index"]]
    assert first["high"] == pytest.approx(values.max()) and first["low"] == pytest.approx(values.min())
    coded = np.frombuffer(base64.b64decode(first["data"]), np.uint8).reshape(28, 28)
    span = layer["high"] - layer["low"]
    np.testing.assert_allclose(layer["low"] + coded / 255 * span, values, atol=span / 500)
    assert found["cam"]["layer"] == "features.s4" and found["cam"]["picture"].startswith("data:image/png;base64,")
    other = ok(client.get("/api/cam", params={"id": found["id"], "class": 7}))
    assert other["name"] == "digit 7"
    assert GradCAM(explorer.subject.classifier.model, [explorer.subject.classifier.model.features.s4])(x).shape == (1, 32, 32)


def test_the_same_page_on_every_backend(explorer):
    """What is sent of a picture, up to single steps of colour."""
    def looked(device):
        classifier = explorer.subject.classifier
        model = create_model("lenet5").to(device)
        state = classifier.model.state_dict().items()
        model.load_state_dict({name: numbanet.tensor(value.numpy(), device=device) for name, value in state})
        return Explorer(Classifier(model, classifier.classes, classifier.preprocessing, device), "lenet5", False).look(png(8))

    def pixels(coded):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(coded.partition(",")[2]))), int)
    ours, theirs = looked("cpu"), looked("reference")
    assert ours["top"] == [row | {"probability": pytest.approx(row["probability"], rel=1e-4)} for row in theirs["top"]]
    assert ours["picture"] == theirs["picture"] and ours["cam"]["layer"] == theirs["cam"]["layer"]
    assert np.abs(pixels(ours["cam"]["picture"]) - pixels(theirs["cam"]["picture"])).max() <= 3
    for layer, other in zip(ours["layers"], theirs["layers"], strict=True):
        assert (layer["path"], layer["shape"]) == (other["path"], other["shape"])
        for one, two in zip(layer.get("maps", ()), other.get("maps", ()), strict=True):
            steps = [np.frombuffer(base64.b64decode(m["data"]), np.uint8).astype(int) for m in (one, two)]
            assert one["index"] == two["index"] and np.abs(steps[0] - steps[1]).max() <= 1
        units = [{u["index"]: u["value"] for u in told.get("units", ())} for told in (layer, other)]
        assert units[0] == {index: pytest.approx(value, abs=1e-4) for index, value in units[1].items()}


def test_units_agree_with_the_engine(client, explorer):
    found = ok(client.post("/api/look", content=png(5)))
    look = explorer._looks[found["id"]]
    for index, unit in ((0, (3, 5, 27)), (3, (15, 9, 0)), (2, (1, 2, 3)), (7, (4,)), (11, (9,)), (1, (0, 0, 0))):
        answer = ok(client.get("/api/unit", params={"id": found["id"], "layer": index, "unit": ",".join(map(str, unit))}))
        assert answer["value"] == pytest.approx(float(look.activations[index].output.numpy()[(0, *unit)]))
        if answer["total"] is not None:
            assert answer["total"] == pytest.approx(answer["value"], abs=1e-4)
            assert answer["total"] == pytest.approx(sum(p["sum"] for p in answer["parts"]) + answer["rest"]["sum"] + answer["bias"])


@pytest.mark.parametrize(("query", "output", "fits", "formula"), [
    ("n=7&kernel=3&stride=1", 5, True, "(7 - 3 + 2*0) / 1 + 1 = 5"), ("n=7&kernel=3&stride=2", 3, True, "= 3"),
    ("n=7&kernel=3&stride=3", 2, False, "(7 - 3 + 2*0) / 3 + 1 = 2.33"), ("n=7&kernel=3&padding=1", 7, True, "= 7"),
    ("n=3&kernel=5&dilation=2", 0, False, "(3 - 9 + 2*0) / 1 + 1 = -5")])
def test_sizes(client, query, output, fits, formula):
    found = ok(client.get(f"/api/size?{query}"))
    assert (found["output"], found["fits"]) == (output, fits) and formula in found["formula"] and len(found["starts"]) == output


def test_classical_filters(client):
    found = ok(client.post("/api/filter", params={"kernel": "sobel"}, content=png(1, (700, 300))))
    assert found["size"] == [320, 137] and found["correlation"]["high"] == pytest.approx(-found["convolution"]["low"])
    assert ok(client.post("/api/filter?kernel=box&stride=2&padding=0", content=png()))["correlation"]["size"] == [19, 24]
    for query, message in (("kernel=1 2; 3", "rows of one length"), ("kernel=", "no filter"),
                           ("kernel=box&stride=0", "small whole numbers"), ("kernel=box&stride=x", "small whole numbers"),
                           ("kernel=box&padding=-1", "small whole numbers")):
        answer = client.post(f"/api/filter?{query}", content=png())
        assert answer.status_code == 400 and message in answer.json()["error"]
    assert client.post("/api/filter", params={"kernel": "1 " * 20_000}, content=png()).status_code == 413


def test_other_sites_and_hosts_are_refused(client):
    for headers in ({"host": "evil.example"}, {"host": "127.0.0.1:1"}, {"host": "127.0.0.1.evil.example:8765"},
                    {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:8766"},
                    {"sec-fetch-site": "cross-site"}):
        for answer in (client.get("/api/model", headers=headers), client.post("/api/look", content=png(), headers=headers)):
            assert answer.status_code == 403 and "error" in answer.json() and "access-control-allow-origin" not in answer.headers
    for headers in ({"origin": BASE}, {"host": "localhost:8765"}, {"sec-fetch-site": "same-origin"}):
        ok(client.get("/api/model", headers=headers))


def test_bad_pictures(client, monkeypatch):
    for content, status, message in ((b"", 422, "picture: not an image"), (b"lorem ipsum", 422, "picture: not an image"),
                                     (png()[:200], 422, "picture: the image is broken or truncated")):
        answer = client.post("/api/look", content=content)
        assert answer.status_code == status and message in answer.json()["error"]
    file = io.BytesIO()
    Image.new("1", (30_000, 2_000)).save(file, "PNG")
    answer = client.post("/api/look", content=file.getvalue())
    assert answer.status_code == 422 and "40000000 pixels" in answer.json()["error"]
    monkeypatch.setattr(server_module, "LARGEST", 1000)
    assert client.post("/api/look", content=png()).status_code == 413
    assert client.post("/api/look", content=iter([png()] * 2)).status_code == 413, "without a length, counted as it comes"
    monkeypatch.undo()
    ok(client.post("/api/look", content=png()))


def test_bad_questions(client):
    key = ok(client.post("/api/look", content=png()))["id"]
    for path, status, message in (
            (f"unit?id={key}&layer=99&unit=0,0,0", 400, "expected 0 to 11, received 99"),
            (f"unit?id={key}&layer=0&unit=0,0", 400, "has the shape"),
            (f"unit?id={key}&layer=0&unit=0,0,28", 400, "received (0, 0, 28)"),
            (f"unit?id={key}&layer=x&unit=0", 400, "whole numbers"), (f"unit?id={key}&layer=0&unit=-1,0,0", 400, "received"),
            ("unit?id=other&layer=0&unit=0,0,0", 410, "send it again"), (f"cam?id={key}&class=10", 400, "expected 0 to 9"),
            (f"cam?id={key}", 400, "whole number"), ("cam?id=&class=1", 410, "again"), ("size?n=0", 400, "expected 1 to 64"),
            ("size?n=1e9", 400, "whole numbers"), ("size?stride=-1", 400, "expected 1 to 8")):
        answer = client.get(f"/api/{path}")
        assert answer.status_code == status and message in answer.json()["error"], path


def test_only_the_last_pictures_are_kept(client, explorer, monkeypatch):
    first = ok(client.post("/api/look", content=png()))["id"]
    for seed in range(KEPT):
        ok(client.post("/api/look", content=png(seed)))
    assert client.get(f"/api/unit?id={first}&layer=0&unit=0,0,0").status_code == 410 and len(explorer._looks) == KEPT
    monkeypatch.setattr(engine_module, "KEPT_BYTES", 100_000)          # less than two pictures of LeNet-5 take
    newest = ok(client.post("/api/look", content=png()))["id"]
    assert list(explorer._looks) == [newest]


def test_nothing_tells_of_the_machine(client, explorer, monkeypatch, tmp_path):
    def fail(_data):
        raise RuntimeError(f"cannot open {tmp_path}/secret")
    monkeypatch.setattr(explorer, "look", fail)
    answer = client.post("/api/look", content=png())
    assert answer.status_code == 500 and str(tmp_path) not in answer.text and "Traceback" not in answer.text
    assert "server" not in answer.headers
    monkeypatch.undo()
    ok(client.post("/api/look", content=png()))


def test_a_queue_with_a_limit(explorer, monkeypatch):
    """While one request computes, two wait; two more are sent away at once, and the three are answered in the end."""
    monkeypatch.setattr(server_module, "WAITING", 3)
    go = threading.Event()

    def slow():
        assert go.wait(60)
        return {"name": "slow"}
    monkeypatch.setattr(explorer, "model", slow)

    async def crowd():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(explorer, 8765)), base_url=BASE) as client:
            waiting, codes = {asyncio.ensure_future(client.get("/api/model")) for _ in range(5)}, []
            while len(codes) < 5:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                codes += [answer.result().status_code for answer in done]
                if len(codes) == 2:
                    assert codes == [503, 503] and {a.result().headers["retry-after"] for a in done} == {"1"}
                    go.set()
            return codes, (await client.get("/api/size")).status_code
    assert asyncio.run(crowd()) == ([503, 503, 200, 200, 200], 200)


def test_a_browser_that_goes_away(client, explorer):
    """The connection ends in the middle of a picture: nothing breaks, and the next one is answered."""
    app = create_app(explorer, 8765)
    sent, messages = [], iter([{"type": "http.request", "body": png()[:100], "more_body": True}, {"type": "http.disconnect"}])

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)
    scope = {"type": "http", "method": "POST", "path": "/api/look", "raw_path": b"/api/look", "query_string": b"", "http_version": "1.1",
             "headers": [(b"host", b"127.0.0.1:8765")], "scheme": "http", "client": None, "server": ("127.0.0.1", 8765), "root_path": "",
             "asgi": {"version": "3.0"}}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 499
    ok(client.post("/api/look", content=png()))
