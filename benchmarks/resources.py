"""What whole models take besides time on all cores: memory, threads, batches, and the preparation of plans.

    python benchmarks/resources.py memory [inference] [training] [--peers NAMES] [--only TEXT]
    python benchmarks/resources.py scaling [inference] [training] [--rounds 5]
    python benchmarks/resources.py batches [--rounds 5]
    python benchmarks/resources.py preparation [--model resnet50]

memory: each engine in a process of its own, which imports, warms up on a model of the same kind at batch 1, drops it, and then makes the
model and uses it three times. The figure is the highest level of resident memory above that after the warm-up (VmHWM, Linux).
Inference is measured as by default, and with release_weights=True.
scaling: milliseconds with one thread and with two, in processes that take turns, and how many times the work of one thread two processes
do at once: less than 2 where cores share memory, power, or, on a rented machine, the silicon. batches: milliseconds an image, batch 1 to
64, against the cheapest. preparation: seconds from a model to its first result, with kernels compiled before and with an empty cache.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import models  # noqa: E402
from benchmarks.alternating import ROOT, Engines, cores, cpu_name, geometric_mean, serve, spread  # noqa: E402

MAKE = {"inference": models.inference, "training": models.training}
CASES = {"inference": models.INFERENCE, "training": models.TRAINING}
BATCHES = (1, 2, 4, 8, 16, 32, 64)
OF_BATCHES = ("resnet18", "resnet50", "vgg16", "mobilenet_v2")
REPEATS = 3


def level(name: str) -> int:
    """Bytes of a line of /proc/self/status: VmRSS (now), VmHWM (at most)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def _settle(engine: str) -> None:
    """Give back what nobody holds."""
    gc.collect()
    if engine.startswith("numbanet"):
        from numbanet.backends.cpu import memory
        memory.trim()
    import ctypes
    ctypes.CDLL(None).malloc_trim(0)


def peak(kind: str, model: str, batch: int, engine: str, threads: int) -> int:
    """Bytes above the level after the warm-up, in this process."""
    function = MAKE[kind](engine, threads, model, 1)
    function()
    del function
    _settle(engine)
    begin = level("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")       # VmHWM anew
    function = MAKE[kind](engine, threads, model, batch)
    for _ in range(REPEATS):
        function()
    return level("VmHWM") - begin


def measure_memory(arguments) -> list[dict]:
    """Print the table of peaks; ours, for inference also with weights released, against PyTorch's."""
    rows = []
    for kind in arguments.kinds or CASES:
        ours = [arguments.engine]
        if kind == "inference" and arguments.engine == "numbanet":
            ours.append("numbanet-released")
        engines = [*ours, *(p for p in models.PEERS[kind] if not arguments.peers or p in arguments.peers.split(","))]
        print(f"\n{kind}, peak MB above the process after import and warm-up\n")
        print(f"| model | batch | {' | '.join(engines)} | of PyTorch's |\n|{'---|' * (len(engines) + 3)}", flush=True)
        for model, batch in CASES[kind]:
            if arguments.only not in f"{model}, batch {batch}":
                continue
            found = {e: _in_process(kind, model, batch, e, arguments.threads) for e in engines}
            theirs = found.get("torch")
            ratios = {e: found[e] / theirs if found[e] and theirs else None for e in ours}
            cells = [model, str(batch), *("-" if b is None else f"{b / 1e6:.0f}" for b in found.values()),
                     ", ".join(f"{r:.2f}" if r else "-" for r in ratios.values())]
            print(f"| {' | '.join(cells)} |", flush=True)
            rows.append({"kind": kind, "model": model, "batch": batch, "bytes": found, "of_torch": ratios})
    return rows


def _in_process(kind: str, model: str, batch: int, engine: str, threads: int) -> int | None:
    answer = _run(["peak", kind, model, str(batch), engine, "--threads", str(threads)], threads)
    return None if answer is None else answer["bytes"]


