"""numbanet explore"""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLE = ("  numbanet explore runs/lenet5-1\n  numbanet explore lite0.safetensors --port 8000\n  numbanet explore runs/detector-1\n"
           "  numbanet explore runs/segmenter-1")


def configure(parser) -> None:
    parser.add_argument("network", metavar="MODEL", nargs="?", help="a run folder, weights, a .onnx file or a name from 'numbanet models' "
                                                                    "(default: the newest run in runs/, else a new lenet5)")
    parser.add_argument("--port", type=int, default=8765, help="of the page on 127.0.0.1 (default 8765; 0: any that is free)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    parser.add_argument("--model", metavar="NAME", help="the network, where the weights do not say it (see 'numbanet models')")
    parser.add_argument("--metadata", metavar="FILE", help="JSON with the 'classes' and 'preprocessing' that the weights lack")
    parser.add_argument("--device", default="cpu", help="cpu (default) or reference")


def run(arguments) -> int:
    import logging
    import socket

    from numbanet.backends import get_backend
    from numbanet.cli.network import open_network
    from numbanet.data.images import is_image_file
    from numbanet.detection.prediction import is_detector, load_detector
    from numbanet.errors import UsageError
    if not 0 <= arguments.port <= 65535:
        raise UsageError(f"--port: expected 0 to 65535, received {arguments.port}")
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(f"the explorer needs {error.name}: pip install 'numbanet[explore]'") from None
    from numbanet.explore.engine import Explorer
    from numbanet.explore.server import serve
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("numbanet.compile").setLevel(logging.INFO)
    arguments.out = None
    arguments.network = arguments.network or _newest_run() or "lenet5"
    folder = Path(arguments.network)
    if folder.exists() and is_detector(folder):
        for option in ("model", "metadata"):
            if getattr(arguments, option) is not None:
                raise UsageError(f"--{option}: a detector's weights say it themselves; leave it out")
        get_backend(arguments.device)
        opened, name = load_detector(folder, arguments.device), f"detector {folder.stem}"
    else:
        opened, name = open_network(arguments)
    samples = sorted(path for path in (folder / "samples").glob("*") if is_image_file(path)) if folder.is_dir() else []
    explorer = Explorer(opened, name, folder.exists(), samples)
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", arguments.port))
    except OSError as error:
        bound.close()
        raise UsageError(f"--port: 127.0.0.1:{arguments.port} cannot be used ({error.strerror}); choose another, or 0 for any") from None
    port = bound.getsockname()[1]
    _warm(explorer)
    print(f"{name}: http://127.0.0.1:{port}/\nCtrl-C ends it.", flush=True)
    if not arguments.no_browser:
        import webbrowser
        webbrowser.open(f"http://127.0.0.1:{port}/")
    try:
        serve(explorer, bound, port)
    except KeyboardInterrupt:
        pass
    finally:
        bound.close()
    return 0


def _newest_run() -> str | None:
    found = sorted(Path("runs").glob("*/weights/best.safetensors"), key=lambda path: path.stat().st_mtime)
    return str(found[-1].parents[1]) if found else None


def _warm(explorer) -> None:
    """One picture before the first visitor, so that every kernel is compiled."""
    import io

    import numpy as np
    from PIL import Image
    pixels = np.full((64, 64), 255, np.uint8)
    pixels[16:48, 28:36] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    explorer.look(file.getvalue())
    explorer.filtered(file.getvalue(), "gaussian")
