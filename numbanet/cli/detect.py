"""numbanet detect"""

from __future__ import annotations

import json
import sys
from pathlib import Path

EXAMPLE = ("  numbanet detect runs/detector-1 runs/detector-1/samples\n  numbanet detect runs/detector-1 scene.png -o found.png\n"
           "  cat scene.png | numbanet detect detector.safetensors - --json")


def configure(parser) -> None:
    from numbanet.detection.selection import OVERLAP, SURE
    parser.add_argument("weights", metavar="MODEL", help="the run folder of a detector, or weights (.safetensors, .npz, .pt, .pth)")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, folders of them, or - for standard input")
    parser.add_argument("--threshold", type=float, default=SURE, metavar="S", help=f"least score that is told (default {SURE})")
    parser.add_argument("--overlap", type=float, default=OVERLAP, metavar="IOU",
                        help=f"of two boxes of a class that overlap by more only the better one is told (default {OVERLAP})")
    parser.add_argument("-o", "--out", metavar="PATH", help="draw the boxes: a .png for one image, else a folder")
    parser.add_argument("--device", default="cpu", help="cpu (default) or reference")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    from numbanet.cli.predict import sources_of
    from numbanet.data.images import load_image
    from numbanet.detection import load_detector
    from numbanet.errors import DataError, UsageError
    for name in ("threshold", "overlap"):
        if not 0 <= getattr(arguments, name) <= 1:
            raise UsageError(f"--{name}: expected a number from 0 to 1, received {getattr(arguments, name)}")
    detector = load_detector(arguments.weights, arguments.device)
    sources = list(sources_of(arguments.images))
    target = _target(arguments.out, sources)
    results, failures, written = [], 0, []
    for name, source in sources:
        try:
            if source is None:
                raise DataError(f"{name}: the folder has no images")
            picture = load_image(source)
            found = detector.detect(picture, arguments.threshold, arguments.overlap)
            results.append({"image": name, "objects": detector.named(found)})
            if target is not None:
                written.append(_draw(target, name, picture, found, detector.classes, written))
        except DataError as error:
            print(f"numbanet detect: {error}", file=sys.stderr)
            failures += 1
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            print("\n".join(_lines(result)))
        if written:
            print(f"wrote {written[0]}" + (f" and {len(written) - 1} more" if len(written) > 1 else ""))
    return 1 if failures else 0


def _target(out, sources) -> Path | None:
    """Where pictures are drawn: a PNG, or a folder."""
    from numbanet.errors import UsageError
    if out is None:
        return None
    path, pictures = Path(out), [source for _, source in sources if source is not None]
    if path.suffix.lower() == ".png" and not path.is_dir():
        if len(pictures) > 1:
            raise UsageError(f"--out: expected a folder for {len(pictures)} images, received {out}")
        if path.exists() and any(isinstance(source, Path) and source.exists() and source.samefile(path) for source in pictures):
            raise UsageError(f"--out: {out} is what this command reads; choose another name")
        return path
    if path.suffix and not path.is_dir():
        raise UsageError(f"--out: expected a name that ends in .png, or a folder, received {out}")
    if path.is_dir() and any(isinstance(source, Path) and source.exists() and source.parent.samefile(path) for source in pictures):
        raise UsageError(f"--out: {out} is the folder that the images are in; choose another one")
    return path


def _draw(target: Path, name: str, picture, found, classes, written) -> Path:
    from numbanet.detection.drawing import draw_objects
    from numbanet.files import atomic_file
    path = target
    if target.suffix.lower() != ".png" or target.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        stem, count = ("standard-input" if name == "-" else Path(name).stem), 1
        path = target / f"{stem}.png"
        while path in written:              # of two folders
            count += 1
            path = target / f"{stem}-{count}.png"
    with atomic_file(path) as temporary:
        draw_objects(picture, found, classes).save(temporary, "PNG")
    return path


def _lines(result) -> list[str]:
    objects = result["objects"]
    lines = [f"{result['image']}: {len(objects) or 'no'} object{'' if len(objects) == 1 else 's'}"]
    width = max((len(o["class"]) for o in objects), default=0)
    for o in objects:
        left, top, right, bottom = o["box"]
        lines.append(f"  {o['class'].ljust(width)}  {100 * o['score']:5.1f}%  left {left:.0f}, top {top:.0f}, right {right:.0f}, "
                     f"bottom {bottom:.0f}")
    return lines
