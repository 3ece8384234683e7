"""Every network reaches the GPU's kernels: inference and a training step, eager and compiled, on a device that computes nothing.

What they compute is compared elsewhere, primitive by primitive; here no primitive may be missing, and no plan may fall apart.
"""

from __future__ import annotations

import pytest

import numbanet
from numbanet import zoo
from numbanet.nn import functional as F
from tests.graph.test_compile_zoo import REPRESENTATIVE
from tests.zoo.inputs import small_size

DEVICE = "dry-zoo"


@pytest.fixture(scope="module")
def backend():
    pytest.importorskip("numba_cuda")
    from numbanet.backends.cuda import create_dry
    numbanet.backends.register_backend(DEVICE, lambda: create_dry("sm_90", DEVICE))
    return numbanet.backends.get_backend(DEVICE)


@pytest.mark.parametrize("tiles", [pytest.param(False, marks=pytest.mark.full), True], ids=["plain", "tiles"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in REPRESENTATIVE else pytest.mark.full)
                                  for name in zoo.list_models()])
def test_every_network_runs_on_the_gpus_kernels(backend, name, tiles, request):
    from numbanet.backends.cuda.recording import Program
    numbanet.cuda.set_tiles(tiles)
    request.addfinalizer(lambda: numbanet.cuda.set_tiles(None))
    info, wanted = zoo.model_info(name), backend.device.wanted
    wanted.clear()
    model = zoo.create_model(name).to(DEVICE)
    images = numbanet.zeros(2, info.input_size[0], *small_size(model, info, training=True), device=DEVICE)
    labels = numbanet.zeros(2, dtype=numbanet.int64, device=DEVICE)

    def loss(outputs, labels):
        return sum(F.cross_entropy(o, labels) for o in (outputs if isinstance(outputs, tuple) else (outputs,)))
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss(model.train()(images), labels).backward()
    optimizer.step()
    step = numbanet.compile(model, (images, labels), loss=loss, optimizer=optimizer)
    step(images, labels)
    calls = [function for function, _ in step.plan()._joined]
    assert sum(isinstance(call, Program) for call in calls) == 1 and len(calls) <= 2, "all of it is one graph"
    inference = numbanet.compile(model.eval(), images)
    inference(images)
    assert [type(function) for function, _ in inference.plan()._joined] == [Program]
    programs = [one for one in wanted if not isinstance(one.kernel, str)]
    assert len(wanted) > 10 and bool(programs) == tiles
