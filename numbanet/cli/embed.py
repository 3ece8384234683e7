"""numbanet embed"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

EXAMPLE = ("  numbanet embed runs/lenet5-1 digits/ --out digits.npz\n"
           "  numbanet embed resnet18.safetensors photos/ --layer layer3 --out photos.npz")


def configure(parser) -> None:
    from numbanet.cli.pictures import configure_embedder
    parser.add_argument("network", metavar="MODEL", help="a run folder, weights (.safetensors, .npz, .pt, .pth), a .onnx file, or a name "
                                                         "from 'numbanet models', which has new random weights")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders of them")
    parser.add_argument("--out", metavar="FILE", default="embeddings.npz",
                        help="the .npz to write: 'vectors', float32 (N, D) of length 1, and 'paths' (default: embeddings.npz)")
    configure_embedder(parser)


def run(arguments) -> int:
    import numpy as np

    from numbanet.cli.pictures import check_work, open_named_embedder, tell_skipped, watch
    from numbanet.data.images import is_image_file
    from numbanet.errors import DataError, UsageError
    from numbanet.files import atomic_file
    from numbanet.search import embed_files
    from numbanet.search.index import shown
    check_work(arguments)
    if not arguments.out.lower().endswith(".npz"):
        raise UsageError(f"--out: expected a name that ends in .npz, received {arguments.out}")
    paths = []
    for name in map(Path, arguments.images):
        paths += sorted(p for p in name.rglob("*") if is_image_file(p)) if name.is_dir() else [name]
    if not paths:
        raise DataError(f"{', '.join(arguments.images)}: no pictures")
    embedder = open_named_embedder(arguments.network, arguments)
    vectors, kept, skipped, began = [], [], [], time.perf_counter()
    batches = embed_files(embedder, paths, arguments.workers)
    for one in watch((one for some in batches for one in some), len(paths), "embedding"):
        if one.vector is None:
            skipped.append((str(paths[one.position]), one.error))
        else:
            vectors.append(one.vector)
            kept.append(shown(paths[one.position]))
    seconds = time.perf_counter() - began
    tell_skipped("embed", skipped)
    if not vectors:
        print("numbanet embed: no picture could be read, nothing was written", file=sys.stderr)
        return 1
    with atomic_file(arguments.out) as temporary:
        with open(temporary, "wb") as file:
            np.savez(file, vectors=np.stack(vectors), paths=np.array(kept))
    facts = {"path": arguments.out, "images": len(kept), "dimension": embedder.dimension, "layer": embedder.layer_text,
             "seconds": seconds, "images_per_second": len(kept) / max(seconds, 1e-9),
             "skipped": [{"path": shown(p), "reason": r} for p, r in skipped]}
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        print(f"{len(kept):,} pictures, {embedder.dimension} numbers each: {embedder.layer_text} of {embedder.model._get_name()}\n"
              f"{seconds:.1f} s, {facts['images_per_second']:,.0f} images/s\nwrote {arguments.out}")
    return 0
