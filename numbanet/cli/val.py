"""numbanet val"""

from __future__ import annotations

import json
from pathlib import Path

EXAMPLE = "  numbanet val runs/lenet5-1\n  numbanet val runs/photos --data more-photos/ --json"


def configure(parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("--data", metavar="DIR", help="judge on the test pictures of this folder instead of the run's")
    parser.add_argument("--last", action="store_true", help="the weights of the last epoch instead of the best")
    parser.add_argument("--device", default="cpu", help="cpu (default) or reference")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    from dataclasses import replace

    from numbanet.cli.train import task_of
    from numbanet.detection.recipe import TASK as DETECTION
    from numbanet.errors import DataError, UsageError
    from numbanet.train.recipe import Recipe
    from numbanet.train.run_directory import RunDirectory
    from numbanet.train.trainer import Trainer
    from numbanet.weights import load_weights
    folder = RunDirectory.open(arguments.run, "RUN")
    config = folder.read_config()
    if config.get("task") == DETECTION:
        raise UsageError(f"RUN: {folder.path} is the run of a detector, which 'numbanet train detector --resume {folder.path}' judges; "
                         "expected one of a classifier or a segmenter")
    recipe = replace(Recipe.from_dict(config), weights=None, freeze_until=None, device=arguments.device)
    if arguments.data is not None:
        recipe = replace(recipe, data=str(Path(arguments.data).absolute()))
    weights = folder.weights / f"{'last' if arguments.last else 'best'}.safetensors"
    arrays, stored = load_weights(weights)
    prepare, kind = task_of(recipe)
    prepared = prepare(recipe)
    data = prepared.data
    if list(data.classes) != list(stored.get("classes", data.classes)):
        raise DataError(f"{recipe.data}: expected the classes that {weights} was trained with, {', '.join(stored['classes'])}, received "
                        f"{', '.join(data.classes)}")
    prepared.model.load_state_dict(arrays)
    judgement = kind.judged(Trainer(prepared.model), data.test, data.classes, recipe)
    if arguments.data is None:
        kind.draw(folder.path, judgement, data.test, data.classes)
    if arguments.json:
        print(json.dumps({**judgement.values, "images": judgement.count, "confusion": judgement.confusion.counts.tolist(),
                          "classes": list(data.classes)}, indent=2))
        return 0
    print(f"{weights} on {judgement.count:,} test images of {data.description.splitlines()[0]}")
    width = max(18, *map(len, judgement.values))
    for name, value in judgement.values.items():
        print(f"  {name:<{width}} {value:.4f}")
    print("confusion matrix, a row for each true class:")
    print(judgement.confusion.table(data.classes))
    if arguments.data is None:
        print(f"pictures: {folder.path / 'confusion.png'}, {folder.path / 'mistakes.png'}")
    return 0
