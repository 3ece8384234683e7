"""numbanet cluster"""

from __future__ import annotations

import json

EXAMPLE = ("  numbanet cluster photos-index --clusters 12 --out clusters.png\n"
           "  numbanet cluster photos-index --clusters 100 --batches --json")
MOST_ON_SHEET, OF_EACH = 40, 10


def configure(parser) -> None:
    parser.add_argument("index", metavar="INDEX", help="a folder that 'numbanet index' made")
    parser.add_argument("--clusters", type=int, default=10, metavar="K", help="how many groups (default 10)")
    parser.add_argument("--batches", action="store_true", help="by small random batches: faster for very many pictures, a little worse")
    parser.add_argument("--starts", type=int, default=3, metavar="N", help="begin so often, and keep the best (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default 0)")
    parser.add_argument("--out", metavar="FILE", help="also draw a contact sheet, as PNG")
    parser.add_argument("--device", default="cpu", help="cpu (default) or reference")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    from pathlib import Path

    import numpy as np

    from numbanet.cli.network import check_output
    from numbanet.cli.pictures import table
    from numbanet.errors import DataError, UsageError
    from numbanet.search import ImageIndex, KMeans, MiniBatchKMeans, normalized_mutual_info_score
    from numbanet.search.index import shown
    from numbanet.search.sheets import group_sheet, names_of
    from numbanet.vision.composition import save_sheet
    check_output(arguments)
    for name in ("clusters", "starts"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name}: expected at least 1, received {getattr(arguments, name)}")
    if arguments.seed < 0:
        raise UsageError(f"--seed: expected at least 0, received {arguments.seed}")
    with ImageIndex(arguments.index, arguments.device) as index:
        vectors, paths = index.vectors()
        folders, layer = index.description.folders, index.description.layer_text
    if not len(vectors):
        raise DataError(f"{arguments.index}: the index has no pictures")
    if arguments.clusters > len(vectors):
        raise UsageError(f"--clusters: expected at most {len(vectors)}, the number of different pictures, received {arguments.clusters}")
    kind = MiniBatchKMeans if arguments.batches else KMeans
    found = kind(arguments.clusters, n_init=arguments.starts, random_state=arguments.seed, device=arguments.device).fit(vectors)
    cosines = np.einsum("nd,nd->n", vectors, found.cluster_centers_[found.labels_]) / np.maximum(
        np.linalg.norm(found.cluster_centers_, axis=1)[found.labels_], 1e-12)
    groups = []
    for label in range(arguments.clusters):
        rows = np.flatnonzero(found.labels_ == label)
        rows = rows[np.argsort(-cosines[rows], kind="stable")]
        groups.append([(path, float(cosines[row])) for row in rows for path in paths[row]])
    groups.sort(key=lambda members: (-len(members), members[:1]))
    classes, numbers = zip(*((Path(path).parent, i) for i, members in enumerate(groups) for path, _ in members))
    agreement = normalized_mutual_info_score([str(c) for c in classes], numbers) if len(set(classes)) > 1 else None
    if arguments.out is not None:
        sheet = [(f"{len(members):,} pictures", [(path, f"{cosine:.3f}") for path, cosine in members[:OF_EACH]])
                 for members in groups[:MOST_ON_SHEET]]
        more = f"; the {MOST_ON_SHEET} largest" if len(groups) > MOST_ON_SHEET else ""
        lines = [f"k-means of {layer}{more}. The pictures nearest to each mean, with the cosine of both."]
        save_sheet(arguments.out, group_sheet(f"{sum(map(len, groups)):,} pictures in {len(groups)} groups", lines, sheet, OF_EACH))
    if arguments.json:
        facts = {"inertia": found.inertia_, "iterations": found.n_iter_, "mutual_information_with_folders": agreement}
        print(json.dumps({**facts, "clusters": [
            {"size": len(members), "pictures": [{"path": shown(path), "cosine": cosine} for path, cosine in members]}
            for members in groups]}, indent=2))
        return 0
    print(f"{sum(map(len, groups)):,} pictures in {len(groups)} groups, {found.n_iter_} iterations, inertia {found.inertia_:.4g}")
    rows = [(i, f"{len(members):,}", f"{np.mean([c for _, c in members]):.3f}", names_of([members[0][0]], folders)[0])
            for i, members in enumerate(groups, 1) if members]
    print("\n".join(table(rows, ("", "size", "cosine", "nearest to the mean"), right=(0, 1, 2))))
    if agreement is not None:
        print(f"normalised mutual information with the folders: {agreement:.3f}")
    if arguments.out is not None:
        print(f"wrote {arguments.out}")
    return 0
