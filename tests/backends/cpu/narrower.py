"""Tests of a file once more, in a process whose vectors are narrower."""

import os
import platform
import subprocess
import sys

import pytest

from numbanet.backends.cpu import compile as compiler

PROGRAM = "import pytest, sys; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))"


def on_narrower_vectors(test):
    """A test that is given (width, cpu): 8 by default, 4 with the long ones."""
    for mark in (pytest.mark.parametrize("width, cpu", [("8", "haswell"), pytest.param("4", "nehalem", marks=pytest.mark.full)]),
                 pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 processors"),
                 pytest.mark.skipif(not compiler.JIT, reason="NUMBA_DISABLE_JIT=1")):
        test = mark(test)
    return test


def run_narrower(path: str, which: str, width: str, cpu: str, threads: int) -> None:
    """Run the tests `which` of a file."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, path, "-k", which], capture_output=True, text=True, timeout=600,
                          env=os.environ | {"NUMBANET_SIMD_WIDTH": width, "NUMBA_CPU_NAME": cpu, "NUMBANET_NUM_THREADS": str(threads)})
    assert done.returncode == 0, done.stdout[-3000:]
