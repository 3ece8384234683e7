"""The CUDA backend in Numba's simulator, which has to be chosen before Numba is imported: in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def in_simulator(*command: str) -> subprocess.CompletedProcess:
    """Run Python with the simulator in place of a GPU."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


def test_every_primitive_agrees_with_the_reference():
    pytest.importorskip("numba_cuda")
    done = in_simulator("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/backends/cuda/simulated.py")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_users_without_a_gpu_never_meet_cuda():
    """Importing numbanet, a training step on the CPU, and asking whether there is CUDA import nothing of it."""
    program = """
import sys, numbanet
x = numbanet.ones(2, 3, requires_grad=True)
(x * 2).sum().backward()
numbanet.cuda.is_available()
found = [m for m in sys.modules if m.partition(".")[0] in ("cuda", "numba_cuda") or m.startswith("numba.cuda.cudadrv")]
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr[-3000:]
