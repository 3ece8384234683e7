"""Detectors and segmenters trained by two processes: as by one, with equal weights on both, one writer, and going on."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.cli.conftest import run
from tests.train.test_distributed import MPIEXEC, ROOT, mpi  # noqa: F401  (a fixture)

KINDS = {
    "detector": ("--trunk", "resnet18", "--trunk-options", "{width: 8}", "--channels", "16", "--convolutions", "1", "--size", "64",
                 "--train-scenes", "27", "--test-scenes", "7", "--batch-size", "8", "--lr", "0.0005"),
    "segmenter": ("--model-options", "{widths: [4, 8], batch_norm: true, dropout: 0.0}", "--data-options",
                  "{count: 27, test_count: 7, size: 32}", "--batch-size", "8", "--loss", "cross_entropy", "--sync-batch-norm"),
}
COMPARED = ("train_loss", "test_loss", "train_iou", "test_iou")         # of a segmenter: a detector normalises by each process's part


def launch(folder, *arguments, processes=1):
    """`numbanet ARGUMENTS` by so many processes; what each of them tells."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.cli.parallel", folder, *arguments]
    done = subprocess.run(([MPIEXEC, "-n", str(processes)] if processes > 1 else []) + command, cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"NUMBANET_NUM_THREADS": "1"}, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(processes)], done.stdout


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes(kind, mpi, tmp_path):  # noqa: F811
    told, out = {}, {}
    for count in (1, 2):
        told[count], out[count] = launch(tmp_path / f"told-{count}", "train", kind, *KINDS[kind], "--epochs", "2", "--out",
                                         tmp_path / f"run-{count}", processes=count)
    first, second = told[2]
    assert first["bits"] == second["bits"] and first["values"] == second["values"]
    assert first["batches"] == told[1][0]["batches"] == [3 if kind == "detector" else 4, 1]
    one, two = rows(tmp_path / "run-1"), rows(tmp_path / "run-2")
    assert len(one) == len(two) == 2 and all(a["step"] == b["step"] for a, b in zip(one, two))
    if kind == "segmenter":
        assert two[0]["train_loss"] == pytest.approx(one[0]["train_loss"], rel=1e-4), "the first epoch, before rounding has grown"
        for a, b in zip(one, two):
            assert {name: b[name] for name in COMPARED} == pytest.approx({name: a[name] for name in COMPARED}, rel=0.02, abs=0.01)
    assert out[2].count("epoch 2/2") == 1 and out[2].count("try it:") == 1, "one process tells"
    assert (tmp_path / "run-2" / "report.html").is_file()

    judged = json.loads(run("val", tmp_path / "run-2", "--last", "--json").out)
    if kind == "detector":
        for name, value in first["values"].items():
            assert judged[name] == pytest.approx(value, abs=1e-6), name
    else:
        assert judged["confusion"] == first["values"]

    newest = max((tmp_path / "run-2" / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    shutil.rmtree(newest)
    again, _ = launch(tmp_path / "again", "train", "--resume", tmp_path / "run-2", processes=2)
    assert [told["bits"] for told in again] == [first["bits"]] * 2
