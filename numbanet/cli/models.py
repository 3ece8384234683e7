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
        raise UsageError(f"no model matches {arguments.pattern!r}; known are {', '.join(list_models())}")
    infos = {name: model_info(name) for name in names}
    if arguments.json:
        print(json.dumps({name: {k: v for k, v in vars(info).items() if k not in ("name", "create")} for name, info in infos.items()},
                         indent=2))
        return 0
    width = max(map(len, names))
    for name, info in infos.items():
        print(f"{name.ljust(width)}  {info.description}")
    return 0
