"""The real `cuda.bindings` on a driver without a GPU: every call of `driver.py` with the types that the bindings want, and what users are
told on machines whose driver, GPU or memory will not do."""

from __future__ import annotations

import json

import pytest

from tests.backends.cuda import library


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("cuda.bindings")
    pytest.importorskip("numba_cuda")
    folder = tmp_path_factory.mktemp("driver")
    reason = library.build(folder)
    if reason:
        pytest.skip(reason)
    return folder


TRAINS = """
import ctypes, numpy as np, numbanet
from numbanet import nn
from numbanet.nn import functional as F
from numbanet.backends.cuda.recording import Program

values = np.arange(3 << 20, dtype=np.float32)
x = numbanet.tensor(values, device="cuda:1")
assert np.array_equal(x.numpy(), values) and numbanet.cuda.device_count() == 2          # through pinned memory, in pieces
mirror = x.backend.mirror(x.array)
mirror.fetch()
mirror.wait()
assert np.array_equal(mirror.host, values) and mirror.is_here()
mirror.host[0] = 7
mirror.send()
assert x.numpy()[0] == 7
del mirror

model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(0.5)).to("cuda")
x, y = numbanet.ones(2, 4, device="cuda"), numbanet.zeros(2, dtype=numbanet.int64, device="cuda")
optimizer = numbanet.optim.SGD(model.parameters(), lr=0.1)
step = numbanet.compile(model, (x, y), loss=F.cross_entropy, optimizer=optimizer)
driver = ctypes.CDLL("libcuda.so.1")
before = driver.fake_launches()
for _ in range(3):
    step(x, y)
programs = [call for call, _ in step.plan()._joined if isinstance(call, Program)]
assert len(programs) == 1 and programs[0]._graph is not None and driver.fake_graphs() == 2
assert driver.fake_launches() >= before + 2 * len(programs[0].recording.calls) > before        # launched, and captured
assert driver.fake_parameters() > 5 * driver.fake_launches()
stream, event = numbanet.cuda.Stream(), numbanet.cuda.Event()
with numbanet.cuda.stream(stream):
    z = x + x
    event.record()
numbanet.cuda.record_stream(x, stream)
numbanet.cuda.current_stream().wait_stream(stream)
event.synchronize()
assert event.query() and stream.query() and event.elapsed_time(event) == 1
loader = numbanet.data.DataLoader([(np.ones(3, np.float32), i) for i in range(5)], 2, pin_memory=True, pin_memory_device="cuda")
assert [labels.tolist() for _, labels in loader] == [[0, 1], [2, 3], [4]]
numbanet.cuda.empty_cache()
print(numbanet.cuda.memory_allocated(), numbanet.cuda.get_device_name(0))
"""


def test_the_bindings_take_every_call(folder):
    done = library.python(folder, TRAINS, gpus=2)
    assert done.returncode == 0 and "Driver without a GPU" in done.stdout, done.stdout + done.stderr[-3000:]


def test_tile_programs_are_launched_with_their_shared_memory(folder):
    """Machine code of the size and with the parameters that it declares; a row-major product and one whose sum is split."""
    done = library.python(folder, "import numbanet, ctypes\n"
                          "numbanet.cuda.set_tiles(True)\n"
                          "x = numbanet.ones(256, 4096, device='cuda')\n"
                          "before = ctypes.CDLL('libcuda.so.1').fake_launches()\n"
                          "y = x @ x.T\n"
                          "print(ctypes.CDLL('libcuda.so.1').fake_launches() - before, *y.shape)")
    assert done.returncode == 0 and done.stdout.split() == ["2", "256", "256"], done.stdout + done.stderr[-3000:]


@pytest.mark.parametrize("settings, words", [
    ({"version": 11080}, "driver supports CUDA 11.8, numbanet needs 12.0 or newer; update the driver"),
    ({"init": 803}, "error 803): the driver's library and its kernel module are of different versions"),
    ({"gpus": 0}, "the driver finds no GPU"),
    ({"arch": 75}, "is sm_75; numbanet needs sm_80 or newer, which has tensor cores"),
    ({"megabytes": 1}, "are asked for; the GPU has 1.0 MB"),
], ids=["old driver", "driver of two versions", "no GPU", "no tensor cores", "little memory"])
def test_what_the_command_line_says(folder, settings, words):
    """The reason and the remedy, exit code 1, no traceback; before any work."""
    done = library.numbanet(folder, "train", "lenet5", "--device", "cuda", "--epochs", "1", "--out", str(folder / "run"), **settings)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, done.stderr[-3000:]


def test_a_child_of_a_process_that_used_the_gpu(folder):
    done = library.python(folder, "import os, sys, numbanet\n"
                          "x = numbanet.tensor([1.0, 2.0], device='cuda')\n"
                          "if os.fork():\n"
                          "    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
                          "try:\n"
                          "    x.numpy()\n"
                          "except numbanet.errors.BackendError as error:\n"
                          "    print(error)\n"
                          "    os._exit(7 if 'forked' in str(error) and 'spawn' in str(error) else 1)")
    assert done.returncode == 7, done.stdout + done.stderr[-3000:]


def test_doctor_describes_the_gpu(folder):
    done = library.numbanet(folder, "doctor", "--json", gpus=2)
    found = json.loads(done.stdout)
    assert found["GPU 1"] == "Driver without a GPU, sm_90, 4.3 GB, 132 multiprocessors" and found["device cuda"] == "works"
    assert found["NVIDIA driver"] == "supports CUDA 13.0" and "has not run on a GPU" in found["CUDA backend"]
