"""One process a GPU."""

from types import SimpleNamespace

import pytest

import numbanet
from numbanet.errors import UsageError
from numbanet.train.distributed import Replicas


def _replicas(rank: int, size: int) -> Replicas:
    made = Replicas.__new__(Replicas)
    made._mpi = SimpleNamespace(COMM_TYPE_SHARED="shared")
    neighbours = SimpleNamespace(Get_rank=lambda: rank, Get_size=lambda: size)
    made.communicator = SimpleNamespace(Split_type=lambda kind: neighbours if kind == "shared" else None)
    return made


def test_each_process_of_a_machine_takes_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setattr(numbanet.cuda, "device_count", lambda: 4)
    assert [_replicas(rank, 4).own_device("cuda") for rank in range(4)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert [_replicas(3, 8).own_device(device) for device in ("cpu", "cuda:2")] == ["cpu", "cuda:2"]


@pytest.mark.parametrize("count, words", [(1, "and there is 1; start at most 1 here .mpiexec -n 1."),
                                          (2, "and there are 2; start at most 2")])
def test_more_processes_than_gpus_says_how_many_there_are(monkeypatch, count, words):
    monkeypatch.setattr(numbanet.cuda, "device_count", lambda: count)
    with pytest.raises(UsageError, match=f"device 'cuda': 3 processes on this machine.*{words}"):
        _replicas(0, 3).own_device("cuda")


def test_batches_are_copied_ahead_to_gpus_alone():
    with pytest.raises(UsageError, match="pin_memory_device expects a GPU.*received 'cpu'"):
        numbanet.data.DataLoader([1, 2], pin_memory=True, pin_memory_device="cpu")
    assert len(list(numbanet.data.DataLoader([1, 2], pin_memory=True))) == 2
