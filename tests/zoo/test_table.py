"""The page of the zoo says what the registry says."""

from __future__ import annotations

from numbanet import zoo
from tests.zoo.write_table import PAGE, table, with_table


def test_the_page_has_the_table_of_the_registry():
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run python -m tests.zoo.write_table"


def test_every_model_has_a_row_and_a_source():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table().splitlines()[2:]]
    assert [row[0].strip("`") for row in rows] == zoo.list_models()
    assert [row[0] for row in rows if not row[1]] == []
