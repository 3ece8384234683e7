"""numbanet train: classifiers, segmenters and detectors, each by a recipe of its kind; `tasks.py` has the table of kinds."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import time
import typing
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path

EXAMPLE = ("  numbanet train lenet5\n  numbanet train --recipe resnet20_cifar --data photos/ --epochs 30\n"
           "  numbanet train resnet18 --data photos/ --weights resnet18.pth \\\n    --freeze-until layer4 --lr 0.01\n"
           "  numbanet train segmenter --data scans/\n"
           "  numbanet train detector --data coco/ --trunk mobilenet_v2 \\\n    --size 416 --flip 0.5\n"
           "  numbanet train detector --print-config\n  numbanet train --resume runs/lenet5-1\n"
           "  mpiexec -n 4 numbanet train --recipe resnet50 --data photos/")
SAID_ELSEWHERE = ("model", "source", "task")                    # fields of recipes that MODEL and --recipe say
EVERY = "fields of every recipe"
MAY_CHANGE = ("workers", "on_error", "device", "eager")         # in a run that goes on


def configure(parser) -> None:
    from numbanet.cli.tasks import TASKS
    parser.usage = "numbanet train [MODEL] [--recipe NAME] [--data DIR] [OPTIONS]"
    parser.add_argument("model", metavar="MODEL", nargs="?",
                        help="a name from 'numbanet models', such as lenet5, which takes the recipe of its name if there is one; or "
                             "segmenter, or detector")
    parser.add_argument("--recipe", metavar="NAME", help="a published recipe, or a YAML file of the fields below")
    parser.add_argument("--print-config", action="store_true", help="show the recipe with all its fields, and do nothing")
    parser.add_argument("--threads", type=int, help="threads of the kernels (default: all cores)")
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/MODEL-N)")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run that was stopped")
    nouns: dict = {}                        # of each kind of recipe, what it is of
    for task in TASKS.values():
        nouns.setdefault(task.recipe, []).append(f"{task.noun}s")
    of: dict = {}                           # of each field, the kinds of recipes that have it
    for kind in nouns:
        for known in fields(kind):
            of.setdefault(known.name, []).append((kind, known))
    groups = {EVERY: parser.add_argument_group(EVERY)}
    for name, found in of.items():
        title = EVERY if len(found) == len(nouns) else "of " + " and ".join(n for kind, _ in found for n in nouns[kind])
        if name not in SAID_ELSEWHERE:
            if title not in groups:
                groups[title] = parser.add_argument_group(title)
            _configure_field(groups[title], found, nouns)


def _configure_field(group, found, nouns) -> None:
    """The option of a field, which may have another default in each kind of recipe."""
    kind, known = found[0]
    types = typing.get_type_hints(kind)
    allowed = [t for t in typing.get_args(types[known.name]) or (types[known.name],) if t is not type(None)]
    default = _default(known)
    defaults = [] if default in (None, "") or isinstance(default, bool) else [str(default)]
    defaults += [f"of {' and '.join(nouns[other])} {_default(theirs)}" for other, theirs in found[1:] if _default(theirs) != default]
    text = known.metadata["help"] + (f" (default {'; '.join(defaults)})" if defaults else "")
    if allowed == [bool]:
        group.add_argument(_flag(known.name), action=argparse.BooleanOptionalAction, default=None, help=text)
    else:
        metavar = "YAML" if allowed[0] in (dict, list) else "DIR" if known.name == "data" else None
        group.add_argument(_flag(known.name), type=allowed[0] if allowed[0] in (int, float) else str, metavar=metavar, help=text)


def _default(known):
    return known.default if known.default is not MISSING else None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def run(arguments) -> int:
    from numbanet.errors import DataError, NumbanetError, UsageError
    if arguments.threads is not None:                                   # before anything counts them
        if arguments.threads < 1:
            raise UsageError(f"--threads: expected at least 1, received {arguments.threads}")
        os.environ["NUMBANET_NUM_THREADS"] = str(arguments.threads)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("numbanet.compile").setLevel(logging.INFO)        # says why the first step takes a while
    kind, recipe, resumed = _asked(arguments)
    if arguments.print_config:
        print(recipe.as_yaml(), end="")
        return 0
    from numbanet.backends import get_backend
    from numbanet.cli.progress import Reporter, watch
    from numbanet.train.run_directory import RunDirectory
    get_backend(recipe.device)                                          # a missing device is told before any work
    replicas = _replicas()
    own = recipe if replicas is None else replace(recipe, device=replicas.own_device(recipe.device))
    prepared = kind.prepare(own, watch)
    model, data = prepared.model, prepared.data
    first = replicas is None or replicas.rank == 0
    # nothing is written before all else is known to work
    folder = resumed or (RunDirectory.create(kind.folder_name(recipe), arguments.out) if first else None)
    if replicas is not None:
        folder = replicas.share(folder)
    print(f"{kind.title(recipe)}: {sum(p.numel() for p in model.parameters()):,} parameters, on {own.device}")
    print(f"data: {data.description}")
    try:
        training = kind(model, data.train, data.test, own, folder, prepared.metadata, [Reporter(recipe.epochs, kind)], replicas)
    except NumbanetError:
        if first and not resumed:
            folder.discard()
        raise
    if resumed:
        training.resume()
        print(f"going on with {folder.path} at epoch {training.progress.epoch + 1}, step {training.progress.step}")
    elif first:
        folder.write_config(asdict(recipe))
        folder.write_environment()
        data.save_samples(folder.samples)
    started = time.perf_counter()
    try:
        outcome = training.fit()
    except DataError as error:
        raise DataError(f"{error.message}\n{_stopped(training, folder)}, or leave out what cannot be read:\n"
                        f"  numbanet train --resume {shlex.quote(str(folder.path))} --on-error skip") from error
    if outcome is None:
        print(_stopped(training, folder))
        return 1
    headline, *lines = training.described(outcome)
    print("\n".join([f"\n{headline}, {time.perf_counter() - started:.1f} s of training", *lines]))
    print(f"run: {folder.path} (weights/, report.html, curves.png, metrics.csv)\ntry it:\n"
          f"  numbanet {shlex.join(kind.example(folder))}")
    return 0


def _stopped(training, folder) -> str:
    """Where it stopped, and how it goes on."""
    p = training.progress
    return (f"stopped at epoch {p.epoch + 1}, step {p.step}; a checkpoint was written. Go on with:\n"
            f"  numbanet train --resume {shlex.quote(str(folder.path))}")


def _replicas():
    """The processes that mpiexec has started together, if any; only the first tells what happens."""
    from numbanet.train.distributed import Replicas, launched
    if not launched():
        return None
    replicas = Replicas()
    if replicas.rank:
        sys.stdout = open(os.devnull, "w")
    return replicas


def _asked(arguments) -> tuple:
    """(kind of training, recipe, the run to go on with or None)."""
    from numbanet.cli.tasks import task_of
    from numbanet.errors import UsageError
    from numbanet.train.run_directory import RunDirectory
    from numbanet.zoo import model_info
    if arguments.resume:
        return _resumed(arguments)
    task, recipe = None, None
    for values, where in _published(arguments):
        own = task_of(values, where) if task is None or "task" in values else task
        if task is not None and own is not task:
            raise UsageError(f"{where} is the recipe of a {own.noun}, MODEL says {task.noun}; leave out one of them")
        task, known = own, {known.name for known in fields(own.recipe)}
        if "model" in values and "model" not in known:
            raise UsageError(f"MODEL: a {task.noun} has a network of its own around its trunk; name that: --trunk {values['model']}")
        recipe = (task.recipe() if recipe is None else recipe).changed(values)
    recipe = recipe.changed(_given(arguments, task))
    model_info(task.training.network(recipe))
    RunDirectory.check_free(arguments.out)
    return task.training, recipe, None


def _published(arguments) -> list[tuple[dict, str]]:
    """What MODEL and --recipe stand for: (fields of a recipe, where they are from), the later ones counting more."""
    import difflib

    from numbanet.errors import UsageError
    from numbanet.train.recipe import list_recipes, read_recipe
    from numbanet.zoo import list_models
    model = arguments.model
    found = [] if arguments.recipe is None else [(read_recipe(arguments.recipe), f"--recipe: {arguments.recipe}")]
    if model is None:
        if not found:
            raise UsageError("expected a model, such as: numbanet train lenet5, or a --recipe")
        return found
    if model in list_models():
        if not found:
            found = [(read_recipe(model) if model in list_recipes() else {"clip_norm": 1.0}, "recipe")]
            # at the top of the one-cycle, one bad batch could throw a run off: hence the clipping
        return [*found, ({"model": model}, "MODEL")]
    if model in list_recipes():             # one of no single network: segmenter, detector
        return [(read_recipe(model), f"recipe {model}"), *found]
    if model.lower() in ("true", "false", "yes", "no", "on", "off"):
        raise UsageError(f"MODEL: received {model!r}; a switch takes no value: leave it out, and write --no-... for false")
    close = difflib.get_close_matches(model, [name for name in list_recipes() if name not in list_models()], 1, 0.75)
    if close:
        raise UsageError(f"no model or recipe {model!r}; did you mean {close[0]}?")
    return [*found, ({"model": model}, "MODEL")]


def _resumed(arguments) -> tuple:
    """As :func:`_asked`, of --resume: what the run began with, and its kind, stand in its folder."""
    from numbanet.cli.tasks import TASKS, task_of
    from numbanet.errors import UsageError
    from numbanet.train.run_directory import RunDirectory
    folder = RunDirectory.open(arguments.resume)
    config = folder.read_config()
    where = f"--resume: {folder.path / 'config.yaml'}"
    task = task_of(config, where)
    model = arguments.model
    if model in [other.noun for other in TASKS.values()]:
        if model != task.noun:
            raise UsageError(f"--resume: {folder.path} is not the run of a {model}, but of a {task.noun}; leave out {model}")
        model = None
    given = _given(arguments, None)
    changed = ["MODEL" if name == "model" else "--no-distort" if (name, value) == ("distort", False) else _flag(name)
               for name, value in {**given, "model": model, "recipe": arguments.recipe, "out": arguments.out}.items()
               if value is not None and name not in MAY_CHANGE]
    if changed:
        raise UsageError(f"--resume: a run goes on with what it began with; leave out {', '.join(changed)}")
    try:
        return task.training, task.recipe.from_dict({**config, **given}), folder
    except UsageError as error:
        raise UsageError(f"{where} has entries that cannot be used ({error})") from error


def _given(arguments, task) -> dict:
    """The fields that the command line sets, which the recipe of a task has to have; of None all."""
    from numbanet.cli.tasks import TASKS
    from numbanet.errors import UsageError
    given = {}
    for kind in dict.fromkeys(known.recipe for known in TASKS.values()):
        types = typing.get_type_hints(kind)
        for known in fields(kind):
            value = None if known.name in SAID_ELSEWHERE else getattr(arguments, known.name)
            if value is not None and known.name not in given:
                given[known.name] = _yaml(known.name, value) if types[known.name] in (dict, list) else value
    for name in given if task is not None else ():
        if name not in {known.name for known in fields(task.recipe)}:
            nouns = " or ".join(other.noun for other in TASKS.values() if name in {known.name for known in fields(other.recipe)})
            raise UsageError(f"{_flag(name)}: is of the recipe of a {nouns}, and a {task.noun} is trained; leave it out")
    for name in ("data", "weights"):
        if name in given and not (name == "data" and _is_data_set(given[name])):
            given[name] = str(Path(given[name]).absolute())
    return given


def _is_data_set(name: str) -> bool:
    """Whether a data set is meant, rather than a folder."""
    from numbanet.data.datasets import list_datasets
    return name in list_datasets() and not Path(name).exists()


def _yaml(name: str, text: str):
    import yaml

    from numbanet.errors import UsageError
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{_flag(name)}: not YAML ({' '.join(str(error).split())[:150]})") from error
