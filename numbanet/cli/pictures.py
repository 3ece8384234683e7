"""What the verbs that search among pictures share: their arguments, the embedder, progress, and tables of 80 columns."""

from __future__ import annotations

import io
import sys
from pathlib import Path

WIDTH = 80


def configure_embedder(parser) -> None:
    """The options of how pictures become vectors."""
    parser.add_argument("--layer", metavar="L", help="the layer whose output is used (default: what feeds the classifier)")
    parser.add_argument("--model", metavar="NAME", help="the network, where the weights do not say it (see 'numbanet models')")
    parser.add_argument("--metadata", metavar="FILE", help="JSON with the 'preprocessing' that the weights lack")
    parser.add_argument("--raw", action="store_true", help="digits: use pictures as they are, without making them look as MNIST's do")
    configure_work(parser)


def configure_work(parser) -> None:
    """Batches, threads and device."""
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="pictures that go through the network at once (default 32)")
    parser.add_argument("--workers", type=int, metavar="N", help="threads that read and decode (default: one for each core)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or reference")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def check_work(arguments) -> None:
    import logging
    import warnings

    from PIL import Image

    from numbanet.backends import get_backend
    from numbanet.errors import UsageError
    logging.basicConfig(level=logging.WARNING, format="numbanet: %(message)s", stream=sys.stderr)
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)      # pictures that are too large are listed
    if arguments.batch_size < 1:
        raise UsageError(f"--batch-size: expected at least 1, received {arguments.batch_size}")
    if arguments.workers is not None and arguments.workers < 0:
        raise UsageError(f"--workers: expected at least 0, received {arguments.workers}")
    get_backend(arguments.device)


def open_named_embedder(source, arguments):
    """The embedder that the options describe."""
    from numbanet.search import open_embedder
    return open_embedder(source, arguments.layer, arguments.device, model=arguments.model, metadata=arguments.metadata, raw=arguments.raw,
                         batch_size=arguments.batch_size)


def watch(iterator, total: int, title: str):
    """Show how many pictures are done, how many a second, and the time left."""
    from tqdm import tqdm
    return tqdm(iterator, title, total, leave=False, disable=None, dynamic_ncols=True, unit=" images" if title == "embedding" else " rows",
                smoothing=0.1)


def source_of(name: str):
    """A path, or standard input as an open file."""
    if name != "-":
        return Path(name)
    picture = io.BytesIO(sys.stdin.buffer.read())
    picture.name = "standard input"
    return picture


def table(rows, headings, right=()) -> list[str]:
    """Lines of at most 80 columns; the last column is cut at its left, where paths are alike."""
    rows = [[str(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headings), *rows]) for i in range(len(headings))]
    room = WIDTH - sum(widths[:-1]) - 2 * (len(widths) - 1)
    made = []
    for row in [list(headings), *rows]:
        last = row[-1] if len(row[-1]) <= room else "..." + row[-1][len(row[-1]) - room + 3:]
        cells = [value.rjust(width) if i in right else value.ljust(width) for i, (value, width) in enumerate(zip(row[:-1], widths))]
        made.append("  ".join([*cells, last]).rstrip())
    return made


def tell_skipped(verb: str, skipped, most: int = 20) -> None:
    """Say on standard error which files have no vectors, and why."""
    from numbanet.search.index import shown
    if not skipped:
        return
    print(f"numbanet {verb}: {len(skipped):,} {'file was' if len(skipped) == 1 else 'files were'} skipped:", file=sys.stderr)
    for path, reason in skipped[:most]:
        print(f"  {shown(path)}: {reason}", file=sys.stderr)
    if len(skipped) > most:
        print(f"  and {len(skipped) - most:,} more; --json lists all", file=sys.stderr)
