"""numbanet val"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

EXAMPLE = ("  numbanet val runs/lenet5-1\n  numbanet val runs/photos --data more-photos/ --json\n"
           "  numbanet val runs/detector-1 --data coco/")


def configure(parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of the run of a classifier, segmenter or detector")
    parser.add_argument("--data", metavar="DIR", help="judge on the test pictures of this folder instead of the run's")
    parser.add_argument("--last", action="store_true", help="the weights of the last epoch instead of the best")
    parser.add_argument("--device", default="cpu", help="cpu (default) or reference")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    from numbanet.backends import get_backend
    from numbanet.cli.tasks import task_of
    from numbanet.errors import DataError, UsageError
    from numbanet.train.run_directory import RunDirectory
    from numbanet.train.trainer import Trainer
    from numbanet.weights import load_weights
    folder = RunDirectory.open(arguments.run, "RUN")
    config, where = folder.read_config(), f"RUN: {folder.path / 'config.yaml'}"
    task = task_of(config, where)
    get_backend(arguments.device)
    changes = {"weights": None, "freeze_until": None, "device": arguments.device}
    if arguments.data is not None:
        changes["data"] = str(Path(arguments.data).absolute())
    known = {known.name for known in fields(task.recipe)}
    try:
        recipe = task.recipe.from_dict({**config, **{name: value for name, value in changes.items() if name in known}})
    except UsageError as error:
        raise UsageError(f"{where} has entries that cannot be used ({error})") from error
    weights = folder.weights / f"{'last' if arguments.last else 'best'}.safetensors"
    arrays, stored = load_weights(weights)
    kind = task.training
    prepared = kind.prepare_test(recipe)
    data = prepared.data
    if list(data.classes) != list(stored.get("classes", data.classes)):
        raise DataError(f"{recipe.data}: expected the classes that {weights} was trained with, {', '.join(stored['classes'])}, received "
                        f"{', '.join(data.classes)}")
    prepared.model.load_state_dict(arrays)
    judgement = kind.judged(Trainer(prepared.model), data.test, data.classes, recipe)
    if arguments.data is None:
        kind.draw(folder.path, judgement, data.test, data.classes)
    if arguments.json:
        print(json.dumps({**judgement.facts(), "classes": list(data.classes)}, indent=2))
        return 0
    print("\n".join([f"{weights} on {judgement.count:,} test images of {data.description.splitlines()[0]}",
                     *judgement.lines(data.classes)]))
    if arguments.data is None:
        print(f"pictures: {', '.join(str(folder.path / name) for name in judgement.drawn)}")
    return 0
