"""`numbanet val`, `runs` and `profile`: what a run was worth, what there is, where the time goes."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import run, write_classes

QUICK = ("train", "lenet5", "--data", "photos", "--epochs", "2", "--batch-size", "8")


@pytest.fixture
def two_runs(tmp_path):
    write_classes(tmp_path / "photos")
    assert run(*QUICK).code == 0
    assert run(*QUICK, "--lr", "0.01", "--ema-decay", "0.9", "--label-smoothing", "0.1", "--mixup", "0.2", "--accumulate", "2").code == 0
    return tmp_path / "runs"


def test_runs_val_and_the_report(two_runs, tmp_path):
    answer = run("runs")
    assert answer.code == 0 and [line.split()[0] for line in answer.out.splitlines()[1:]] == ["runs/lenet5-1", "runs/lenet5-2"]
    assert max(map(len, answer.out.splitlines())) <= 80 and "2/2" in answer.out
    compared = run("runs", "runs/lenet5-1", "runs/lenet5-2").out
    assert "asked for different" in compared and "  ema_decay\n" in compared and "0.9" in compared and "  model\n" not in compared
    facts = json.loads(run("runs", "--json").out)
    assert facts[1]["config"]["mixup"] == 0.2 and facts[0]["epochs_done"] == 2

    for name in ("confusion.png", "mistakes.png", "filters.png", "layers.png", "report.html"):
        assert (two_runs / "lenet5-2" / name).is_file()
    report = (two_runs / "lenet5-2" / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 5 and "src=\"http" not in report and "label_smoothing" in report

    answer = run("val", "runs/lenet5-2", "--json")
    assert answer.code == 0
    found = json.loads(answer.out)
    assert found["accuracy"] == pytest.approx(facts[1]["best"]) and found["images"] == 2 == sum(map(sum, found["confusion"]))
    assert "calibration error" in run("val", "runs/lenet5-2", "--last").out
    write_classes(tmp_path / "others", ("day", "night"))
    answer = run("val", "runs/lenet5-2", "--data", "others")
    assert answer.code == 1 and "expected the classes that" in answer.err
    for words, message in ((("val", "photos"), "RUN: photos is not a run folder"), (("runs", "photos"), "photos: holds no run"),
                           (("runs", "gone"), "gone: does not exist")):
        answer = run(*words)
        assert answer.code == 2 and message in answer.err


def test_a_damaged_run_does_not_hide_the_others(tmp_path):
    for name, text in (("good", "model: lenet5\nepochs: 3\n"), ("bad", "[")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").write_text(text)
    answer = run("runs")
    assert answer.code == 0 and "runs/good" in answer.out and "0/3" in answer.out and "runs/bad/config.yaml cannot be read" in answer.err


def test_no_runs_yet():
    assert "begin with: numbanet train lenet5" in run("runs").out


def test_fine_tuning(two_runs, tmp_path):
    write_classes(tmp_path / "three", ("bright", "dark", "grey"))
    answer = run("train", "lenet5", "--data", "three", "--epochs", "1", "--weights", "runs/lenet5-1/weights/best.safetensors",
                 "--freeze-until", "classifier", "--layer-lr", "{classifier.output: 10}", "--out", "tuned")
    assert answer.code == 0, answer.err
    from numbanet.weights import load_weights
    old, new = (load_weights(Path(p) / "weights" / "best.safetensors")[0] for p in ("runs/lenet5-1", "tuned"))
    assert (old["features.c1.weight"] == new["features.c1.weight"]).all() and new["classifier.output.weight"].shape[0] == 3
    assert (old["classifier.c5.weight"] != new["classifier.c5.weight"]).any()
    answer = run("train", "lenet5", "--data", "three", "--freeze-until", "featurs")
    assert answer.code == 2 and "did you mean features" in answer.err


def test_transforms_of_training_pictures(tmp_path):
    write_classes(tmp_path / "photos", size=(40, 36), mode="RGB")
    answer = run(*QUICK, "--epochs", "1", "--train-transforms", "[{Resize: {size: 36}}, {RandomCrop: {size: 32}}, RandomHorizontalFlip]",
                 "--resize", "34")
    assert answer.code == 0, answer.err
    answer = run(*QUICK, "--train-transforms", "[{Resize: {size: 36}}]")
    assert answer.code == 1 and "expected them to give uint8 pictures of (32, 32, 3)" in answer.err


@pytest.mark.parametrize("words", [(), ("--train", "--batch-size", "3")], ids=["inference", "training"])
def test_profile(words, tmp_path):
    answer = run("profile", "lenet5", *words, "--repetitions", "2", "--all", "--trace", "trace.json")
    assert answer.code == 0 and max(map(len, answer.out.splitlines())) <= 80
    assert "features.c3" in answer.out and ("backward" in answer.out) == bool(words)
    shares = [float(word.rstrip("%")) for line in answer.out.splitlines() for word in line.split() if word.endswith("%")]
    assert sum(shares) == pytest.approx(100, abs=2)
    events = json.loads(Path("trace.json").read_text())["traceEvents"]
    assert all(event["ph"] == "X" and event["dur"] >= 0 for event in events)
    assert {"features.c1", "classifier.output"} <= {event["args"]["layer"] for event in events}
    assert run("profile", "lenet5", "--batch-size", "0").code == 2 and run("profile", "lenet6").code == 2
