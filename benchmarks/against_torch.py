"""Primitives and eager LeNet-5 beside PyTorch: one of the README's tables.

    python benchmarks/against_torch.py [--rounds 9] [--threads 2] [--only TEXT] [--more]

Printed are medians over the rounds, and the spread of the ratio (its quartiles). How it is measured: `alternating.py`; whole models
beside more peers: `against_peers.py`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.alternating import Engines, cores, geometric_mean, middle, serve, spread  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--more", action="store_true", help="also other layers: bottlenecks, first layers, strided, depthwise, grouped")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    from benchmarks.cases import CASES, MORE_CASES
    if arguments.serve:
        if arguments.serve == "torch":
            import torch
            torch.set_num_threads(arguments.threads)
        cases = {**CASES, **MORE_CASES}
        return serve(lambda name: cases[name](arguments.serve))
    names = [n for n in (*CASES, *(MORE_CASES if arguments.more else ())) if arguments.only in n]
    engines = Engines(("numbanet", "torch"), __file__, arguments.threads)
    ratios_by_group: dict[str, list[float]] = {}
    print(f"{arguments.threads} threads, {arguments.rounds} rounds\n")
    print("| case | numbanet ms | PyTorch ms | times as fast | quartiles |\n|---|---|---|---|---|")
    for name in names:
        rounds = engines.rounds(name, arguments.rounds)
        ratios = [times["torch"] / times["numbanet"] for times in rounds]
        low, high = spread(ratios)
        ratios_by_group.setdefault(name.split(",")[0].split(" ")[0], []).append(median(ratios))
        print(f"| {name} | {middle(rounds, 'numbanet'):.2f} | {middle(rounds, 'torch'):.2f} | {median(ratios):.2f} | "
              f"{low:.2f} to {high:.2f} |", flush=True)
    for group, ratios in ratios_by_group.items():
        print(f"\n{group}: geometric mean {geometric_mean(ratios):.2f}, lowest {min(ratios):.2f}")
    engines.close()


if __name__ == "__main__":
    main()
