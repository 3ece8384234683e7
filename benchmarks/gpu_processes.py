"""Phases of `gpu_suite.py` that run other programs on the card: pytest, the guard zones, compute-sanitizer. See `gpu_phases.py`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.gpu_phases import DTYPES, ROOT, Card, convolution, one_step, phase, product_rows

NO_TESTS = 5                 # pytest's exit code where a file has none that are meant


@phase("correctness")
def operation_tests(found: dict) -> Iterator[dict]:
    """The tests of operations on cuda, by pytest, several files at once: edges, errors, and PyTorch and its OpInfo where they are there."""
    if found.get("dry"):
        return
    files = sorted((ROOT / "tests" / "ops").glob("test_*.py"), key=lambda path: -path.stat().st_size)
    files.insert(0, ROOT / "tests" / "oracles" / "test_opinfo.py")
    with ThreadPoolExecutor(1 if found.get("exclusive") else min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(_tested, files)


def _tested(file: Path) -> dict:
    command = [sys.executable, "-m", "pytest", "-q", "--maxfail=20", "-p", "no:cacheprovider", str(file.relative_to(ROOT)),
               *(["-k", "cuda"] if file.parent.name == "ops" else [])]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150,
                              env=os.environ | {"NUMBANET_TEST_BACKENDS": "cuda:0"})
    except subprocess.TimeoutExpired:
        return {"name": f"pytest {file.name}", "ok": False, "detail": "stopped after 150 s"}
    lines = done.stdout.strip().splitlines() or ["nothing"]
    failed = [line.partition(" ")[2] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"name": f"pytest {file.name}", "ok": done.returncode in (0, NO_TESTS), "detail": "; ".join([lines[-1], *failed])[:1500]}


@phase("correctness")
def guard_zones(found: dict) -> Iterator[dict]:
    """Nothing is written beside an array: every case of the primitives, and a step of a network, between guard zones."""
    program = ("import sys; sys.path.insert(0, sys.argv[1])\n"
               "import numbanet; from benchmarks import gpu_phases as g\n"
               "if sys.argv[2]: g.install_dry(sys.argv[2])\n"
               "for tiles in (False, True):\n"
               "    numbanet.cuda.set_tiles(tiles)\n"
               "    rows = list(g.primitives({})); g.one_step('resnet18', (3, 64, 64), 'cuda'); numbanet.cuda.check_guards()\n"
               "    print(len(rows), 'cases')\n")
    try:
        done = subprocess.run([sys.executable, "-c", program, str(ROOT), found["arch"] if found.get("dry") else ""], cwd=ROOT,
                              capture_output=True, text=True, timeout=170, env=os.environ | {"NUMBANET_CUDA_GUARD": "1"})
    except subprocess.TimeoutExpired:
        yield {"name": "guard zones", "ok": False, "detail": "stopped after 170 s"}
        return
    yield {"name": "guard zones", "ok": done.returncode == 0,
           "detail": ", ".join(done.stdout.split("\n")) if done.returncode == 0 else (done.stderr.strip().splitlines() or ["?"])[-1][:300]}


SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")


@phase("correctness")
def sanitizers(found: dict) -> Iterator[dict]:
    """NVIDIA's compute-sanitizer, where it is installed, on a small run of tile programs and a step of LeNet-5: no error of any tool."""
    if found.get("dry"):
        return
    if shutil.which("compute-sanitizer") is None:
        yield {"name": "compute-sanitizer", "ok": True, "detail": "is not installed: nothing was checked"}
        return
    with ThreadPoolExecutor(1 if found.get("exclusive") else 2) as pool:
        yield from pool.map(partial(_sanitized, found), SANITIZERS)


def _sanitized(found: dict, tool: str) -> dict:
    program = "import sys; sys.path.insert(0, sys.argv[1]); from benchmarks import gpu_processes; gpu_processes.small_run(sys.argv[2])"
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--print-limit", "5", sys.executable, "-c", program, str(ROOT),
               found["arch"]]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    except subprocess.TimeoutExpired:
        return {"name": f"compute-sanitizer {tool}", "ok": False, "detail": "stopped after 100 s"}
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip("= ")]
    return {"name": f"compute-sanitizer {tool}", "ok": done.returncode == 0,
            "detail": " | ".join(said[:12] if done.returncode else said[-1:])[:1500]}


def small_run(arch: str) -> None:
    """Products and a convolution in three passes by tiles, and a step of LeNet-5, plain and by tiles: what `sanitizers` looks at."""
    import numbanet
    card = Card({"arch": arch})
    for math in DTYPES:
        for row in product_rows(f"gemm {math}", card, math, (257, 131, 77), (False, False)):
            assert row["ok"], row
        for direction in ("forward", "backward_input", "backward_weight"):
            card.run(convolution(card, math, 1, (16, 24, 9, 3, 2, 1), direction)[0])
            assert not card.free()
    for tiles in (False, True):
        numbanet.cuda.set_tiles(tiles)
        assert np.isfinite(one_step("lenet5", (1, 32, 32), "cuda")).all()
