"""Everything that needs a real GPU, in one run of a few minutes: correctness first, then speed beside PyTorch on the same card.

    python benchmarks/gpu_suite.py [--out FILE.json] [--minutes 8] [--only PHASE ...] [--list]
    python benchmarks/gpu_suite.py --table FILE.json
    python benchmarks/gpu_suite.py --dry-run sm_90

Runs from a checkout, without a network; needs Python 3.11, numba, numba-cuda, cuda-python, numpy, pytest, pillow, safetensors and tqdm;
ml_dtypes for BF16, which is left out without, and torch for the comparisons. Every phase is a process of its own, since an error on the
card ends all work of a process: a phase that fails is a line of the report, not the end of the run, and one that runs out of time is
stopped. Written are one JSON, after every phase, and a table. The exit code is 1 where a check of correctness failed.

`--dry-run` needs no GPU: every phase runs to its end, at small sizes, on a device that computes nothing, so that its numbers mean nothing.
The exit code is 1 where one of them raised. A real run begins with dry runs, at the sizes of its phases, which tell what to compile.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MARK = "ROW "                # begins the lines of a phase's process that are rows
AT_ONCE = 4                  # phases that check and do not measure
PACKAGES = ("numba", "numba-cuda", "cuda-bindings", "cuda-core", "numpy", "ml_dtypes", "torch")


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.table:
        print(table(json.loads(Path(arguments.table).read_text())))
        return 0
    from benchmarks import gpu_phases, gpu_speed  # noqa: F401  both register phases
    phases = gpu_phases.PHASES
    if arguments.list:
        for name, phase in phases.items():
            print(f"{name:<18} {(phase.__doc__ or '').splitlines()[0]}")
        return 0
    unknown = [name for name in arguments.only if name not in phases]
    if unknown:
        print(f"gpu_suite: no phase {', '.join(unknown)}; there are {', '.join(phases)}", file=sys.stderr)
        return 2
    if arguments.child:
        found = environment(arguments.dry_run)
        if arguments.dry_run:
            gpu_phases.install_dry(arguments.dry_run)
            found["tiny"] = arguments.tiny
        for row in phases[arguments.child](found):
            print(MARK + json.dumps(row), flush=True)
        if arguments.wanted:
            gpu_phases.print_wanted()
        return 0
    card = "" if arguments.dry_run else why_not()
    if card:
        print(f"gpu_suite: {card}", file=sys.stderr)
        return 1
    end = time.perf_counter() + 60 * arguments.minutes
    command = (sys.executable, __file__, *(["--dry-run", arguments.dry_run, "--tiny"] if arguments.dry_run else []))
    chosen = {name: in_a_process(name, phase.kind, end, command, phase.alone) for name, phase in phases.items()
              if not arguments.only or name in arguments.only}
    report = run(chosen, arguments.minutes * 60, environment(arguments.dry_run), lambda so_far: write(arguments.out, so_far))
    print(table(report))
    print(f"\n{arguments.out}")
    if arguments.dry_run:
        return int(any(phase["error"] for phase in report["phases"]))
    return int(any(phase["status"] == "failed" and phase["kind"] == "correctness" for phase in report["phases"]))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_suite", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_suite.json"), help="where the results go (default: gpu_suite.json)")
    parser.add_argument("--minutes", type=float, default=8, help="no phase begins after these (default: 8)")
    parser.add_argument("--only", nargs="+", default=[], metavar="PHASE", help="these phases alone")
    parser.add_argument("--list", action="store_true", help="name the phases")
    parser.add_argument("--dry-run", metavar="sm_NN", default="", help="run all phases without a GPU and without computing anything")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)      # of a dry run: sizes small enough for its host work
    parser.add_argument("--wanted", action="store_true", help=argparse.SUPPRESS)    # of a dry run: tell which kernels it launched
    parser.add_argument("--table", metavar="FILE", help="print the table of a recorded run; needs no GPU")
    arguments = parser.parse_args(argv)
    if arguments.minutes <= 0:
        parser.error(f"--minutes expects a positive number, received {arguments.minutes:g}")
    if not arguments.table and not arguments.out.parent.is_dir():
        parser.error(f"--out: there is no folder {arguments.out.parent}")
    return arguments


def why_not() -> str:
    """"" where a GPU can be used, otherwise the reason and what to do."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        return f"expected the package cuda-bindings, which fails to load ({error}); pip install 'numbanet[cuda]'"
    try:
        status, = driver.cuInit(0)
    except Exception as error:                           # cuda-bindings raises where there is no driver at all
        return f"no NVIDIA driver was found ({str(error).splitlines()[0]}); this script needs a GPU, --table and --list do not"
    if status != driver.CUresult.CUDA_SUCCESS:
        return f"the NVIDIA driver does not start ({status.name}); this script needs a GPU, --table and --list do not"
    status, count = driver.cuDeviceGetCount()
    return "" if count else "the NVIDIA driver sees no GPU; this script needs one, --table and --list do not"


