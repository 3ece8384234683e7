"""docs/from-pytorch.md says what is true: its example runs, and its table of absent names is the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import numbanet
from numbanet import nn
from numbanet.absent import ABSENT

DOCUMENT = Path(__file__).parents[2] / "docs" / "from-pytorch.md"


def test_example_runs():
    code, = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    namespace = {}
    exec(code, namespace)
    assert namespace["loss"].item() > 0
    assert all(p.grad is not None for p in namespace["model"].parameters())


@pytest.mark.parametrize("module", ["numbanet", "nn"])
def test_absent_names(module):
    table = DOCUMENT.read_text().partition(f"<!-- absent: {module} -->")[2].partition("<!--")[0]
    listed = {}
    for names, remedy in re.findall(r"^\| (`.*`) \| (.*) \|$", table, re.MULTILINE):
        listed |= dict.fromkeys(re.findall(r"`(\w+)`", names), remedy)
    assert listed == ABSENT[module]
    for name in listed:
        with pytest.raises(AttributeError, match=f"{module}.{name}: "):
            getattr({"numbanet": numbanet, "nn": nn}[module], name)


def test_remedies_name_what_is_there():
    assert all(hasattr(numbanet, name) for name in ("save_weights", "load_weights", "compile", "trace", "create_model"))
    assert callable(numbanet.onnx.save)
    with pytest.raises(AttributeError, match="module 'numbanet' has no attribute 'relux'; did you mean numbanet.relu"):
        numbanet.relux  # noqa: B018
