"""Hostile and damaged files: a clear error, soon, in little memory; nothing executed, nothing written."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors

import numbanet.weights
from numbanet.weights import load_weights
from tests.weights import hostile

SECONDS, MEBIBYTES = 2.0, 512
OURS_ALONE = {"a header of 2^63 bytes", "twice the same name", "many dimensions", "booleans of 2", "millions of lists",
              "2^80 elements of nothing"}


@pytest.fixture(scope="module")
def ends(tmp_path_factory) -> dict:
    """How each file ended, from one process that read them all: (message, seconds, MiB by which its memory grew)."""
    folder, elsewhere = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("elsewhere")
    for i, (data, _) in enumerate(hostile.EVERY.values()):
        (folder / str(i)).write_bytes(data)
    program = Path(__file__).with_name("read_folder.py")
    answer = subprocess.run([sys.executable, program, folder], capture_output=True, text=True, cwd=elsewhere)
    assert answer.returncode == 0, answer.stderr
    assert os.listdir(elsewhere) == [] and len(os.listdir(folder)) == len(hostile.EVERY), "something was written"
    found = json.loads(answer.stdout)
    return {name: found[str(i)] for i, name in enumerate(hostile.EVERY)}


@pytest.mark.parametrize("name", hostile.EVERY)
def test_a_clear_error(name, ends):
    message, seconds, growth = ends[name]
    assert message.startswith("load_weights: ") and len(message) < 600
    assert re.search(hostile.EVERY[name][1], message), message
    assert seconds < SECONDS and growth < MEBIBYTES


@pytest.mark.parametrize("name", hostile.SAFETENSORS.keys() - OURS_ALONE)
def test_the_safetensors_library_refuses_these_too(name):
    with pytest.raises(safetensors.SafetensorError):
        safetensors.deserialize(hostile.SAFETENSORS[name][0])


def test_no_reader_knows_pickle():
    for path in Path(numbanet.weights.__file__).parent.glob("*.py"):
        names = {alias.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))
                 for alias in [*node.names, ast.alias(getattr(node, "module", None) or "")]}
        assert not {name for name in names if "pickle" in name and name != "numbanet.weights.pickle_machine"}, path


def test_what_the_hostile_files_are_made_from_is_read(tmp_path):
    value = np.float32(7).tobytes()
    for data, expected in ((hostile.TWO, {"a": 1, "b": 2}), (hostile.torch_zip(hostile.GOOD, data_0=value), {"w": 7}),
                           (hostile.LEGACY_GOOD, {"w": 7}), (hostile.safetensors({"w": hostile.ONE}, value), {"w": 7})):
        (tmp_path / "w").write_bytes(data)
        assert {name: array.item() for name, array in load_weights(tmp_path / "w")[0].items()} == expected
