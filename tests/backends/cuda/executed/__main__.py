"""pytest in a process whose GPU executes PTX: ``python -m tests.backends.cuda.executed -q tests/ops -k cuda``."""

import os
import sys

os.environ.setdefault("NUMBANET_TEST_BACKENDS", "cuda:0")

import pytest  # noqa: E402

from tests.backends.cuda.executed.device import installed  # noqa: E402

with installed():
    sys.exit(pytest.main(sys.argv[1:]))
