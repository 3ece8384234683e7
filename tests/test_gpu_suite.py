"""The script that needs a GPU, as far as a machine without one can run it: arguments, phases, the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

import numbanet
from benchmarks import gpu_phases, gpu_processes, gpu_report, gpu_speed, gpu_suite

ENVIRONMENT = {"card": "Card 9000", "arch": "sm_90", "multiprocessors": 132, "driver": "13.0", "python": "3.12.3",
               "packages": {"numba": "0.68.1"}}


def make(kind, function):
    function.kind = kind
    return function


def good(found):
    """A phase that measures."""
    yield {"name": "gemm tf32 4096", "value": 200.0, "unit": "TFLOP/s", "peer": 400.0}
    yield {"name": "launch", "value": 4.0, "unit": "us", "peer": 2.0}
    yield {"name": "alone", "value": 1.5, "unit": "GB/s", "peer": None}


def checks(found):
    """A phase of checks, one of which fails."""
    yield {"name": "first", "ok": True, "detail": ""}
    yield {"name": "second", "ok": False, "detail": "3 of 9 elements differ"}


def breaking(found):
    """A phase that ends with an error after a row."""
    yield {"name": "before", "ok": True, "detail": ""}
    raise RuntimeError("cuLaunchKernel: illegal address")


def test_a_phase_that_breaks_does_not_end_the_run():
    saved = []
    phases = {"checks": make("correctness", checks), "breaking": make("correctness", breaking), "good": make("speed", good)}
    report = gpu_suite.run(phases, 60, ENVIRONMENT, lambda so_far: saved.append(json.dumps(so_far)))
    assert [phase["status"] for phase in report["phases"]] == ["failed", "failed", "done"]
    assert report["phases"][1]["error"] == "RuntimeError: cuLaunchKernel: illegal address" and len(report["phases"][1]["rows"]) == 1
    assert len(saved) == 3 and json.loads(saved[-1]) == report          # what was found is kept even if a later phase kills the process


def test_phases_are_processes_that_may_die_or_take_too_long(tmp_path):
    """What a process printed before it died is kept."""
    script = tmp_path / "phase.py"
    script.write_text("import os, sys, time\nprint('ROW {\"name\": \"one\", \"ok\": true}', flush=True)\nprint('chatter')\n"
                      "if sys.argv[2] == 'dies': sys.exit('illegal address')\nif sys.argv[2] == 'hangs': time.sleep(60)\n")
    command = sys.executable, str(script)
    now = time.perf_counter()
    phases = {name: gpu_suite.in_a_process(name, "correctness", now + seconds, command)
              for name, seconds in (("lives", 50), ("dies", 50), ("hangs", 2))}
    report = gpu_suite.run(phases, 50, ENVIRONMENT, lambda so_far: None)
    assert [phase["status"] for phase in report["phases"]] == ["done", "failed", "stopped"]
    assert [len(phase["rows"]) for phase in report["phases"]] == [1, 1, 1]
    assert "exit code 1: illegal address" in report["phases"][1]["error"] and "time was up" in report["phases"][2]["error"]


def test_a_phase_that_takes_more_than_its_share_is_stopped_with_what_it_started(tmp_path):
    """And the next one has its time. What was stopped holds the pipe of its output no longer."""
    script, file = tmp_path / "phase.py", tmp_path / "beats"
    beats = f"import time\nwhile True:\n with open({str(file)!r}, 'a') as f: f.write('x')\n time.sleep(0.02)"
    script.write_text("import subprocess, sys, time\n"
                      "if sys.argv[2] == 'next': sys.exit(print('ROW {\"name\": \"one\", \"ok\": true}'))\n"
                      f"subprocess.Popen([sys.executable, '-c', {beats!r}])\nwhile True: time.sleep(1)\n")
    phases = {name: gpu_suite.in_a_process(name, "correctness", time.perf_counter() + 100, (sys.executable, str(script)), True, share)
              for name, share in (("hangs", 1.5), ("next", 50))}
    report = gpu_suite.run(phases, 100, ENVIRONMENT, lambda so_far: None)
    assert [phase["status"] for phase in report["phases"]] == ["stopped", "done"] and "had its 2 s" in report["phases"][0]["error"]
    written = file.read_text()
    time.sleep(0.2)
    assert written and file.read_text() == written, "nobody writes any more"


def test_rows_are_saved_while_a_phase_runs(monkeypatch):
    """And a disk that is full ends nothing."""
    monkeypatch.setattr(gpu_suite, "SAVED_EVERY", 0.0)
    seen = []

    def save(so_far):
        seen.append([(phase["status"], len(phase["rows"])) for phase in so_far["phases"]])
        raise OSError("No space left on device")
    report = gpu_suite.run({"good": make("speed", good)}, 60, ENVIRONMENT, save)
    assert seen == [[("running", 1)], [("running", 2)], [("running", 3)], [("done", 3)]] and report["phases"][0]["status"] == "done"


def test_a_signal_stops_the_phases_and_leaves_their_report(tmp_path):
    """As a process: SIGHUP changes nothing, SIGTERM ends what runs; the rest is left out, the table is printed."""
    program = ("import os, sys, time, signal, threading; sys.path.insert(0, sys.argv[1])\n"
               "from benchmarks import gpu_suite as g\n"
               "def phase(found):\n"
               "    os.kill(os.getpid(), signal.SIGHUP)\n"
               "    yield {'name': 'one', 'ok': True}\n"
               "    os.kill(os.getpid(), signal.SIGTERM)\n"
               "    yield from g.in_a_process('sleeps', 'correctness', time.perf_counter() + 90, (sys.executable, '-c', "
               "'import time; time.sleep(90)'))(found)\n"
               "phase.kind, phase.alone = 'correctness', True\n"
               "with g.stopped_by_signals():\n"
               "    report = g.run({'first': phase, 'second': phase}, 90, {}, lambda so_far: None)\n"
               "print([(p['status'], len(p['rows'])) for p in report['phases']])\n")
    done = subprocess.run([sys.executable, "-c", program, str(gpu_suite.ROOT)], capture_output=True, text=True, timeout=80)
    assert done.stdout.strip() == "[('stopped', 1), ('left out', 0)]", done.stdout + done.stderr


def test_cards_that_take_one_process_at_a_time():
    running = []

    def alone(found):
        running.append(1)
        yield {"name": "one", "ok": len(running) == 1}
        time.sleep(0.05)
        running.pop()
    phases = {str(i): make("correctness", alone) for i in range(3)}
    report = gpu_suite.run(phases, 60, ENVIRONMENT | {"exclusive": True}, lambda so_far: None)
    assert [phase["status"] for phase in report["phases"]] == ["done"] * 3


def test_earlier_results_are_not_written_over(tmp_path):
    path = tmp_path / "run.json"
    assert gpu_suite.free_name(path) == path
    path.write_text("{}")
    (tmp_path / "run-2.json").write_text("{}")
    assert gpu_suite.free_name(path) == tmp_path / "run-3.json"


def test_every_phase_has_its_place_and_its_share_of_the_time():
    assert set(gpu_suite.SECONDS) == set(gpu_phases.PHASES) and next(iter(gpu_suite.SECONDS)) == "first_contact"


def test_a_measurement_that_fails_is_a_row():
    """Out of memory in one of two: the other is still told, and so are the next cases."""
    def fails():
        raise RuntimeError("out of memory")
    assert gpu_speed._case("a", "us", lambda: 2.0, lambda: 3.0) == {"name": "a", "value": 2.0, "unit": "us", "peer": 3.0}
    assert gpu_speed._case("a", "us", fails, lambda: 3.0) == {"name": "a", "ok": False, "detail": "RuntimeError: out of memory"}
    assert gpu_speed._case("a", "us", lambda: 2.0, fails) == {
        "name": "a", "value": 2.0, "unit": "us", "peer": None, "note": "PyTorch: RuntimeError: out of memory"}


def test_a_case_that_raises_is_a_row(monkeypatch):
    """In a dry run it raises."""
    def rows():
        yield {"name": "before", "ok": True}
        raise RuntimeError("cuLaunchKernel: invalid argument")
    failed = {"name": "case", "ok": False, "detail": "RuntimeError: cuLaunchKernel: invalid argument"}
    assert list(gpu_phases.attempted("case", rows)) == [{"name": "before", "ok": True}, failed]
    monkeypatch.setattr(gpu_phases, "DRY", True)
    with pytest.raises(RuntimeError, match="invalid argument"):
        list(gpu_phases.attempted("case", rows))


def test_a_kernel_that_does_not_compile_is_a_row(monkeypatch):
    """The others are compiled all the same."""
    from types import SimpleNamespace

    from numbanet.backends.cuda import dry

    def compile_all(wanted, arch, processes):
        for one in wanted:
            if one.kernel == "bad":
                raise RuntimeError("the assembler refuses it")
            yield one, SimpleNamespace(spills=0, registers=7)
    monkeypatch.setattr(dry, "compile_all", compile_all)
    monkeypatch.setattr(gpu_phases, "_wanted_by", lambda name, found: ([dry.Wanted(k) for k in ("first", "bad", "last")], ""))
    rows = list(gpu_phases.machine_code({"arch": "sm_90", "tiny": True}))
    assert [(row["name"], row["ok"]) for row in rows] == [("first", True), ("bad", False), ("last", True)]


def test_what_is_to_be_reached_stands_at_the_end():
    rows = {"speed_products": [{"name": "gemm tf32 4096", "value": 250.0, "unit": "TFLOP/s", "peer": 400.0},
                               {"name": "gemm bf16 4096", "value": 250.0, "unit": "TFLOP/s", "peer": None},
                               {"name": "gemm float32 4096", "value": 30.0, "unit": "TFLOP/s", "peer": 60.0}],
            "speed_convolutions": [{"name": f"forward tf32 layer{i}", "value": value, "unit": "TFLOP/s", "peer": 100.0}
                                   for i, value in enumerate((50.0, 98.0))],
            "speed_memory": [{"name": "copy", "value": 2000.0, "unit": "GB/s", "peer": None},
                             {"name": "relu", "value": 1900.0, "unit": "GB/s", "peer": None}],
            "speed_launches": [{"name": "from a plan", "value": 5.0, "unit": "us", "peer": None},
                               {"name": "in a graph", "value": 0.8, "unit": "us", "peer": None}]}
    phases = [{"name": name, "kind": "speed", "status": "done", "seconds": 1.0, "rows": found, "error": ""} for name, found in rows.items()]
    text = gpu_report.table({"environment": ENVIRONMENT, "phases": phases})
    verdicts = {line[:44].strip(): (line[44:54].strip(), line.split()[-1]) for line in text.splitlines() if line}
    assert verdicts["gemm tf32 4096"] == ("250", "yes") and verdicts["gemm bf16 4096"] == ("250", "NO")
    assert verdicts["gemm float32 4096, strict"] == ("50", "NO") and verdicts["gemm tf32 8192"] == ("", "measured")
    assert verdicts["convolutions, forward, tf32"] == ("70", "yes") and verdicts["relu"] == ("95", "yes")
    assert verdicts["a launch from a plan"] == ("5", "NO") and verdicts["a launch in a graph"] == ("0.8", "yes")
    assert text.splitlines()[-4].split() == ["speed_products", "done", "1.0", "0", "0", "3"]


def test_checks_run_beside_each_other_and_measurements_alone():
    meeting, running = threading.Barrier(2, timeout=60), []

    def meets(found):
        meeting.wait()                                  # passes only where the other one runs too
        yield {"name": "met", "ok": True}

    def measures(found):
        running.append(meeting.n_waiting)
        yield {"name": "speed", "value": 1.0, "unit": "us", "peer": None}
    phases = {"first": make("correctness", meets), "second": make("correctness", meets), "alone": make("speed", measures)}
    report = gpu_suite.run(phases, 60, ENVIRONMENT, lambda so_far: None)
    assert [(phase["name"], phase["status"]) for phase in report["phases"]] == [("first", "done"), ("second", "done"), ("alone", "done")]
    assert running == [0]


def test_phases_for_which_no_time_is_left_are_said_to_be_left_out():
    report = gpu_suite.run({"good": make("speed", good)}, 0, ENVIRONMENT, lambda so_far: None)
    assert report["phases"][0]["status"] == "left out" and report["phases"][0]["rows"] == []


def test_the_table_shows_failures_and_both_kinds_of_shares(tmp_path, capsys):
    phases = {"checks": make("correctness", checks), "breaking": make("correctness", breaking), "good": make("speed", good)}
    path = tmp_path / "run.json"
    gpu_suite.write(path, gpu_suite.run(phases, 60, ENVIRONMENT, lambda so_far: None))
    assert gpu_suite.main(["--table", str(path)]) == 0
    text = capsys.readouterr().out
    assert "Card 9000 (sm_90)" in text and "1 passed, 1 failed" in text and "FAILED second: 3 of 9 elements differ" in text
    assert "illegal address" in text
    rows = {line.split("  ")[0]: line.split() for line in text.partition("what an H100")[0].splitlines()}
    assert rows["gemm tf32 4096"][-1] == "50%" and rows["launch"][-1] == "50%" and rows["alone"][-1] == "GB/s"


def test_without_a_gpu_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu_suite, "why_not", lambda: "no NVIDIA driver was found")
    assert gpu_suite.main(["--out", str(tmp_path / "x.json")]) == 1
    assert "no NVIDIA driver was found" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_reason_names_the_package_or_the_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert "pip install 'numbanet[cuda]'" in gpu_suite.why_not()


@pytest.mark.parametrize("words, message", [
    (["--minutes", "0"], "positive number"), (["--minutes", "soon"], "invalid float"), (["--out", "/no/such/folder/x.json"], "no folder")])
def test_arguments_that_make_no_sense(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        gpu_suite.main(words)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_unknown_phases_and_the_list(capsys):
    assert gpu_suite.main(["--only", "tile_product"]) == 2
    assert "no phase tile_product; there are first_contact, machine_code, tile_products" in capsys.readouterr().err
    assert gpu_suite.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(gpu_phases.PHASES) and all(len(line.split()) > 3 for line in lines)
    assert {phase.kind for phase in gpu_phases.PHASES.values()} == {"correctness", "speed"}


def test_comparison_of_backends_finds_differences():
    """`primitives` on two backends of this machine: equal ones pass, a wrong one is seen."""
    import numpy as np

    from numbanet.backends import PRIMITIVES, get_backend
    cpu, reference = get_backend("cpu"), get_backend("reference")
    x = np.array([-1.0, 2.0, np.nan], np.float32)
    assert gpu_phases._compare(cpu, reference, PRIMITIVES["relu_forward"], (x,)) == 0

    class Wrong:
        from_numpy, to_numpy = staticmethod(lambda array: array), staticmethod(lambda array: array)
        relu_forward = staticmethod(lambda array: np.maximum(array, np.float32(0.5)))

    assert gpu_phases._compare(Wrong, reference, PRIMITIVES["relu_forward"], (x,)) == 0.25


class Asked(dict):
    """Rows that are not there; remembers which were asked for."""

    def __init__(self):
        super().__init__()
        self.keys_asked = set()

    def get(self, key, default=None):
        self.keys_asked.add(key)
        return default


LACKING = ("ml_dtypes", "yaml", "platformdirs", "torch", "torchvision", "mpi4py", "onnx", "PIL.ImageQt", "pandas", "matplotlib", "scipy",
           "uvicorn")


@pytest.mark.parametrize("phases", [("speed_launches", "plans_of_lenet5", "mnist", "speed_memory"),
                                    pytest.param(tuple(gpu_phases.PHASES), marks=pytest.mark.full)], ids=["some", "all"])
def test_a_dry_run_needs_no_gpu_and_few_packages(phases, tmp_path):
    """Phases to their end on a device that computes nothing, where none but the packages that the script names can be imported."""
    pytest.importorskip("numba_cuda")
    (tmp_path / "sitecustomize.py").write_text(      # as if never installed: an import fails, find_spec says None
        "from importlib.machinery import PathFinder\n"
        "found = PathFinder.find_spec\n"
        "def find_spec(name, path=None, target=None):\n"
        f"    return None if name.partition('.')[0] in {LACKING!r} else found(name, path, target)\n"
        "PathFinder.find_spec = find_spec\n")
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_suite.py", "--dry-run", "sm_90", "--out", str(tmp_path / "dry.json"), "--minutes", "20", "--only",
         *phases], cwd=gpu_suite.ROOT, capture_output=True, text=True, timeout=1300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])})
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "dry.json").read_text())
    assert report["environment"]["card"].startswith("no GPU") and {phase["error"] for phase in report["phases"]} == {""}
    asked = Asked()
    for target in gpu_report.TARGETS:
        target.value(asked)
    rows = {(phase["name"], row["name"]) for phase in report["phases"] for row in phase["rows"]}
    assert {key for key in asked.keys_asked if key[0] in set(phases) & {"speed_memory", "speed_launches", "speed_start"}} <= rows
    empty = {phase["name"] for phase in report["phases"] if not phase["rows"]}
    assert empty == set(phases) & {"operation_tests"}, "which runs pytest, on a GPU"


@pytest.mark.parametrize("name", ["first_contact", *[pytest.param(name, marks=pytest.mark.full) for name in (
    "tile_products", "tile_convolutions", "primitives", "operations", "plans_of_lenet5")]])
def test_checks_hold_where_ptx_is_executed(name):
    """What a phase compares is right, and it compares it: of a phase that only a dry run has seen nobody knows that."""
    pytest.importorskip("numba_cuda")
    from tests.backends.cuda.executed.device import installed
    try:
        with installed():
            rows = list(gpu_phases.PHASES[name]({"arch": "sm_90", "tiny": True}))
    finally:
        numbanet.cuda.set_tiles(None)
    assert rows and not [row for row in rows if not row["ok"]]


@pytest.mark.full
def test_what_sanitizers_look_at_runs():
    pytest.importorskip("numba_cuda")
    from tests.backends.cuda.executed.device import installed
    try:
        with installed():
            gpu_processes.small_run("sm_90")
    finally:
        numbanet.cuda.set_tiles(None)


def test_compute_sanitizer_is_asked_with_each_tool(tmp_path, monkeypatch):
    """What it says is the row's detail; where it is missing, that is."""
    tool = tmp_path / "compute-sanitizer"
    tool.write_text("#!/bin/sh\necho \"========= $2\"\n[ $2 = racecheck ] && echo '========= ERROR: a hazard' && exit 9\nexit 0\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    rows = {row["name"].split()[1]: row for row in gpu_processes.sanitizers({"arch": "sm_90"})}
    assert [name for name, row in rows.items() if not row["ok"]] == ["racecheck"] and "a hazard" in rows["racecheck"]["detail"]
    assert set(rows) == set(gpu_processes.SANITIZERS)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    row, = gpu_processes.sanitizers({"arch": "sm_90"})
    assert row["ok"] and "not installed" in row["detail"]
