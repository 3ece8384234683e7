"""The server of the page: this machine only, one picture at a time, and nothing in an answer that tells of the machine."""

from __future__ import annotations

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from numbanet.errors import DataError, NumbanetError
from numbanet.explore.engine import Explorer, Gone

logger = logging.getLogger("numbanet.explore")

PAGE = Path(__file__).parent / "page"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
LARGEST = 20 * 1024 * 1024      # bytes of a picture
WAITING = 8                     # requests that wait for the engine; more are sent away
HEADERS = [(b"content-security-policy", b"default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; "
                                        b"form-action 'none'"),
           (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"), (b"cross-origin-resource-policy", b"same-origin"),
           (b"cache-control", b"no-store")]


def create_app(explorer: Explorer, port: int, hosts=("127.0.0.1", "localhost")):
    """The ASGI application, which answers requests to these hosts at this port only."""
    api = _Api(explorer)
    files = {f"/{path.name}": path for path in PAGE.iterdir() if path.suffix in TYPES} | {"/": PAGE / "index.html"}

    async def page(request: Request):
        path = files[request.url.path]
        return FileResponse(path, media_type=TYPES[path.suffix])

    routes = [Route(path, page) for path in files]
    routes += [Route(f"/api/{name}", getattr(api, name), methods=[method]) for name, method in (
        ("model", "GET"), ("samples", "GET"), ("sample", "GET"), ("look", "POST"), ("cam", "GET"), ("unit", "GET"), ("filter", "POST"),
        ("size", "GET"))]
    names = {f"{host}:{port}" for host in hosts} | ({*hosts} if port == 80 else set())
    return _Guard(Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_found}), names)


async def _not_found(_request, error):
    return JSONResponse({"error": "there is nothing here"}, error.status_code)


class _Guard:
    """Refuses requests that other sites made a browser send, and names of hosts that are not this machine's."""

    def __init__(self, app, names: set[str]):
        self.app, self.names = app, names
        self.origins = {f"http://{name}" for name in names}

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def guarded(message):
            if message["type"] == "http.response.start":
                ours = {name for name, _ in HEADERS}
                message["headers"] = [h for h in message["headers"] if h[0].lower() not in ours] + HEADERS
            await send(message)

        origin = headers.get("origin")
        if headers.get("host", "").lower() not in self.names:
            refused = "this page answers on 127.0.0.1 only"
        elif origin is not None and origin.lower() not in self.origins:
            refused = "requests of other sites are refused"
        elif headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["path"] != "/":
            refused = "requests of other sites are refused"
        else:
            await self.app(scope, receive, guarded)
            return
        await JSONResponse({"error": refused}, 403)(scope, receive, guarded)


class _Api:
    """The page's questions. Each is answered by the engine's one thread, in the order of arrival."""

    def __init__(self, explorer: Explorer):
        self.explorer, self.waiting = explorer, 0
        self.thread = ThreadPoolExecutor(1, "numbanet-explore")

    async def model(self, request: Request) -> Response:
        return await self._compute(lambda: self.explorer.model() | {"largest": LARGEST})

    async def samples(self, request: Request) -> Response:
        return await self._compute(self.explorer.samples)

    async def sample(self, request: Request) -> Response:
        number = _integers(request.query_params, {"number": ""})["number"]
        if isinstance(number, str):
            return _error("number expects a whole number", 400)
        return await self._compute(lambda: self.explorer.sample(number))

    async def look(self, request: Request) -> Response:
        return await self._with_picture(request, self.explorer.look)

    async def filter(self, request: Request) -> Response:
        query = request.query_params
        kernel = query.get("kernel", "")
        if len(kernel) > 20_000:
            return _error("kernel: too long", 413)
        numbers = _integers(query, {"stride": 1, "dilation": 1}) | _integers(query, {"padding": None})
        if any(v is not None and (isinstance(v, str) or not (0 if k == "padding" else 1) <= v <= 64) for k, v in numbers.items()):
            return _error("stride, padding and dilation expect small whole numbers", 400)
        return await self._with_picture(request, lambda data: self.explorer.filtered(data, kernel, **numbers))

    async def cam(self, request: Request) -> Response:
        numbers = _integers(request.query_params, {"class": ""})
        if isinstance(numbers["class"], str):
            return _error("class expects a whole number", 400)
        return await self._compute(lambda: self.explorer.cam(request.query_params.get("id", ""), numbers["class"]))

    async def unit(self, request: Request) -> Response:
        query = request.query_params
        try:
            layer, unit = int(query.get("layer", "")), tuple(int(n) for n in query.get("unit", "").split(","))
        except ValueError:
            return _error("layer and unit expect whole numbers", 400)
        return await self._compute(lambda: self.explorer.unit(query.get("id", ""), layer, unit))

    async def size(self, request: Request) -> Response:
        numbers = _integers(request.query_params, {"n": 32, "kernel": 5, "stride": 1, "padding": 0, "dilation": 1})
        if any(isinstance(v, str) for v in numbers.values()):
            return _error("expected whole numbers", 400)
        return await self._compute(lambda: self.explorer.size(**numbers))

    async def _with_picture(self, request: Request, compute) -> Response:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > LARGEST:
            return _error(f"a picture may have {LARGEST // 2**20} MB", 413)
        parts, size = [], 0
        try:
            async for part in request.stream():
                size += len(part)
                if size > LARGEST:
                    return _error(f"a picture may have {LARGEST // 2**20} MB", 413)
                parts.append(part)
        except ClientDisconnect:
            return Response(status_code=499)            # nobody is there to read it
        return await self._compute(lambda: compute(b"".join(parts)))

    async def _compute(self, function) -> Response:
        if self.waiting >= WAITING:
            return JSONResponse({"error": "too many requests wait already; try again in a moment"}, 503, {"retry-after": "1"})
        self.waiting += 1
        try:
            return _Json(await asyncio.get_running_loop().run_in_executor(self.thread, function))
        except Gone as error:
            return _error(str(error), 410)
        except NumbanetError as error:
            return _error(str(error), 422 if isinstance(error, DataError) else 400)
        except MemoryError:
            return _error("out of memory; a smaller picture needs less", 413)
        except Exception:                               # told in the log, where the machine's paths belong
            logger.exception("the explorer failed")
            return _error("this failed; the terminal of numbanet explore tells more", 500)
        finally:
            self.waiting -= 1


class _Json(JSONResponse):
    def render(self, content) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def _error(text: str, status: int) -> JSONResponse:
    return JSONResponse({"error": text}, status)


def _integers(query, defaults: dict) -> dict:
    """Values of the query as integers; what is no integer stays a string."""
    found = {}
    for name, default in defaults.items():
        text = query.get(name)
        if text is None or text == "":
            found[name] = default
        else:
            found[name] = int(text) if text.lstrip("-").isdecimal() and len(text) < 10 else text
    return found


def serve(explorer: Explorer, socket, port: int) -> None:
    """Answer until interrupted, on a socket that is bound already."""
    import uvicorn
    config = uvicorn.Config(create_app(explorer, port), log_level="warning", server_header=False, timeout_keep_alive=30, ws="none",
                            lifespan="off", loop="asyncio", http="h11")
    uvicorn.Server(config).run(sockets=[socket])
