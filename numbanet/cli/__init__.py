"""The command line: ``numbanet VERB``. One module per verb, imported when it is called.

A verb's module has `EXAMPLE`, `configure(parser)` and `run(arguments)`, which returns the exit code: 0 done, 1 failed,
2 asked for something that does not exist.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
import textwrap

VERBS = {
    "train": "train a classifier, a segmenter or a detector; leaves a run folder to look at",
    "val": "judge a trained network: metrics, confusions, worst mistakes",
    "runs": "list training runs, or compare some",
    "predict": "name what is on images, with a trained network",
    "detect": "find and name the objects on images, with a trained detector",
    "summary": "the layers of a network: shapes, parameters, costs, receptive fields",
    "filters": "the kernels of a convolution, as a picture",
    "features": "the feature maps that layers make of an image",
    "receptive-field": "what a unit of a layer sees of an image, in theory and in effect",
    "explain": "where on an image a network saw a class",
    "heatmap": "where a classifier sees a class, on every window of an image",
    "faces": "find faces with MTCNN: boxes, landmarks, crops",
    "segment": "name every pixel of an image, with a trained segmenter",
    "convolve": "the classical filters: convolution and cross-correlation side by side",
    "explore": "a page in the browser: a picture on its way through a network",
    "embed": "pictures as vectors, in a file",
    "index": "make vectors of pictures in folders, to search among them",
    "search": "the pictures of an index that are most like a picture",
    "cluster": "the pictures of an index in groups of similar ones",
    "dedup": "pictures of an index that are there more than once",
    "identify": "name faces, boxes or whole pictures by the nearest of a gallery",
    "convert": "weights from one format to another: safetensors, .npz, .pt, .pth",
    "export": "a network as ONNX or safetensors, for other programs",
    "data": "look at images, pack them for fast epochs, or make up a data set",
    "profile": "where a network spends its time and memory, layer by layer",
    "models": "the networks that can be created by name",
    "doctor": "what numbanet found here: processor, threads, caches, versions",
    "warmup": "compile kernels ahead, so that the first training step is fast",
}


class Parser(argparse.ArgumentParser):
    """argparse, with a suggestion for what was misspelt and exit code 2."""

    def error(self, message: str):
        known = [o for action in self._actions for o in action.option_strings]
        words = [w for w in message.replace("=", " ").split() if w.startswith("--")]
        close = [c for w in words if w not in known for c in difflib.get_close_matches(w, known, 1)]
        hint = f"; did you mean {close[0]}?" if close else ""
        self.exit(2, f"{self.prog}: {message}{hint}\nTry '{self.prog} --help'.\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        from numbanet._version import __version__
        print(f"numbanet {__version__}")
        return 0
    verb = argv[0]
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        print(f"numbanet: unknown verb '{verb}'{hint}\nVerbs: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    try:
        return _run(verb, argv[1:])
    except KeyboardInterrupt:
        print(f"\nnumbanet {verb}: interrupted", file=sys.stderr)
        return 1


def _run(verb: str, argv: list[str]) -> int:
    """Run a verb; errors that are the user's to mend become one line on stderr."""
    module = importlib.import_module(f"numbanet.cli.{verb.replace('-', '_')}")
    text = VERBS[verb]
    parser = Parser(prog=f"numbanet {verb}", description=f"{text[0].upper()}{text[1:]}.",
                    epilog=f"example:\n{module.EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    module.configure(parser)
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    from numbanet.errors import NumbanetError, UsageError
    try:
        return module.run(arguments) or 0
    except NumbanetError as error:
        print(f"numbanet {verb}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:                     # the reader (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"numbanet {verb}: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"numbanet {verb}: out of memory ({error}); a smaller --batch-size needs less", file=sys.stderr)
        return 1


def _help() -> str:
    width = max(map(len, VERBS))
    lines = ["usage: numbanet VERB [options]", "", "Convolutional networks on Numba kernels.", "", "verbs:"]
    for verb, text in VERBS.items():
        lines += textwrap.wrap(text, 80, initial_indent=f"  {verb.ljust(width)}  ", subsequent_indent=" " * (width + 4))
    lines += ["", "'numbanet VERB --help' tells more. Start here:", "  numbanet train lenet5"]
    return "\n".join(lines)
