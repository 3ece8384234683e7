"""The script that needs a GPU, as far as a machine without one can run it: arguments, phases, the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from benchmarks import gpu_phases, gpu_speed, gpu_suite  # noqa: F401  the second registers phases

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
    assert [phase["status"] for phase in report["phases"]] == ["done", "failed", "failed"]
    assert [len(phase["rows"]) for phase in report["phases"]] == [1, 1, 1]
    assert "exit code 1: illegal address" in report["phases"][1]["error"] and "time was up" in report["phases"][2]["error"]


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
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines()}
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
    assert "no phase tile_product; there are machine_code, tile_products" in capsys.readouterr().err
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
    empty = {phase["name"] for phase in report["phases"] if not phase["rows"]}
    assert empty == set(phases) & {"operation_tests"}, "which runs pytest, on a GPU"
