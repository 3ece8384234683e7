"""Python threads that run kernels at once, and processes forked after a parallel region."""

import os
import subprocess
import sys

import pytest

# Every step computes the same: what differs from the first was disturbed.
PROLOGUE = """
import os, threading
import numpy as np
import numbanet
from numbanet.backends.cpu import threads
from tests.determinism.network import SmallNetwork

def prepared():
    numbanet.manual_seed(7)
    return SmallNetwork().eval(), numbanet.randn(16, 3, 32, 32, requires_grad=True)

def step(model, x):
    model.zero_grad()
    x.grad = None
    model(x).square().sum().backward()
    return b"".join(g.numpy().tobytes() for g in (x.grad, *(p.grad for p in model.parameters())))

expected = step(*prepared())
"""


def run_python(source: str, **variables) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROLOGUE + source], env=os.environ | {"NUMBANET_NUM_THREADS": "2"} | variables,
                          capture_output=True, text=True, timeout=120)
    if "No threading layer could be loaded" in done.stderr:
        pytest.skip("this threading layer is not installed")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_python_threads_compute_what_one_computes(layer):
    output = run_python("""
received = []
def work(model, x):
    received.extend(step(model, x) for _ in range(4))
workers = [threading.Thread(target=work, args=prepared()) for _ in range(2)]
[w.start() for w in workers]; [w.join() for w in workers]
print(threads.layer(), len(received), sum(r != expected for r in received))
""", **{} if layer == "default" else {"NUMBA_THREADING_LAYER": layer})
    assert output[1:] == ["8", "0"] and layer in ("default", output[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_forked_after_a_parallel_region_computes_the_same():
    output = run_python("""
child = os.fork()
if not child:
    os._exit(0 if step(*prepared()) == expected else 1)
print(os.waitpid(child, 0)[1], int(step(*prepared()) == expected))
""")
    assert output == ["0", "1"]


def test_a_child_forked_while_another_thread_computes():
    """The launch lock and the allocator's may be held by a thread that the child does not have."""
    output = run_python("""
stop = threading.Event()
def work(model, x):
    while not stop.is_set():
        step(model, x)
worker = threading.Thread(target=work, args=prepared())
worker.start()
codes = []
for _ in range(3):
    child = os.fork()
    if not child:
        os._exit(0 if step(*prepared()) == expected else 1)
    codes.append(os.waitpid(child, 0)[1])
stop.set(); worker.join()
print(*codes)
""")
    assert output == ["0"] * 3
