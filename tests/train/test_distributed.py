"""Two processes: the losses of one with the same global batch, equal weights, one writer, and one end."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from numbanet.errors import UsageError
from numbanet.train.distributed import ShardedBatchSampler

ROOT = Path(__file__).parents[2]
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def run(folder, *words, processes=None):
    folder.mkdir()
    command = [sys.executable, "-m", "tests.train.parallel", folder, *words]
    if processes:
        command = [MPIEXEC, "-n", str(processes), *command]
    environment = os.environ | {"NUMBANET_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def mpi():
    try:
        from mpi4py import MPI  # noqa: F401
    except (ImportError, RuntimeError):
        pytest.skip("there is no MPI")
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec")


@pytest.mark.parametrize("words", [(), ("sync",), ("sync", "eager")], ids=["compiled", "synchronised", "synchronised eager"])
def test_two_processes_are_as_one(words, mpi, tmp_path):
    for name, processes in (("one", None), ("two", 2)):
        done = run(tmp_path / name, *words, processes=processes)
        assert done.returncode == 0, done.stdout + done.stderr
    one, first, second = (json.loads((tmp_path / path).read_text()) for path in ("one/rank-0.json", "two/rank-0.json", "two/rank-1.json"))
    assert first["bits"] == second["bits"]
    assert len(one["rows"]) == len(first["rows"]) == 4
    for a, b in zip(one["rows"], first["rows"]):
        for name in ("loss", "val_loss"):
            assert b[name] == pytest.approx(a[name], rel=1e-5)
        assert (a["accuracy"], a["val_accuracy"], a["step"]) == (b["accuracy"], b["val_accuracy"], b["step"])
    assert len(list((tmp_path / "two" / "backup").glob("step-*"))) in (2, 3)


def test_all_end_when_one_fails(mpi, tmp_path):
    done = run(tmp_path / "failing", "fail", processes=2)
    assert done.returncode != 0 and "rank 1: RuntimeError: the second process fails" in done.stderr
    assert not list((tmp_path / "failing").glob("rank-*"))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 23, 24, 25])
@pytest.mark.parametrize("repeat", [True, False])
def test_parts_of_batches(count, size, repeat):
    parts = [list(ShardedBatchSampler(range(count), 6, rank, size, repeat)) for rank in range(size)]
    assert [len(p) for p in parts] == [len(ShardedBatchSampler(range(count), 6, rank, size, repeat)) for rank in range(size)]
    whole = [list(range(i, min(i + 6, count))) for i in range(0, count, 6)]
    for i, batch in enumerate(whole):
        joined = [index for part in parts if i < len(part) for index in part[i]]
        if repeat and len(batch) < size:
            assert set(joined) == set(batch) and len(joined) == size
        else:
            assert sorted(joined) == batch
        assert not repeat or all(i < len(part) for part in parts)


@pytest.mark.parametrize("count", [5, 6, 23, 24, 25])
def test_parts_without_a_last_batch_that_is_not_full(count):
    parts = [list(ShardedBatchSampler(range(count), 6, rank, 4, drop_last=True)) for rank in range(4)]
    assert [len(p) for p in parts] == [len(ShardedBatchSampler(range(count), 6, rank, 4, drop_last=True)) for rank in range(4)]
    assert [sorted(sum(batch, [])) for batch in zip(*parts)] == [list(range(i, i + 6)) for i in range(0, count - 5, 6)]


def test_a_batch_smaller_than_the_processes():
    with pytest.raises(UsageError, match="at least 4, one sample for each process"):
        ShardedBatchSampler(range(9), 3, 0, 4)
