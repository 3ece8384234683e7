"""numbanet identify"""

from __future__ import annotations

import json
import sys

EXAMPLE = ("  numbanet index lite0.safetensors gallery/ --out people --detector mtcnn/\n"
           "  numbanet identify people party.jpg --out named.png\n"
           "  numbanet identify tools bench.jpg --box 40,30,200,180 --box 220,30,380,190")
COLOURS = ((31, 107, 182), (214, 96, 30))       # named, unknown


def configure(parser) -> None:
    from numbanet.cli.pictures import configure_work
    from numbanet.search.identification import THRESHOLD
    parser.add_argument("gallery", metavar="GALLERY", help="an index; its folders, or its files' names, are the names")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or - for standard input")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, metavar="T",
                        help=f"cosine below which nothing is named (default {THRESHOLD})")
    parser.add_argument("--detector", metavar="DIR", help="name each face: a folder with MTCNN's pnet.pt, rnet.pt and onet.pt (default: "
                                                          "that of the gallery, if it has one)")
    parser.add_argument("--box", action="append", metavar="L,T,R,B", help="name this part, in pixels; may be repeated")
    parser.add_argument("--network", metavar="PATH", help="where the gallery's network is now, if it was moved")
    parser.add_argument("--out", metavar="FILE", help="also draw a contact sheet, as PNG")
    configure_work(parser)


def run(arguments) -> int:
    from numbanet.cli.network import check_output
    from numbanet.cli.pictures import check_work, source_of, table
    from numbanet.data.images import load_image
    from numbanet.detection.faces import FaceDetector
    from numbanet.errors import DataError, UsageError
    from numbanet.search import ImageIndex, identify
    from numbanet.search.index import shown
    from numbanet.search.sheets import names_of, picture_cell
    from numbanet.vision.composition import Section, compose, save_sheet
    check_work(arguments)
    check_output(arguments)
    boxes = None if arguments.box is None else [_box(text) for text in arguments.box]
    results, failures, cells = [], 0, []
    with ImageIndex(arguments.gallery, arguments.device) as index:
        folders = index.description.folders
        weights = arguments.detector or index.description.detector
        detector = None if weights is None or boxes is not None else FaceDetector(weights, arguments.device)
        embedder = index.embedder(arguments.network, arguments.device, arguments.batch_size)
        for name in arguments.images:
            try:
                source = source_of(name)
                found = identify(index, embedder, source, arguments.threshold, detector, boxes)
                results.append((name, found))
                if arguments.out is not None:
                    if hasattr(source, "seek"):
                        source.seek(0)
                    marks = [((one.box[1], one.box[0], one.box[3], one.box[2]), COLOURS[one.name == "unknown"]) for one in found if one.box]
                    names = [f"{one.name} {one.score:.3f}" for one in found] or ["no face was found"]
                    cells.append(picture_cell(load_image(source), shown(name), *names, boxes=marks))
            except (DataError, UsageError) as error:
                if isinstance(error, UsageError) and boxes is None:
                    raise
                print(f"numbanet identify: {error}", file=sys.stderr)
                failures += 1
    if arguments.out is not None and cells:
        lines = [f"By the nearest entry of {arguments.gallery}, if its cosine reaches {arguments.threshold:g}."]
        save_sheet(arguments.out, compose("Who is it?", lines, [Section(cells, "", min(4, len(cells)))]))
    if arguments.json:
        print(json.dumps([{"image": shown(name), "found": [{"name": one.name, "score": one.score, "box": one.box, "entry": shown(one.path)}
                                                           for one in found]} for name, found in results], indent=2))
        return 1 if failures else 0
    for name, found in results:
        print(shown(name) + ("" if found else ": no face was found"))
        rows = [(one.name, f"{one.score:.4f}", "whole picture" if one.box is None else ",".join(f"{edge:.0f}" for edge in one.box),
                 *names_of([one.path], folders)) for one in found]
        if rows:
            print("\n".join("  " + line[:78] for line in table(rows, ("name", "cosine", "where", "nearest entry"), right=(1,))))
    if arguments.out is not None and cells:
        print(f"wrote {arguments.out}")
    return 1 if failures else 0


def _box(text: str) -> tuple[float, ...]:
    from numbanet.errors import UsageError
    try:
        box = tuple(float(edge) for edge in text.split(","))
        if len(box) == 4 and box[0] < box[2] and box[1] < box[3] and all(abs(edge) < 1e9 for edge in box):
            return box
    except ValueError:
        pass
    raise UsageError(f"--box: expected left,top,right,bottom in pixels, such as 40,30,200,180, received {text!r}")
