"""docs/from-pytorch.md says what is true: its example runs, and its table of absent names is the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from numbanet import nn
from numbanet.nn.absent import ABSENT

DOCUMENT = Path(__file__).parents[2] / "docs" / "from-pytorch.md"


def test_example_runs():
    code, = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    namespace = {}
    exec(code, namespace)
    assert namespace["loss"].item() > 0
    assert all(p.grad is not None for p in namespace["model"].parameters())


def test_absent_names():
    table = DOCUMENT.read_text().partition("<!-- absent -->")[2]
    listed = {}
    for names, remedy in re.findall(r"^\| (`.*`) \| (.*) \|$", table, re.MULTILINE):
        listed |= dict.fromkeys(re.findall(r"`(\w+)`", names), remedy)
    assert listed == ABSENT
    for name in listed:
        with pytest.raises(AttributeError, match=f"nn.{name}: "):
            getattr(nn, name)