def _run(arguments: list[str], threads: int, environment: dict | None = None) -> dict | None:
    """This script in a process of its own; what it prints last."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "NUMBANET_NUM_THREADS": str(threads), **(environment or {})}
    done = subprocess.run([sys.executable, __file__, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['failed'])[-1][:200]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def measure_scaling(arguments) -> list[dict]:
    """Print milliseconds by one thread and by two, and how much two processes of one thread do at once: what the machine has for two."""
    rows = []
    for kind in arguments.kinds or CASES:
        engines = [Engines(("numbanet",), __file__, threads) for threads in (1, 2, 1)]
        print(f"\n{kind}, milliseconds, {arguments.rounds} rounds\n\n| model | batch | 1 thread | 2 threads | times as fast | quartiles "
              f"| 2 processes | of these |\n|{'---|' * 8}", flush=True)
        for model, batch in CASES[kind]:
            if arguments.only not in f"{model}, batch {batch}":
                continue
            case, rounds = f"{kind} {model} {batch}", []
            for _ in range(arguments.rounds):
                one, two, _ = [e.ask("numbanet", case) for e in engines]
                apart = engines[::2]
                for e in apart:
                    e.send("numbanet", case)
                rounds.append((one, two, sum(one / e.receive("numbanet", case) for e in apart)))
            ratios = [one / two for one, two, _ in rounds]
            one, two, machine = (median(values) for values in zip(*rounds))
            share = median(one / two / processes for one, two, processes in rounds)
            print(f"| {model} | {batch} | {one:.2f} | {two:.2f} | {median(ratios):.2f} | {'{:.2f} to {:.2f}'.format(*spread(ratios))} "
                  f"| {machine:.2f} | {share:.2f} |", flush=True)
            rows.append({"kind": kind, "model": model, "batch": batch, "ms": [one, two], "ratio": median(ratios), "processes": machine,
                         "share": share})
        for e in engines:
            e.close()
    if rows:
        print(f"\ngeometric mean {geometric_mean([r['ratio'] for r in rows]):.2f}, of what two processes do "
              f"{geometric_mean([r['share'] for r in rows]):.2f}", flush=True)
    return rows


def measure_batches(arguments) -> list[dict]:
    """Print milliseconds an image over the batch."""
    engines, rows = Engines(("numbanet",), __file__, arguments.threads), []
    print(f"\ninference, milliseconds an image, {arguments.threads} threads, {arguments.rounds} rounds\n\n"
          f"| model | {' | '.join(f'batch {n}' for n in BATCHES)} | last / cheapest |\n|{'---|' * (len(BATCHES) + 2)}", flush=True)
    for model in OF_BATCHES:
        if arguments.only not in model:
            continue
        costs = [median(engines.ask("numbanet", f"inference {model} {n}") for _ in range(arguments.rounds)) / n for n in BATCHES]
        print(f"| {model} | {' | '.join(f'{c:.2f}' for c in costs)} | {costs[-1] / min(costs):.2f} |", flush=True)
        rows.append({"model": model, "ms": dict(zip(BATCHES, costs))})
    engines.close()
    return rows


def prepare(model: str) -> dict[str, float]:
    """Seconds of the parts, in this process."""
    import numbanet
    net, x = numbanet.create_model(model).eval(), numbanet.tensor(models.images(model, 1))
    begin = time.perf_counter()
    compiled = numbanet.compile(net, x)
    made = time.perf_counter()
    compiled(x)
    first = time.perf_counter()
    compiled(x)
    return {"compile": made - begin, "first": first - made, "second": time.perf_counter() - first}


def measure_preparation(arguments) -> list[dict]:
    """Print seconds of ``numbanet.compile`` and of the first result, with and without kernels in the cache."""
    print(f"\n{arguments.model}, batch 1, seconds\n\n| compile cache | numbanet.compile | first result | in all |\n|{'---|' * 4}",
          flush=True)
    _run(["prepare", arguments.model], arguments.threads)           # fills the cache
    found = [("warm", _run(["prepare", arguments.model], arguments.threads))]
    with tempfile.TemporaryDirectory() as folder:
        found.append(("empty", _run(["prepare", arguments.model], arguments.threads, {"NUMBANET_CACHE_DIR": folder})))
    for name, seconds in found:
        print(f"| {name} | {seconds['compile']:.2f} | {seconds['first']:.2f} | {seconds['compile'] + seconds['first']:.2f} |", flush=True)
    return [{"model": arguments.model, "cache": name, **seconds} for name, seconds in found]


MEASURES: dict[str, Callable] = {"memory": measure_memory, "scaling": measure_scaling, "batches": measure_batches,
                                 "preparation": measure_preparation}


def main() -> None:
    if sys.argv[1:2] == ["peak"]:
        kind, model, batch, engine = sys.argv[2:6]
        if engine.startswith("torch"):
            import torch
            torch.set_num_threads(int(sys.argv[-1]))
        return print(json.dumps({"bytes": peak(kind, model, int(batch), engine, int(sys.argv[-1]))}))
    if sys.argv[1:2] == ["prepare"]:
        return print(json.dumps(prepare(sys.argv[2])))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measure", nargs="?", choices=list(MEASURES), help="what to measure")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="inference, training (default: both)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--only", default="", help="rows whose 'model, batch N' contains this text")
    parser.add_argument("--peers", default="torch", help="memory: comma-separated (default: torch)")
    parser.add_argument("--engine", default="numbanet", choices=("numbanet", "numbanet-eager"), help="memory: which of ours")
    parser.add_argument("--model", default="resnet50", help="preparation: which model (default: resnet50)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        def make(case: str):
            kind, model, batch = case.split(" ")
            return MAKE[kind](arguments.serve, arguments.threads, model, int(batch))
        return serve(make, least=3, warm_up=2)
    if arguments.measure is None:
        parser.error("expected what to measure: " + ", ".join(MEASURES))
    if unknown := [k for k in arguments.kinds if k not in CASES]:
        parser.error(f"unknown kind {unknown[0]!r}; there are {', '.join(CASES)}")
    print(cpu_name())
    rows = MEASURES[arguments.measure](arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": cpu_name(), "threads": arguments.threads, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
