"""numbanet search"""

from __future__ import annotations

import json

EXAMPLE = ("  numbanet search photos-index query.jpg --top 20 --out found.png\n"
           "  cat query.jpg | numbanet search photos-index - --json")


def configure(parser) -> None:
    from numbanet.cli.pictures import configure_work
    parser.add_argument("index", metavar="INDEX", help="a folder that 'numbanet index' made")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or - for standard input")
    parser.add_argument("--top", type=int, default=10, metavar="K", help="how many pictures to find (default 10)")
    parser.add_argument("--exact", action="store_true", help="compare with every picture, also in a large index")
    parser.add_argument("--network", metavar="PATH", help="where the index's network is now, if it was moved")
    parser.add_argument("--out", metavar="FILE", help="also draw a contact sheet, as PNG")
    configure_work(parser)


def run(arguments) -> int:
    from numbanet.cli.network import check_output
    from numbanet.cli.pictures import check_work, source_of, table
    from numbanet.errors import UsageError
    from numbanet.search import ImageIndex
    from numbanet.search.index import shown
    from numbanet.search.sheets import names_of, search_sheet
    from numbanet.vision.composition import save_sheet
    check_work(arguments)
    check_output(arguments)
    if arguments.top < 1:
        raise UsageError(f"--top: expected at least 1, received {arguments.top}")
    with ImageIndex(arguments.index, arguments.device) as index:
        embedder = index.embedder(arguments.network, arguments.device, arguments.batch_size)
        sources = [source_of(name) for name in arguments.images]
        vectors = embedder(sources)
        found = index.search(vectors, arguments.top, arguments.exact)
        folders, size = index.description.folders, len(index)
    if arguments.out is not None:
        for source in sources:
            if hasattr(source, "seek"):
                source.seek(0)
        way = f"{embedder.layer_text} of {embedder.model._get_name()}"
        lines = [f"The most similar of {size:,} pictures, by {way}; below each: the cosine."]
        save_sheet(arguments.out, search_sheet("Similar pictures", lines, list(zip(arguments.images, sources)), found, folders))
    if arguments.json:
        print(json.dumps([{"image": name, "found": [{"path": shown(hit.path), "score": hit.score} for hit in hits]}
                          for name, hits in zip(arguments.images, found)], indent=2))
        return 0
    for name, hits in zip(arguments.images, found):
        print(shown(name))
        rows = [(i, f"{hit.score:.4f}", path) for i, (hit, path) in enumerate(zip(hits, names_of([h.path for h in hits], folders)), 1)]
        print("\n".join("  " + line[:78] for line in table(rows, ("", "cosine", "picture"), right=(0, 1))))
    if arguments.out is not None:
        print(f"wrote {arguments.out}")
    return 0
