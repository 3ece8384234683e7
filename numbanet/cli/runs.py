"""numbanet runs"""

from __future__ import annotations

import json
import sys
from pathlib import Path

EXAMPLE = "  numbanet runs\n  numbanet runs runs/lenet5-1 runs/lenet5-2"
MEASURED = {"average precision": "mean AP"}       # what the column has no room for


def configure(parser) -> None:
    parser.add_argument("folders", nargs="*", metavar="DIR", help="folders of runs (default: runs/), or two and more runs to compare")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    from numbanet.errors import UsageError
    from numbanet.train.run_directory import find_runs
    given = [Path(folder) for folder in arguments.folders or ["runs"]]
    found = []
    for folder in given:
        runs = find_runs(folder)
        if not runs and arguments.folders:
            raise UsageError(f"{folder}: {'holds no run' if folder.is_dir() else 'does not exist'}; a run has a config.yaml")
        found += [run for run in runs if _readable(run)]
    if arguments.json:
        print(json.dumps([{**run.facts(), "config": run.read_config()} for run in found], indent=2))
    elif not found:
        print("no runs yet; begin with: numbanet train lenet5")
    else:
        print(_table(found))
        if len(found) > 1 and all((folder / "config.yaml").is_file() for folder in given):
            print("\n" + _differences(found))
    return 0


def _readable(run) -> bool:
    """Whether it can be read; one that is damaged is told of, and the others are shown."""
    from numbanet.errors import CheckpointError
    try:
        run.facts()
    except CheckpointError as error:
        print(f"numbanet runs: {error}", file=sys.stderr)
        return False
    return True


def _table(runs) -> str:
    lines = [f"{'run':<22} {'model':<13} {'epochs':>7} {'judged by':<11} {'best':>7} {'last':>7} {'loss':>7}"]
    percent = lambda value: "-" if value is None or value < 0 else f"{100 * value:.2f}%"
    for run in runs:
        facts = run.facts()
        name, model = str(run.path)[-22:], (facts["model"] or "?")[:13]
        measure = MEASURED.get(facts["measure"], facts["measure"])[:11]
        loss = "-" if facts["test_loss"] is None else f"{facts['test_loss']:.4f}"
        lines.append(f"{name:<22} {model:<13} {facts['epochs_done']:>3}/{facts['epochs'] or '?':<3} {measure:<11} "
                     f"{percent(facts['best']):>7} {percent(facts['last']):>7} {loss:>7}")
    return "\n".join(lines)


def _differences(runs) -> str:
    configs = [run.read_config() for run in runs]
    names = [n for n in dict.fromkeys(n for c in configs for n in c) if len({json.dumps(c.get(n), sort_keys=True) for c in configs}) > 1]
    if not names:
        return "asked for the same"
    lines = ["asked for different"]
    for name in names:
        lines.append(f"  {name}")
        for run, config in zip(runs, configs):
            text = json.dumps(config.get(name))
            lines.append(f"    {str(run.path)[-28:]:<28} {text if len(text) <= 44 else text[:41] + '...'}")
    return "\n".join(lines)
