"""Processes whose CUDA driver is `fake_libcuda.c`: everything above the driver is real, `cuda.bindings` included; kernels are not run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCE = Path(__file__).with_name("fake_libcuda.c")


def build(folder: Path) -> str:
    """Make libcuda.so.1 in a folder; "" or why that cannot be done here."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None or sys.platform != "linux":
        return "a driver's library over host memory is built by a C compiler, on Linux"
    command = [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", str(folder / "libcuda.so.1"), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr[-2000:] if done.returncode else ""


def environment(folder: Path, **settings) -> dict[str, str]:
    """Of a process that finds the library; settings are those of `fake_libcuda.c`, such as arch=75 for FAKE_CUDA_ARCH."""
    left = {name: value for name, value in os.environ.items() if name not in ("NUMBA_ENABLE_CUDASIM", "CUDA_VISIBLE_DEVICES")}
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")]))
    return left | {"LD_LIBRARY_PATH": path} | {f"FAKE_CUDA_{name.upper()}": str(value) for name, value in settings.items()}


def python(folder: Path, program: str, **settings) -> subprocess.CompletedProcess:
    """Run a program that finds the library."""
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env=environment(folder, **settings))


def numbanet(folder: Path, *words: str, **settings) -> subprocess.CompletedProcess:
    """Run the command line where it finds the library."""
    return subprocess.run([sys.executable, "-m", "numbanet", *words], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env=environment(folder, **settings))
