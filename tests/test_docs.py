"""The documents: their Python runs, in order, and their links lead somewhere."""

import importlib.util
import re
import textwrap
from pathlib import Path

import pytest

import numbanet
import numbanet.backends as backends
from numbanet.data.datasets import registry
from numbanet.onnx.export import load_translations
from numbanet.onnx.export.registry import TRANSLATIONS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^(?P<mark><!-- not executed -->\n+)?```python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)


def python_blocks(text: str) -> list[tuple[int, str]]:
    """(number of the first line, code) of each block that is to be executed."""
    return [(text.count("\n", 0, found.start("code")), found["code"]) for found in BLOCK.finditer(text) if not found["mark"]]


def named(documents) -> list:
    return [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in documents]


@pytest.fixture
def clean_registries():
    """What a document declares and registers is forgotten after it."""
    if importlib.util.find_spec("onnx"):
        load_translations()         # on first use otherwise: they would be forgotten too
    tables = [backends.PRIMITIVES, backends._attached, registry._datasets, TRANSLATIONS,
              *(backends.get_backend(name).implementations for name in ("reference", "cpu"))]
    before = [{key: dict(value) if isinstance(value, dict) else value for key, value in table.items()} for table in tables]
    yield
    for table, kept in zip(tables, before):
        table.clear()
        table.update(kept)


@pytest.mark.parametrize("path", named(path for path in DOCUMENTS if python_blocks(path.read_text())))
def test_python_runs(path, tmp_path, monkeypatch, clean_registries):
    monkeypatch.chdir(tmp_path)
    with numbanet.random.fork_rng():
        namespace = {"__name__": path.stem}
        for line, code in python_blocks(path.read_text()):
            exec(compile("\n" * line + code, str(path), "exec"), namespace)     # tracebacks show the document's lines


def test_blocks_are_found():
    text = textwrap.dedent("""\
        ```python
        a = 1
        ```
        <!-- not executed -->
        ```python
        a = 2
        ```
        ```
        a = 3
        ```
        """)
    assert python_blocks(text) == [(1, "a = 1\n")]


@pytest.mark.parametrize("path", named(DOCUMENTS))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name}: {target} does not exist"
