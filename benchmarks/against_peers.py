"""Whole models beside PyTorch, onnxruntime and OpenVINO: the tables of ratios that the documentation shows.

    python benchmarks/against_peers.py [inference] [training] [--eager] [--rounds 7] [--threads 2] [--only TEXT] [--peers NAMES]
                                       [--models efficientnet_b0:16,convnext_tiny:1]

How it is measured: `alternating.py`; what: `models.py`. Each ratio is of the fastest peer of the row, in the same round. The peers come
with ``pip install -e '.[bench]'``; rows are printed as they are known, and all of it as JSON with ``--json FILE``.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import models  # noqa: E402
from benchmarks.alternating import Engines, cores, cpu_name, geometric_mean, middle, serve, spread  # noqa: E402

TITLES = {"numbanet": "numbanet", "numbanet-eager": "numbanet eager", "torch": "NCHW", "torch-channels-last": "ch.-last",
          "torch-compile": "compile", "onnxruntime": "onnxruntime", "openvino": "OpenVINO"}
CASES = {"inference": models.INFERENCE, "training": models.TRAINING}


def installed(peer: str) -> bool:
    return find_spec(peer.partition("-")[0]) is not None


def versions() -> dict[str, str]:
    found = {}
    for name in ("numbanet", "numba", "torch", "torchvision", "onnxruntime", "openvino"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def run_case(kind: str, model: str, batch: int, engine: str, threads: int):
    make = models.inference if kind == "inference" else models.training
    return make(engine, threads, model, batch)


def table(kind: str, ours: str, arguments) -> list[dict]:
    """Measure and print one table; returns its rows."""
    peers = [p for p in models.PEERS[kind] if installed(p) and (not arguments.peers or p in arguments.peers.split(","))]
    if ours == "numbanet-eager":
        peers = [p for p in peers if p in ("torch", "torch-channels-last")]
    engines = Engines((ours, *peers), __file__, arguments.threads)
    print(f"\n{kind}, {arguments.threads} threads, {arguments.rounds} rounds, milliseconds\n")
    columns = ["model", "batch", *(TITLES[e] for e in (ours, *peers)), "times as fast", "quartiles"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    rows = []
    for model, batch in arguments.models or CASES[kind]:
        case = f"{kind} {model} {batch}"
        if arguments.only not in f"{model}, batch {batch}":
            continue
        rounds = engines.rounds(case, arguments.rounds)
        able = [p for p in peers if p in rounds[0]]
        if ours not in rounds[0]:
            print(f"| {model} | {batch} | failed |", flush=True)
            continue
        times = {e: middle(rounds, e) for e in (ours, *able)}
        row = {"kind": kind, "model": model, "batch": batch, "ms": times}
        if able:
            fastest = min(able, key=times.get)
            ratios = [r[fastest] / r[ours] for r in rounds]
            row |= {"fastest": fastest, "ratio": median(ratios), "quartiles": spread(ratios)}
        rows.append(row)
        cells = [model, str(batch), *(f"{times[e]:.2f}" if e in times else "-" for e in (ours, *peers))]
        cells += [f"{row['ratio']:.2f}", "{:.2f} to {:.2f}".format(*row["quartiles"])] if able else ["-", "-"]
        print(f"| {' | '.join(cells)} |", flush=True)
    engines.close()
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    if ratios:
        print(f"\n{ours}, {kind}: geometric mean {geometric_mean(ratios):.2f}, lowest {min(ratios):.2f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="inference, training (default: both)")
    parser.add_argument("--eager", action="store_true", help="eager numbanet beside eager PyTorch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--only", default="", help="rows whose 'model, batch N' contains this text")
    parser.add_argument("--models", type=_models, metavar="NAME:BATCH,...", help="these in place of the table's")
    parser.add_argument("--peers", default="", help="comma-separated: " + ", ".join(models.PEERS["inference"]))
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows with versions and machine")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        if arguments.serve.startswith("torch"):
            import torch
            torch.set_num_threads(arguments.threads)
        return serve(lambda case: run_case(*_case(case), arguments.serve, arguments.threads), least=3, warm_up=2)
    kinds = arguments.kinds or list(CASES)
    if unknown := [k for k in kinds if k not in CASES]:
        parser.error(f"unknown kind {unknown[0]!r}; there are {', '.join(CASES)}")
    print(f"{cpu_name()}; " + ", ".join(f"{name} {v}" for name, v in versions().items()))
    ours = "numbanet-eager" if arguments.eager else "numbanet"
    rows = [row for kind in kinds for row in table(kind, ours, arguments)]
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": cpu_name(), "threads": arguments.threads, "versions": versions(), "rows": rows},
                                             indent=1) + "\n")


def _models(text: str) -> list[tuple[str, int]]:
    return [(name, int(batch)) for name, _, batch in (part.partition(":") for part in text.split(","))]


def _case(text: str) -> tuple[str, str, int]:
    kind, model, batch = text.split(" ")
    return kind, model, int(batch)


if __name__ == "__main__":
    main()
