"""numbanet index"""

from __future__ import annotations

import json
from pathlib import Path

EXAMPLE = ("  numbanet index efficientnet_lite0.safetensors photos/ --out photos-index\n"
           "  numbanet index photos-index                     (bring it up to date)\n"
           "  numbanet search photos-index query.jpg")


def configure(parser) -> None:
    from numbanet.cli.pictures import configure_embedder
    parser.add_argument("network", metavar="MODEL", help="a run folder, weights (.safetensors, .npz, .pt, .pth), a .onnx file, or a name "
                                                         "from 'numbanet models'; or an index, to bring it up to date")
    parser.add_argument("folders", metavar="FOLDER", nargs="*", help="folders of pictures, with all folders inside")
    parser.add_argument("--out", metavar="DIR", help="the index (default: FOLDER-index); one that is there is brought up to date")
    parser.add_argument("--detector", metavar="DIR", help="embed the largest face of each picture: a folder with MTCNN's pnet.pt, "
                                                          "rnet.pt and onet.pt")
    parser.add_argument("--forget", metavar="FOLDER", action="append", default=[], help="take a folder out of the index; may be repeated")
    configure_embedder(parser)


def run(arguments) -> int:
    from numbanet.cli.pictures import check_work, open_named_embedder, tell_skipped, watch
    from numbanet.detection.faces import FaceDetector
    from numbanet.errors import UsageError
    from numbanet.search import ImageIndex, face_reader, is_index, update_index
    from numbanet.search.index import folders_of, matching_embedder, read_description
    check_work(arguments)
    folders = folders_of(arguments.folders)
    if is_index(arguments.network):
        if arguments.out is not None or arguments.layer is not None or arguments.model is not None or arguments.raw:
            raise UsageError("an index keeps its network, layer and place; leave out --out, --layer, --model and --raw")
        path, source = Path(arguments.network), None
        description = read_description(path)
        embedder, detector = matching_embedder(path, description, None, arguments.device, arguments.batch_size), description.detector
    else:
        if not folders:
            raise UsageError(f"expected folders of pictures, such as: numbanet index {arguments.network} photos/")
        path, source = Path(arguments.out or f"{folders[0].rstrip('/')}-index"), arguments.network
        embedder, detector = open_named_embedder(source, arguments), arguments.detector
    detector = None if detector is None else str(Path(detector).absolute())
    reader = None if detector is None else face_reader(embedder, FaceDetector(detector, arguments.device))
    done = update_index(path, embedder, folders, source=source, model=arguments.model, metadata=arguments.metadata,
                        detector=detector,
                        reader=reader, forget=arguments.forget, num_workers=arguments.workers, device=arguments.device, watch=watch)
    tell_skipped("index", done.skipped)
    work = done.added + done.changed + done.repaired
    facts = {"index": str(path), "files": done.files, "rows": done.rows, "dimension": embedder.dimension, "layer": embedder.layer_text,
             "added": done.added, "changed": done.changed, "removed": done.removed, "unchanged": done.unchanged, "reused": done.reused,
             "repaired": done.repaired, "seconds": done.seconds, "images_per_second": work / max(done.seconds, 1e-9),
             "skipped": [{"path": p, "reason": r} for p, r in done.skipped]}
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    with ImageIndex(path) as index:
        way = "a graph of neighbours" if index.is_approximate else "comparing with each"
    print(f"{path}: {done.files:,} pictures, {done.rows:,} different, {embedder.dimension} numbers each\n"
          f"  {embedder.layer_text} of {embedder.model._get_name()}; searched by {way}\n"
          f"  {done.added:,} added, {done.changed:,} changed, {done.removed:,} removed, {done.unchanged:,} unchanged, "
          f"{len(done.skipped):,} skipped\n"
          f"  {done.seconds:.1f} s" + (f", {work / max(done.seconds, 1e-9):,.0f} images/s" if work else ""))
    return 0
