"""Training on several GPUs that execute PTX on the CPU: as one process on the CPU, and what MPI is given."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

import numbanet
from numbanet import nn, optim
from numbanet.train.distributed import Replicas, _takes_device_buffers
from tests.train.test_distributed import mpi, run  # noqa: F401  a fixture


def test_two_gpus_are_as_one_process(mpi, tmp_path):  # noqa: F811
    pytest.importorskip("numba_cuda")
    for name, words, processes in (("one", (), None), ("two", ("cuda",), 2)):
        done = run(tmp_path / name, *words, processes=processes)
        assert done.returncode == 0, done.stdout + done.stderr
    one, first, second = (json.loads((tmp_path / path).read_text()) for path in ("one/rank-0.json", "two/rank-0.json", "two/rank-1.json"))
    assert first["bits"] == second["bits"]
    assert [row["loss"] for row in first["rows"]] == pytest.approx([row["loss"] for row in one["rows"]], rel=1e-5)
    assert [row["val_accuracy"] for row in first["rows"]] == [row["val_accuracy"] for row in one["rows"]]


class _Communicator:
    """Of two ranks that have the same gradients: sums are twice what this one gives."""

    def __init__(self, backend):
        self.backend, self.messages = backend, []

    def Get_rank(self):
        return 0

    def Get_size(self):
        return 2

    Dup = allreduce = lambda self, *given: 2 * given[0] if given else self

    def bcast(self, value, root):
        return value

    def Iallreduce(self, in_place, message, operation):
        self.messages.append(type(message))
        if isinstance(message, np.ndarray):
            message *= 2
        else:
            assert message.__cuda_array_interface__["shape"] == message.shape
            self.backend.multiply(message, 2.0, out=message)
        return SimpleNamespace(Wait=lambda: None)


@pytest.mark.parametrize("device_buffers", [False, True])
def test_what_mpi_is_given(device_buffers, executing, rng, monkeypatch):
    pytest.importorskip("mpi4py")
    monkeypatch.setattr("numbanet.train.distributed.BUCKET_BYTES", 64)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Linear(3, 5), nn.Linear(5, 2)).to("cuda")
    communicator, callbacks = _Communicator(executing), []
    replicas = Replicas(communicator, device_buffers)
    replicas.attach(SimpleNamespace(model=model, steps=SimpleNamespace(on_gradient=callbacks.append)))
    replicas.begin(3.0, False)                          # half of all samples are here
    unused = model[2].weight
    expected = {}
    for name, p in model.named_parameters():
        if p is not unused:
            value = rng.standard_normal(p.shape).astype(np.float32)
            p.grad, expected[name] = numbanet.tensor(value, device="cuda"), value
    version = model[0].weight.grad.storage.version
    for _ in range(2):                                  # the second time what was made for the first is used
        replicas.begin(3.0, True)
        callbacks[0](model[1].bias)
        replicas.finish(model.parameters())
    for name, p in model.named_parameters():
        if p is not unused:
            np.testing.assert_array_equal(p.grad.numpy(), expected[name])
    assert unused.grad is None and model[0].weight.grad.storage.version > version
    kinds = {kind is np.ndarray for kind in communicator.messages}
    assert kinds == {not device_buffers} and len(communicator.messages) == 2 * len(replicas._buckets) > 4
    optim.SGD(model.parameters(), lr=0.1).step()


@pytest.mark.parametrize("kinds, takes", [(None, False), ("mpi,system", False), ("mpi,system,cuda:device", True), ("system, cuda", True),
                                          ("rocm,cudalike", False)])
def test_whether_an_mpi_takes_the_memory_of_gpus(kinds, takes):
    info = SimpleNamespace(Get={"mpi_memory_alloc_kinds": kinds}.get)
    assert _takes_device_buffers(SimpleNamespace(Get_info=lambda: info)) is takes
    assert _takes_device_buffers(SimpleNamespace()) is False