def environment(dry_run: str = "") -> dict:
    """The card and the versions, as the report holds them."""
    packages = {}
    for package in PACKAGES:
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            packages[package] = "not installed"
    if dry_run:
        return {"card": "no GPU: nothing was computed", "arch": dry_run, "multiprocessors": 132, "driver": "none", "dry": True,
                "python": platform.python_version(), "packages": packages}
    from cuda.bindings import driver
    _, device = driver.cuDeviceGet(0)
    _, name = driver.cuDeviceGetName(200, device)
    attribute = driver.CUdevice_attribute
    _, major = driver.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
    _, minor = driver.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
    _, multiprocessors = driver.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device)
    _, version = driver.cuDriverGetVersion()
    return {"card": name.split(b"\0")[0].decode(), "arch": f"sm_{major}{minor}", "multiprocessors": multiprocessors,
            "driver": f"{version // 1000}.{version % 1000 // 10}", "python": platform.python_version(), "packages": packages}


def run(phases: dict[str, Callable], seconds: float, found: dict, save: Callable[[dict], None]) -> dict:
    """Run phases until the time is up. A phase takes the environment and yields rows; it has a `kind`.

    What measures, or takes all cores, runs alone (`alone`); checks of correctness, which the host holds up, several at once.
    """
    report = {"environment": found, "phases": []}
    started, lock, together = time.perf_counter(), threading.Lock(), []

    def run_one(phase: Callable, entry: dict) -> None:
        begin = time.perf_counter()
        if begin - started < seconds:
            try:
                for row in phase(found):
                    entry["rows"].append(row)
                entry["status"] = "failed" if any(row.get("ok") is False for row in entry["rows"]) else "done"
            except Exception as error:                   # the next phase may still tell something
                entry["status"] = "failed"
                entry["error"] = f"{type(error).__name__}: {error}"[:2000]
                entry["traceback"] = traceback.format_exc()[-4000:]
            entry["seconds"] = round(time.perf_counter() - begin, 2)
        with lock:
            save(report)

    def finish() -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(run_one, *zip(*together)) if together else ())
        together.clear()
    for name, phase in phases.items():
        entry = {"name": name, "kind": phase.kind, "status": "left out", "seconds": 0.0, "rows": [], "error": ""}
        report["phases"].append(entry)
        if getattr(phase, "alone", phase.kind == "speed"):
            finish()
            run_one(phase, entry)
        else:
            together.append((phase, entry))
    finish()
    return report


def in_a_process(name: str, kind: str, end: float, command: tuple[str, ...] = (sys.executable, __file__),
                 alone: bool | None = None) -> Callable:
    """A phase that runs in a process of its own, which is stopped at the time `end`."""
    def phase(found: dict) -> Iterable[dict]:
        with tempfile.TemporaryFile("w+") as errors, subprocess.Popen([*command, "--child", name], cwd=ROOT, stdout=subprocess.PIPE,
                                                                      stderr=errors, text=True) as process:
            alarm = threading.Timer(max(0.1, end - time.perf_counter()), process.kill)
            alarm.start()
            try:
                for line in process.stdout:
                    if line.startswith(MARK):
                        yield json.loads(line.removeprefix(MARK))
                process.wait()
            finally:
                alarm.cancel()
            if process.returncode:
                errors.seek(0)
                last = (errors.read().strip().splitlines() or ["no message"])[-1]
                late = time.perf_counter() >= end
                raise RuntimeError("stopped, as the time was up" if late else f"exit code {process.returncode}: {last}")
    phase.kind, phase.alone = kind, kind == "speed" if alone is None else alone
    return phase


def write(path: Path, report: dict) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(path)


def table(report: dict) -> str:
    """The report for people: checks that failed, and every measurement beside its peer."""
    found = report["environment"]
    lines = [f"{found['card']} ({found['arch']}), driver {found['driver']}, Python {found['python']}",
             ", ".join(f"{name} {version}" for name, version in found["packages"].items())]
    for phase in report["phases"]:
        lines += ["", f"## {phase['name']}: {phase['status']}, {phase['seconds']:.1f} s"]
        if phase["error"]:
            lines.append(phase["error"].splitlines()[0])
        checks = [row for row in phase["rows"] if "ok" in row]
        if checks:
            failed = [row for row in checks if not row["ok"]]
            lines.append(f"{len(checks) - len(failed)} passed, {len(failed)} failed")
            lines += [f"  FAILED {row['name']}: {row.get('detail', '')}" for row in failed]
        lines += list(_measurements([row for row in phase["rows"] if "value" in row]))
    return "\n".join(lines)


def _measurements(rows: list[dict]) -> Iterable[str]:
    if rows:
        width = max(len(row["name"]) for row in rows)
        yield f"{'case':<{width}} {'numbanet':>10} {'PyTorch':>10} {'unit':<9} {'share':>6}"
    for row in rows:
        peer = row.get("peer")
        # In time, less is better: the share is how much of the peer's speed is reached.
        share = "" if not peer else f"{(peer / row['value'] if row['unit'] in ('ms', 'us') else row['value'] / peer):.0%}"
        yield f"{row['name']:<{width}} {row['value']:>10.4g} {'' if peer is None else format(peer, '.4g'):>10} {row['unit']:<9} {share:>6}"


if __name__ == "__main__":
    sys.exit(main())
