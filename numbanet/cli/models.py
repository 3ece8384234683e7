"""numbanet models"""

from __future__ import annotations

import json

EXAMPLE = "  numbanet models 'lenet*'"


def configure(parser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="names to list, with wildcards")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    from numbanet.errors import UsageError
    from numbanet.zoo import list_models, model_info
    names = list_models(arguments.pattern)
    if not names:
        raise UsageError(f"no model matches {arguments.pattern!r}; there are {len(list_models())}, of the families "
                         f"{', '.join(sorted({model_info(name).family for name in list_models()}))}")
    infos = [model_info(name) for name in names]
    if arguments.json:
        print(json.dumps({info.name: {"family": info.family, **{k: v for k, v in vars(info).items() if k not in ("name", "create")}}
                          for info in infos}, indent=2))
        return 0
    rows = [("model", "family", "params", "mult-adds", "input"),
            *((info.name, info.family, _count(info.parameters), _count(info.multiply_adds), "x".join(map(str, info.input_size)))
              for info in infos)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for *names, parameters, multiply_adds, size in rows:
        columns = [*map(str.ljust, names, widths), *map(str.rjust, (parameters, multiply_adds), widths[2:]), size]
        print("  ".join(columns))
    return 0


def _count(n: int | None) -> str:
    """61706 as 61.7 K."""
    if n is None:
        return "-"
    for unit in ("", " K", " M"):
        if n < 999.95:
            return f"{n:.1f}{unit}" if unit else str(n)
        n /= 1000
    return f"{n:.1f} G"
