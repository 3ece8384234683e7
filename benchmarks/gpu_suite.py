"""Everything that needs a real GPU, in one run of a few minutes: first contact, correctness, then speed beside PyTorch on the same card.

    python benchmarks/gpu_suite.py [--out FILE.json] [--minutes 8] [--only PHASE ...] [--list]
    python benchmarks/gpu_suite.py --table FILE.json
    python benchmarks/gpu_suite.py --dry-run sm_90

Runs from a checkout, without a network; needs Python 3.11, numba, numba-cuda, cuda-python, numpy, pytest, pillow, safetensors and tqdm;
ml_dtypes for BF16, which is left out without, and torch for the comparisons. Every phase is a process of its own, since an error on the
card ends all work of a process: a phase that fails is a line of the report, not the end of the run, and one that takes longer than its
share of the time is stopped, with all that it started. The JSON is written while phases run, so that nothing is lost when the machine
goes; Ctrl-C and SIGTERM stop what runs and leave the report of the rest, a lost terminal stops nothing. The table ends with what an H100
is to reach, and a line a phase. A file that is there is never written over. The exit code is 1 where a check of correctness failed or
was stopped.

`--dry-run` needs no GPU: every phase runs to its end, at small sizes, on a device that computes nothing, so that its numbers mean nothing.
The exit code is 1 where one of them raised. A real run begins with dry runs, at the sizes of its phases, which tell what to compile.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
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
SAVED_EVERY = 2.0            # seconds
PACKAGES = ("numba", "numba-cuda", "cuda-bindings", "cuda-core", "numpy", "ml_dtypes", "torch")

# Phases in their order, and the most seconds that each may take of 8 minutes: what tells most comes first, and no phase, hung or slow,
# takes the time of those behind it.
SECONDS = {"first_contact": 60, "machine_code": 150, "tile_products": 90, "tile_convolutions": 90, "primitives": 120, "plans_of_lenet5": 90,
           "speed_products": 45, "speed_memory": 30, "speed_launches": 30, "speed_convolutions": 60, "speed_models": 120, "networks": 120,
           "operations": 120, "plans": 120, "mnist": 120, "guard_zones": 180, "operation_tests": 180, "sanitizers": 210,
           "speed_start": 90}
WHOLE = 8 * 60
EXCLUSIVE = 3                # the driver's compute mode in which a card has one process at a time


class Stopped(RuntimeError):
    """A phase was ended before it was done."""


class Processes:
    """Those of the phases that run. Each leads a group of its own, so that it is stopped with all that it has started."""

    def __init__(self):
        self.running: set[subprocess.Popen] = set()
        self.stopped = ""                                # why no other is to begin

    def stop(self, why: str) -> None:
        """Stop all, now and later."""
        self.stopped = why
        for process in list(self.running):
            self.kill(process)

    @staticmethod
    def kill(process: subprocess.Popen) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


PROCESSES = Processes()


def main(argv: list[str] | None = None) -> int:
    from benchmarks.gpu_report import table
    arguments = parse(argv)
    if arguments.table:
        print(table(json.loads(Path(arguments.table).read_text())))
        return 0
    from benchmarks import gpu_phases, gpu_processes, gpu_speed  # noqa: F401  all register phases
    phases = {name: gpu_phases.PHASES[name] for name in SECONDS}
    if arguments.list:
        for name, phase in phases.items():
            print(f"{name:<18} {SECONDS[name]:>4} s  {(phase.__doc__ or '').splitlines()[0]}")
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
    out, found = free_name(arguments.out), environment(arguments.dry_run)
    names = [name for name in phases if not arguments.only or name in arguments.only]
    end, share = time.perf_counter() + 60 * arguments.minutes, 60 * arguments.minutes / min(WHOLE, sum(SECONDS[name] for name in names))
    if arguments.dry_run:
        share = float("inf")                             # its time is the host's alone, and nothing in it hangs
    command = (sys.executable, __file__, *(["--dry-run", arguments.dry_run, "--tiny"] if arguments.dry_run else []))
    chosen = {name: in_a_process(name, phases[name].kind, end, command, phases[name].alone, SECONDS[name] * share) for name in names}
    say(f"{found['card']}: {len(chosen)} phases in {arguments.minutes:g} minutes, to {out}")
    with stopped_by_signals():
        report = run(chosen, arguments.minutes * 60, found, lambda so_far: write(out, so_far))
    with contextlib.suppress(OSError):                  # the terminal may be gone; the file is there
        print(table(report))
        print(f"\n{out}")
    if arguments.dry_run:
        return int(any(phase["error"] for phase in report["phases"]))
    return int(any(phase["status"] in ("failed", "stopped") and phase["kind"] == "correctness" for phase in report["phases"]))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_suite", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_suite.json"), help="where the results go (default: gpu_suite.json)")
    parser.add_argument("--minutes", type=float, default=8, help="all is stopped after these, phases after their share (default: 8)")
    parser.add_argument("--only", nargs="+", default=[], metavar="PHASE", help="these phases alone")
    parser.add_argument("--list", action="store_true", help="name the phases")
    parser.add_argument("--dry-run", metavar="sm_NN", default="", help="run all phases without a GPU and without computing anything")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)      # of a dry run: sizes small enough for its host work
    parser.add_argument("--wanted", action="store_true", help=argparse.SUPPRESS)    # of a dry run: tell which kernels it launched
    parser.add_argument("--table", metavar="FILE", help="print the table of a recorded run; needs no GPU")
    arguments = parser.parse_args(argv)
    if not arguments.minutes > 0:
        parser.error(f"--minutes expects a positive number, received {arguments.minutes:g}")
    if not arguments.table and not arguments.out.parent.is_dir():
        parser.error(f"--out: there is no folder {arguments.out.parent}")
    return arguments


def free_name(path: Path) -> Path:
    """The path, or with a number where there is a file already."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def say(line: str) -> None:
    """A line of progress."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def stopped_by_signals():
    """Ctrl-C and SIGTERM end the phases, not this process, which has a report to write; a terminal that is lost ends nothing."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda *_: PROCESSES.stop("stopped by a signal"))
        if hasattr(signal, "SIGHUP"):
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        PROCESSES.stopped = ""


