"""SIGKILL at random moments, any number of workers and threads: never an unreadable run, and the weights of the run that was not killed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="lives are forks")
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.full)])
def test_killed_at_random_moments(kills, tmp_path):
    done = subprocess.run([sys.executable, "-m", "tests.train.mortal", tmp_path, str(kills), "0"], cwd=Path(__file__).parents[2],
                          capture_output=True, text=True, timeout=60 + 6 * kills)
    assert done.returncode == 0, done.stdout + done.stderr
    killed, gone_on, finished = map(int, re.findall(r"\d+", done.stdout.splitlines()[-1]))
    assert killed == kills and gone_on >= kills // 4 and finished >= 1
