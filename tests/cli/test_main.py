"""Verbs, help, suggestions, exit codes."""

import json
import os
import subprocess
import sys

import pytest

from numbanet.cli import VERBS
from tests.cli.conftest import run


def python(code: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


def test_help_imports_next_to_nothing():
    done = python("import sys, json\nfrom numbanet.cli import main\ncode = main(['--help'])\n"
                  "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)")
    code, modules = json.loads(done.stderr)
    assert code == 0 and all(verb in done.stdout for verb in VERBS)
    assert not {"numba", "numpy", "PIL", "yaml", "tqdm"} & set(modules)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_an_example_and_fits_80_columns(verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    answer = run(verb, "--help")
    assert answer.code == 0 and not answer.err
    example = answer.out.partition("example:\n")[2]
    assert f"numbanet {verb}" in example
    assert max(map(len, answer.out.splitlines())) <= 80


def test_help_of_verbs_imports_no_numba():
    done = python("import sys\nfrom numbanet.cli import main, VERBS\ncodes = [main([v, '--help']) for v in VERBS]\n"
                  "sys.exit(any(codes) or 'numba' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_without_a_verb():
    answer = run("help")
    assert answer.code == 0
    assert max(map(len, answer.out.splitlines())) <= 80 and "numbanet train lenet5" in answer.out
    done = subprocess.run([sys.executable, "-m", "numbanet"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "usage: numbanet VERB" in done.stdout


def test_version():
    import numbanet
    assert run("--version") == (0, f"numbanet {numbanet.__version__}\n", "")


@pytest.mark.parametrize(("arguments", "message"), [
    (["trian", "lenet5"], "unknown verb 'trian'; did you mean 'train'?"),
    (["xyzzy"], "unknown verb 'xyzzy'\nVerbs: train, val, runs, predict"),
    (["train", "lenet5", "--epoch", "3"], "unrecognized arguments: --epoch 3; did you mean --epochs?"),
    (["train", "lenet5", "--batchsize=3"], "did you mean --batch-size?"),
    (["train", "lenet5", "--epochs", "three"], "--epochs: invalid int value: 'three'"),
    (["train"], "expected a model, such as: numbanet train lenet5"),
    (["train", "lenet"], "no model 'lenet'; did you mean lenet5?"),
    (["train", "--distort", "false"], "received 'false'; a switch takes no value"),
    (["train", "lenet5", "--epochs", "0"], "--epochs: expected at least 1, received 0"),
    (["train", "lenet5", "--batch-size", "-1"], "--batch-size: expected at least 1, received -1"),
    (["train", "lenet5", "--lr", "nan"], "--lr: expected a number above 0, received nan"),
    (["train", "lenet5", "--threads", "0"], "--threads: expected at least 1, received 0"),
    (["train", "lenet5", "--optimizer", "adamm"],
     "--optimizer: expected one of adamw, adam, sgd, rmsprop, levenberg_marquardt, received 'adamm'"),
    (["train", "--resume", "runs/absent"], "--resume: runs/absent does not exist"),
    (["predict"], "the following arguments are required: weights, images"),
    (["predict", "runs/x", "a.png", "--top", "0"], "--top: expected at least 1, received 0"),
    (["summary", "lenet55"], "did you mean lenet5?"),
    (["summary", "lenet5", "--input", "1,a"], "--input: expected sizes such as 1,1,32,32, received '1,a'"),
    (["summary", "lenet5", "--in-chans", "0"], "--in-chans: expected at least 1, received 0"),
    (["models", "vit*"], "no model matches 'vit*'; there are"),
    (["warmup", "lenet6"], "did you mean lenet5?"),
    (["doctor", "--jsn"], "did you mean --json?")])
def test_mistakes_are_usage_errors_with_a_way_out(arguments, message):
    answer = run(*arguments)
    assert answer.code == 2 and not answer.out
    assert message in answer.err and answer.err.startswith("numbanet")
    assert not os.listdir()


@pytest.mark.parametrize("verb", [["train", "lenet5"], ["predict", "x", "y", "--top", "1"]])
def test_a_device_that_is_not_there(verb, trained, tmp_path):
    arguments = ["predict", trained.run, trained.run / "samples"] if verb[0] == "predict" else verb
    answer = run(*arguments, "--device", "cuda")
    assert answer.code == 1 and "device 'cuda'" in answer.err and "device='cpu'" in answer.err
    answer = run(*arguments, "--device", "gpu")
    assert answer.code == 1 and "device 'gpu': no such backend; numbanet knows cpu, cuda, " in answer.err and "reference" in answer.err
    assert not os.listdir(tmp_path)


def test_a_device_is_looked_for_before_data_are_read():
    assert "device 'cuda'" in run("train", "lenet5", "--device", "cuda", "--data", "absent").err


def test_ctrl_c_at_any_time_is_no_traceback(monkeypatch):
    def interrupted(_name):
        raise KeyboardInterrupt
    monkeypatch.setattr("importlib.import_module", interrupted)
    assert run("models") == (1, "", "\nnumbanet models: interrupted\n")


@pytest.mark.parametrize(("error", "message"), [
    (MemoryError("Unable to allocate 9 GiB"), "out of memory (Unable to allocate 9 GiB); a smaller --batch-size"),
    (PermissionError(13, "Permission denied", "x"), "Permission denied: 'x'")])
def test_errors_of_the_machine_are_no_tracebacks(error, message, monkeypatch):
    def fail(_arguments):
        raise error
    monkeypatch.setattr("numbanet.cli.models.run", fail)
    answer = run("models")
    assert answer.code == 1 and message in answer.err


def test_a_reader_that_goes_away():
    done = subprocess.run(f"{sys.executable} -m numbanet doctor | true", shell=True, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
