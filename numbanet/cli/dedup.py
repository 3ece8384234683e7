"""numbanet dedup"""

from __future__ import annotations

import json

EXAMPLE = "  numbanet dedup photos-index --threshold 0.9 --out duplicates.png"
MOST_ON_SHEET = 40


def configure(parser) -> None:
    from numbanet.search.duplicates import THRESHOLD
    parser.add_argument("index", metavar="INDEX", help="a folder that 'numbanet index' made; nothing is deleted")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, metavar="T",
                        help=f"cosine from which pictures count as the same (default {THRESHOLD}); 1 for the same only")
    parser.add_argument("--out", metavar="FILE", help="also draw a contact sheet, as PNG")
    parser.add_argument("--device", default="cpu", help="cpu (default) or reference")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    from numbanet.cli.network import check_output
    from numbanet.cli.pictures import table, watch
    from numbanet.search import ImageIndex, find_duplicates
    from numbanet.search.index import shown
    from numbanet.search.sheets import group_sheet, names_of
    from numbanet.vision.composition import save_sheet
    check_output(arguments)
    with ImageIndex(arguments.index, arguments.device) as index:
        groups = find_duplicates(index, arguments.threshold, watch)
        folders, size = index.description.folders, len(index)
    spare = sum(len(group.members) - 1 for group in groups)
    if arguments.out is not None and groups:
        sheet = [(f"{len(group.members)} files" + (", the same bytes" if group.is_exact else ""),
                  [(m.path, f"{m.score:.4f}" + (" same bytes" if m.same_bytes else ""), shown(m.path.rpartition("/")[2]))
                   for m in group.members[:20]]) for group in groups[:MOST_ON_SHEET]]
        more = f"; the {MOST_ON_SHEET} largest groups" if len(groups) > MOST_ON_SHEET else ""
        lines = [f"Cosines from {arguments.threshold:g} on{more}. The largest file of each group comes first; the numbers compare with it."]
        save_sheet(arguments.out, group_sheet(f"{spare:,} of {size:,} pictures are there already", lines, sheet, 8))
    if arguments.json:
        print(json.dumps({"pictures": size, "spare": spare, "groups": [{"same_bytes": group.is_exact, "files": [
            {"path": shown(m.path), "score": m.score, "same_bytes": m.same_bytes} for m in group.members]} for group in groups]}, indent=2))
        return 0
    print(f"{size:,} pictures: {len(groups):,} groups of duplicates, {spare:,} files more than there are pictures")
    rows = [(i if first else "", f"{m.score:.4f}", "same bytes" if m.same_bytes else "similar", names_of([m.path], folders)[0])
            for i, group in enumerate(groups, 1) for first, m in ((m is group.members[0], m) for m in group.members)]
    if rows:
        print("\n".join(table(rows, ("group", "cosine", "", "file"), right=(0, 1))))
    if arguments.out is not None and groups:
        print(f"wrote {arguments.out}")
    return 0