def why_not() -> str:
    """"" where a GPU can be used, otherwise the reason and what to do."""
    try:
        from cuda.bindings import driver  # noqa: F401
    except ImportError as error:
        return f"expected the package cuda-bindings, which fails to load ({error}); pip install 'numbanet[cuda]'"
    from numbanet.backends.cuda import hardware
    from numbanet.backends.cuda.cubin import can_compile
    from numbanet.errors import BackendError
    try:
        hardware.require("cuda:0", 0)
    except BackendError as error:
        return f"{error}. This script needs a GPU, --table and --list do not"
    return can_compile()


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
    _, version = driver.cuDriverGetVersion()

    def asked(what: str) -> int:
        return driver.cuDeviceGetAttribute(getattr(attribute, f"CU_DEVICE_ATTRIBUTE_{what}"), device)[1]
    return {"card": name.split(b"\0")[0].decode(), "arch": f"sm_{asked('COMPUTE_CAPABILITY_MAJOR')}{asked('COMPUTE_CAPABILITY_MINOR')}",
            "multiprocessors": asked("MULTIPROCESSOR_COUNT"), "driver": f"{version // 1000}.{version % 1000 // 10}",
            "exclusive": asked("COMPUTE_MODE") == EXCLUSIVE, "python": platform.python_version(), "packages": packages,
            "commit": commit(), "cores": os.cpu_count()}


