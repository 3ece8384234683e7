"""Programs that try several numbers of threads, in a process of their own that may have four."""

import os
import subprocess
import sys


def run_with_four_threads(program: str) -> str:
    """What it prints."""
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"NUMBANET_NUM_THREADS": "4"}, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
