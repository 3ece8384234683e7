"""Write the table of `docs/zoo.md` from the registry.

    python -m tests.zoo.write_table
"""

from __future__ import annotations

from pathlib import Path

from numbanet import zoo

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"
_BEGIN, _END = "<!-- table -->\n", "<!-- end of table -->"


def table() -> str:
    """One row for each model of numbanet's own."""
    lines = ["| model | paper | input | parameters | multiply-adds |", "|---|---|---|---:|---:|"]
    for info in map(zoo.model_info, zoo.list_models()):
        if info.create.__module__.startswith("numbanet."):
            size = " x ".join(map(str, info.input_size))
            lines.append(f"| `{info.name}` | {info.paper} | {size} | {info.parameters:,} | {info.multiply_adds:,} |")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """The page with the table of today between its marks."""
    before, _, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    return before + _BEGIN + table() + end + after


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