def commit() -> str:
    """Of the checkout; "" where git does not tell."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10).stdout.strip()
    return ""


def run(phases: dict[str, Callable], seconds: float, found: dict, save: Callable[[dict], None]) -> dict:
    """Run phases until the time is up. A phase takes the environment and yields rows; it has a `kind`.

    What measures, or takes all cores, runs alone (`alone`); checks of correctness, which the host holds up, several at once, unless the
    card takes one process at a time. The report is saved after every phase, and every few seconds in between.
    """
    report = {"environment": found, "phases": []}
    started, lock, together = time.perf_counter(), threading.Lock(), []
    saved = [started]

    def keep(is_due: bool) -> None:
        if is_due or time.perf_counter() - saved[0] > SAVED_EVERY:
            saved[0] = time.perf_counter()
            try:
                save(report)
            except OSError as error:                     # a full disk must not end the run
                say(f"gpu_suite: the report cannot be written: {error}")

    def run_one(phase: Callable, entry: dict) -> None:
        begin = time.perf_counter()
        if begin - started < seconds and not PROCESSES.stopped:
            entry["status"], status = "running", "done"
            try:
                for row in phase(found):
                    with lock:
                        entry["rows"].append(row)
                        keep(False)
            except Exception as error:                   # the next phase may still tell something
                status = "stopped" if isinstance(error, Stopped) else "failed"
                entry["error"] = f"{type(error).__name__}: {error}"[:2000]
                entry["traceback"] = traceback.format_exc()[-4000:]
            entry["status"] = "failed" if any(row.get("ok") is False for row in entry["rows"]) else status
            entry["seconds"] = round(time.perf_counter() - begin, 2)
        with lock:
            failed = sum(row.get("ok") is False for row in entry["rows"])
            say(f"{time.perf_counter() - started:7.1f} s  {entry['name']}: {entry['status']}, {len(entry['rows'])} rows, {failed} failed"
                f"{'; ' if entry['error'] else ''}{entry['error'].partition(chr(10))[0][:160]}")
            keep(True)

    def finish() -> None:
        with ThreadPoolExecutor(1 if found.get("exclusive") else AT_ONCE) as pool:
            list(pool.map(run_one, *zip(*together)) if together else ())
        together.clear()
    for name, phase in phases.items():
        entry = {"name": name, "kind": phase.kind, "status": "left out", "seconds": 0.0, "rows": [], "error": "", "traceback": ""}
        report["phases"].append(entry)
        if getattr(phase, "alone", phase.kind == "speed"):
            finish()
            run_one(phase, entry)
        else:
            together.append((phase, entry))
    finish()
    return report


def in_a_process(name: str, kind: str, end: float, command: tuple[str, ...] = (sys.executable, __file__),
                 alone: bool | None = None, share: float = float("inf")) -> Callable:
    """A phase that runs in a process of its own, which is stopped at the time `end`, or when it has had its share of seconds."""
    def phase(found: dict) -> Iterable[dict]:
        begin = time.perf_counter()
        last = min(end, begin + share)
        with tempfile.TemporaryFile("w+") as errors, subprocess.Popen([*command, "--child", name], cwd=ROOT, stdout=subprocess.PIPE,
                                                                      stderr=errors, text=True, start_new_session=True) as process:
            PROCESSES.running.add(process)
            alarm = threading.Timer(max(0.1, last - begin), PROCESSES.kill, [process])
            alarm.start()
            if PROCESSES.stopped:                        # since this phase began
                PROCESSES.kill(process)
            try:
                for line in process.stdout:
                    if line.startswith(MARK):
                        yield json.loads(line.removeprefix(MARK))
                process.wait()
            finally:
                alarm.cancel()
                PROCESSES.kill(process)                  # and what it has left behind
                PROCESSES.running.discard(process)
            if process.returncode:
                if PROCESSES.stopped:
                    raise Stopped(PROCESSES.stopped)
                if time.perf_counter() >= last:
                    raise Stopped("the time was up" if last == end else f"it had its {share:.0f} s")
                errors.seek(0)
                lines = errors.read().strip().splitlines() or ["no message"]
                raise RuntimeError("\n".join([f"exit code {process.returncode}: {lines[-1]}", *lines[-30:-1]]))
    phase.kind, phase.alone = kind, kind == "speed" if alone is None else alone
    return phase


def write(path: Path, report: dict) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
