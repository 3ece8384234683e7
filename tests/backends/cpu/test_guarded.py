"""No kernel touches memory outside of its operands, not even to read what it does not use: that ends the process where a page ends."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are guarded by Linux's mmap and mprotect")


@pytest.mark.parametrize("side", ["behind", "before"])
def test_every_case_stays_within_its_operands(side):
    done = subprocess.run([sys.executable, "-m", "tests.backends.cpu.guarded", side], capture_output=True, text=True, timeout=600)
    last = done.stdout.splitlines()[-1] if done.stdout else "nothing ran"
    assert done.returncode == 0, f"{last}: {done.stderr}"
    assert last.endswith("cases touched nothing outside") and int(last.split()[0]) > 1000


@pytest.mark.full
@pytest.mark.parametrize("width, cpu", [("8", "haswell"), ("4", "nehalem")])
def test_narrow_vectors_stay_within_their_operands(width, cpu):
    done = subprocess.run([sys.executable, "-m", "tests.backends.cpu.guarded", "behind"], capture_output=True, text=True, timeout=1200,
                          env=os.environ | {"NUMBANET_SIMD_WIDTH": width, "NUMBA_CPU_NAME": cpu})
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1]}: {done.stderr}"
