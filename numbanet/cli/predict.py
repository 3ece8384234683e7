"""numbanet predict"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

EXAMPLE = ("  numbanet predict runs/lenet5-1 digit.png photos/ --top 3\n  cat digit.png | numbanet predict runs/lenet5-1 - --json\n"
           "  numbanet predict resnet50.pth photo.jpg --model resnet50\n  numbanet predict model.onnx photo.jpg")


def configure(parser) -> None:
    parser.add_argument("weights", help="a run folder, weights (.safetensors, .npz, .pt, .pth), or a .onnx file")
    parser.add_argument("images", nargs="+", help="image files, folders of them, or - for standard input")
    parser.add_argument("--top", type=int, default=3, help="how many classes to show (default 3)")
    parser.add_argument("--raw", action="store_true", help="digits: use the picture as it is, without making it look as MNIST's do")
    parser.add_argument("--model", metavar="NAME", help="the network, where the weights do not say it (see 'numbanet models')")
    parser.add_argument("--metadata", metavar="FILE", help="JSON with the 'classes' and 'preprocessing' that the weights lack")
    parser.add_argument("--device", default="cpu", help="cpu (default) or reference")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    from numbanet.cli.network import open_classifier
    from numbanet.errors import DataError, UsageError
    if arguments.top < 1:
        raise UsageError(f"--top: expected at least 1, received {arguments.top}")
    classifier = open_classifier(arguments.weights, arguments)
    results, failures = [], 0
    for name, source in sources_of(arguments.images):
        try:
            if source is None:
                raise DataError(f"{name}: the folder has no images")
            results.append({"image": name, "predictions": classifier(source, arguments.top, arguments.raw)})
        except DataError as error:
            print(f"numbanet predict: {error}", file=sys.stderr)
            failures += 1
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        width = max((len(r["image"]) for r in results), default=0)
        for result in results:
            print(result["image"].ljust(width) + "  " + "   ".join(
                f"{p['class']} {100 * p['probability']:.2f}%" for p in result["predictions"]))
    return 1 if failures else 0


def sources_of(names):
    """(name, path or file) of every picture asked for; None for a folder without any."""
    from numbanet.data.images import is_image_file
    for name in names:
        path = Path(name)
        if name == "-":
            picture = io.BytesIO(sys.stdin.buffer.read())
            picture.name = "standard input"
            yield "-", picture
        elif path.is_dir():
            found = sorted(p for p in path.rglob("*") if is_image_file(p))
            yield from ((str(p), p) for p in found)
            if not found:
                yield name, None
        else:
            yield name, path
