"""numbanet beside PyTorch: the table of ratios in the README.

    python benchmarks/against_torch.py [--rounds 9] [--threads 2] [--only TEXT] [--more]

Each engine runs in a process of its own, and only one of them works at a time: two OpenMP pools that spin against each other
measure nothing. A round measures every engine once, in turns; the ratio is taken within a round, so that a machine whose
speed drifts does not disturb it. Printed are medians over the rounds, and the spread of the ratio (its quartiles).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SECONDS = 0.25          # of repeats for each measurement


def measure(function) -> float:
    """Median milliseconds of one call."""
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < 5 or (time.perf_counter() < end and len(times) < 2000):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return 1e3 * median(times)


def serve(engine: str, threads: int) -> None:
    """A process that measures the cases it is told on standard input."""
    if engine == "torch":
        import torch
        torch.set_num_threads(threads)
    from benchmarks.cases import CASES, MORE_CASES
    cases, current, function = {**CASES, **MORE_CASES}, None, None
    for line in sys.stdin:
        name = line.rstrip("\n")
        if name != current:
            current, function = name, cases[name](engine)
            for _ in range(3):                  # compile, allocate, warm the caches
                function()
        print(json.dumps(measure(function)), flush=True)


def start(engine: str, threads: int) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "NUMBANET_NUM_THREADS": str(threads)}
    return subprocess.Popen([sys.executable, __file__, "--serve", engine, "--threads", str(threads)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)


def ask(process: subprocess.Popen, case: str) -> float:
    process.stdin.write(case + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit(f"the process that measured {case!r} ended")
    return json.loads(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--more", action="store_true", help="also other layers: bottlenecks, first layers, strided, depthwise, grouped")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve, arguments.threads)
    from benchmarks.cases import CASES, MORE_CASES
    names = [n for n in (*CASES, *(MORE_CASES if arguments.more else ())) if arguments.only in n]
    engines = {engine: start(engine, arguments.threads) for engine in ("numbanet", "torch")}
    ratios_by_group: dict[str, list[float]] = {}
    print(f"{arguments.threads} threads, {arguments.rounds} rounds\n")
    print("| case | numbanet ms | PyTorch ms | times as fast | quartiles |\n|---|---|---|---|---|")
    for name in names:
        rounds = [{engine: ask(process, name) for engine, process in engines.items()} for _ in range(arguments.rounds)]
        ratios = [r["torch"] / r["numbanet"] for r in rounds]
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        ratios_by_group.setdefault(name.split(",")[0].split(" ")[0], []).append(median(ratios))
        print(f"| {name} | {median(r['numbanet'] for r in rounds):.2f} | {median(r['torch'] for r in rounds):.2f} | "
              f"{median(ratios):.2f} | {low:.2f} to {high:.2f} |", flush=True)
    for group, ratios in ratios_by_group.items():
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"\n{group}: geometric mean {mean:.2f}, lowest {min(ratios):.2f}")
    for process in engines.values():
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
