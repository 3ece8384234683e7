"""Processes with other settings of Numba: without compilation, with other vector widths."""

import os
import platform
import subprocess
import sys

import pytest

TOLERANCE = 1e-5        # between float32 results, relative to the largest element


def differences(**variables) -> tuple[str, str, list[float]]:
    """Whether the process compiles, its vector width, and each network's worst difference between the backends."""
    done = subprocess.run([sys.executable, "-m", "tests.robustness.agreement"], env=os.environ | variables, capture_output=True,
                          text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    compiles, width, *numbers = done.stdout.split()
    return compiles, width, [float(n) for n in numbers]


def test_without_compilation_kernels_run_as_python():
    compiles, _, worst = differences(NUMBA_DISABLE_JIT="1")
    assert compiles == "False" and len(worst) == 2 and max(worst) < TOLERANCE


@pytest.mark.full
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 processors")
@pytest.mark.parametrize("cpu, width", [("haswell", "8"), ("nehalem", "4")])         # AVX2 with FMA; SSE4.2 without
def test_older_processors(cpu, width):
    received = differences(NUMBANET_SIMD_WIDTH=width, NUMBA_CPU_NAME=cpu)
    assert received[:2] == ("True", width) and len(received[2]) == 2 and max(received[2]) < TOLERANCE
