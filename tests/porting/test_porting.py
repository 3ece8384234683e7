"""Training scripts written for PyTorch run on numbanet with nothing but their import lines changed.

Each file in `scripts/` has `build()`, which makes a model, and `train(model)`, which returns what it measured. Both run
under both packages from equal weights, and must measure the same.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = sorted(Path(__file__).with_name("scripts").glob("*.py"))


def ported(source: str) -> str:
    """The script for numbanet: `torch` becomes `numbanet` in lines that import."""
    lines = []
    for line in source.splitlines():
        if re.match(r"(import|from) torch\b", line):
            line = line.replace("torch.utils.data", "torch.data")
            line = re.sub(r"^import torch$", "import numbanet as torch", line).replace("torch.", "numbanet.")
            line = re.sub(r"^from torch ", "from numbanet ", line)
        lines.append(line)
    return "\n".join(lines)


def load(source: str, name: str) -> dict:
    namespace = {"__name__": name}
    exec(compile(source, name, "exec"), namespace)
    return namespace


def test_ten_scripts_and_only_imports_change():
    assert len(SCRIPTS) == 10
    for path in SCRIPTS:
        source = path.read_text()
        for before, after in zip(source.splitlines(), ported(source).splitlines(), strict=True):
            assert before == after or before.startswith(("import torch", "from torch"))
        assert not re.search(r"^(import|from) torch\b", ported(source), re.MULTILINE)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_script(path):
    source = path.read_text()
    mine = load(ported(source), f"{path.stem}_ported")
    model = mine["build"]()
    try:
        import torch
    except ImportError:
        measured = mine["train"](model)
        assert np.isfinite(measured).all()
        return
    torch.manual_seed(0)
    theirs = load(source, path.stem)
    original = theirs["build"]()
    model.load_state_dict(original.state_dict())
    measured, expected = mine["train"](model), theirs["train"](original)
    assert len(measured) == len(expected)
    # Rounding differs and training amplifies it; a wrong gradient or formula is off by far more.
    np.testing.assert_allclose(measured, expected, rtol=2e-3, atol=1e-5)
