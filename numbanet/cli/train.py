"""numbanet train"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import textwrap
import time
import typing
from dataclasses import asdict, replace
from pathlib import Path

NO_FLAGS = ("model", "source", "task")      # fields of the recipe that MODEL and --recipe say
EXAMPLE = ("  numbanet train lenet5\n  numbanet train --recipe resnet20_cifar --data photos/ --epochs 30\n"
           "  numbanet train resnet18 --data photos/ --weights resnet18.pth \\\n    --freeze-until layer4 --lr 0.01\n"
           "  numbanet train --recipe vgg16 --print-config\n  numbanet train --resume runs/lenet5-1\n"
           "  mpiexec -n 4 numbanet train --recipe resnet50 --data photos/")
TASKS = {"classification": ("numbanet.train.classifier", "ClassifierTraining"),
         "segmentation": ("numbanet.segmentation.training", "SegmenterTraining")}
MAY_CHANGE = ("workers", "on_error", "device", "eager")         # in a run that goes on


def configure(parser) -> None:
    from numbanet.train.recipe import Recipe
    parser.usage = "numbanet train [MODEL] [--recipe NAME] [--data DIR] [OPTIONS]"
    parser.add_argument("model", nargs="?", help="a name from 'numbanet models', such as lenet5; one with a recipe of that name takes it")
    parser.add_argument("--recipe", metavar="NAME", help="a published recipe, or a YAML file of the fields below")
    parser.add_argument("--print-config", action="store_true", help="show the recipe with all its fields, and do nothing")
    parser.add_argument("--threads", type=int, help="threads of the kernels (default: all cores)")
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/MODEL-N)")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run that was stopped")
    configure_fields(parser, Recipe, NO_FLAGS)


def configure_fields(parser, kind, left_out) -> None:
    """An option for each field of a kind of recipe."""
    from dataclasses import MISSING, fields
    types = typing.get_type_hints(kind)
    group = parser.add_argument_group("fields of the recipe, all of which may be set here")
    for known in fields(kind):
        if known.name in left_out:
            continue
        allowed = [t for t in typing.get_args(types[known.name]) or (types[known.name],) if t is not type(None)]
        default = known.default if known.default is not MISSING else None
        text = known.metadata["help"] + ("" if default in (None, "") or isinstance(default, bool) else f" (default {default})")
        flag = f"--{known.name.replace('_', '-')}"
        if allowed == [bool]:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            metavar = "YAML" if allowed[0] in (dict, list) else "DIR" if known.name == "data" else None
            group.add_argument(flag, type=allowed[0] if allowed[0] in (int, float) else str, metavar=metavar, help=text)


def begin(threads: int | None) -> None:
    """What a training begins with: the threads of its kernels, which are counted once, and what is told meanwhile."""
    from numbanet.errors import UsageError
    if threads is not None:
        if threads < 1:
            raise UsageError(f"--threads: expected at least 1, received {threads}")
        os.environ["NUMBANET_NUM_THREADS"] = str(threads)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("numbanet.compile").setLevel(logging.INFO)        # says why the first step takes a while


def run(arguments) -> int:
    from numbanet.errors import DataError
    begin(arguments.threads)
    recipe, resumed = _recipe(arguments)
    if arguments.print_config:
        print(recipe.as_yaml(), end="")
        return 0
    from numbanet.backends import get_backend
    from numbanet.train.run_directory import RunDirectory
    get_backend(recipe.device)                                          # a missing device is told before any work
    replicas = _replicas()
    prepare, kind = task_of(recipe)
    own = recipe if replicas is None else replace(recipe, device=replicas.own_device(recipe.device))
    prepared = prepare(own, _watch)
    model, data = prepared.model, prepared.data
    first = replicas is None or replicas.rank == 0
    # nothing is written before all else is known to work
    folder = resumed or (RunDirectory.create(recipe.model, arguments.out) if first else None)
    if replicas is not None:
        folder = replicas.share(folder)
    print(f"{recipe.model}: {sum(p.numel() for p in model.parameters()):,} parameters, on {own.device}")
    print(f"data: {data.description}")
    reporters = [Reporter(recipe.epochs, _told(kind.measure), _line(kind.measure))]
    training = kind(model, data.train, data.test, own, folder, prepared.metadata, reporters, replicas)
    if arguments.resume:
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
          f"  numbanet {kind.verb} {shlex.quote(str(folder.path))} {shlex.quote(str(kind.sample(folder)))}")
    return 0


def task_of(recipe) -> tuple:
    """(prepare, Training) of what a recipe asks to learn."""
    from importlib import import_module
    place, name = TASKS[recipe.task]
    module = import_module(place)
    return module.prepare, getattr(module, name)


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


def _watch(iterator, total: int):
    """Show how many pictures were read."""
    from tqdm import tqdm
    return tqdm(iterator, "reading images", total, leave=False, disable=None, dynamic_ncols=True)


def _recipe(arguments):
    """What is asked for, and the run to go on with, if any."""
    from numbanet.errors import UsageError
    from numbanet.train.recipe import Recipe, list_recipes, read_recipe
    from numbanet.train.run_directory import RunDirectory
    given = given_fields(arguments, Recipe, NO_FLAGS)
    if arguments.resume:
        folder = RunDirectory.open(arguments.resume)
        flags = {"model": "MODEL"}
        changed = [flags.get(name, "--no-distort" if (name, value) == ("distort", False) else f"--{name.replace('_', '-')}")
                   for name, value in {**given, "model": arguments.model, "recipe": arguments.recipe, "out": arguments.out}.items()
                   if value is not None and name not in MAY_CHANGE]
        if changed:
            raise UsageError(f"--resume: a run goes on with what it began with; leave out {', '.join(changed)}")
        config = folder.read_config()
        if config.get("task") == "detection":
            raise UsageError(f"--resume: {folder.path} is the run of a detector; go on with it: numbanet train detector --resume "
                             f"{shlex.quote(str(folder.path))}")
        try:
            return Recipe.from_dict({**config, **given}), folder
        except UsageError as error:
            raise UsageError(f"--resume: {folder.path / 'config.yaml'} has entries that cannot be used ({error})") from error
    if arguments.recipe is not None:
        fields_of_recipe = read_recipe(arguments.recipe)
    elif arguments.model in list_recipes():
        fields_of_recipe = read_recipe(arguments.model)
    elif arguments.model is not None:
        fields_of_recipe = {"clip_norm": 1.0}           # at the top of the one-cycle, one bad batch could throw a run off
    else:
        raise UsageError("expected a model, such as: numbanet train lenet5, or a --recipe")
    from numbanet.zoo import list_models, model_info
    if arguments.model is not None and (arguments.recipe or arguments.model in list_models() or "model" not in fields_of_recipe):
        fields_of_recipe["model"] = arguments.model         # otherwise it is the name of a recipe, such as segmenter, that says its own
    recipe = Recipe.from_dict(fields_of_recipe).changed(given)
    model_info(recipe.model)
    RunDirectory.check_free(arguments.out)
    return recipe, None


def _is_data_set(name: str) -> bool:
    """Whether a data set is meant, rather than a folder."""
    from numbanet.data.datasets import list_datasets
    return name in list_datasets() and not Path(name).exists()


def given_fields(arguments, kind, left_out) -> dict:
    """The fields of a kind of recipe that the command line sets."""
    from dataclasses import fields
    types = typing.get_type_hints(kind)
    given = {known.name: value for known in fields(kind) if known.name not in left_out
             and (value := getattr(arguments, known.name)) is not None}
    for name, value in given.items():
        if types[name] in (dict, list):
            given[name] = _yaml(name, value)
    for name in ("data", "weights"):
        if name in given and not (name == "data" and _is_data_set(given[name])):
            given[name] = str(Path(given[name]).absolute())
    return given


def _yaml(name: str, text: str):
    import yaml

    from numbanet.errors import UsageError
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"--{name.replace('_', '-')}: not YAML ({' '.join(str(error).split())[:150]})") from error


def _told(measure: str):
    return lambda logs: f"loss {logs['loss']:.3f}, {measure} {100 * logs[measure]:.1f}%"


def _line(measure: str):
    return lambda row: (f"loss {row['train_loss']:.3f} ({100 * row[f'train_{measure}']:.2f}%), test loss "
                        f"{row['test_loss']:.3f} ({100 * row[f'test_{measure}']:.2f}%)")


def Reporter(epochs: int, told_of, line_of):
    """A live bar for each epoch, and a line when it ends: `told_of(logs)` says how a batch went, `line_of(row)` how an epoch did."""
    from numbanet.train.callbacks import Callback
    from numbanet.train.report import waiting
    from numbanet.train.training import as_row

    class ProgressBar(Callback):
        bar, only_first, told = None, True, False

        def on_epoch_begin(self, epoch, logs=None):
            from tqdm import tqdm
            self.close()
            trainer = self.trainer
            self.bar = tqdm(total=len(trainer.train_loader), initial=trainer.progress.batch, leave=False, disable=None,
                            desc=f"epoch {epoch + 1}/{epochs}", dynamic_ncols=True,
                            bar_format="{desc} {percentage:3.0f}%|{bar}| {postfix} {remaining} left")

        def on_train_batch_end(self, batch, logs=None):
            progress = self.trainer.progress
            self.bar.set_postfix_str(f"{told_of(logs)}, "
                                     f"{progress.seen / max(progress.seconds, 1e-9):,.0f} images/s"
                                     f"{_waiting(progress.waited, progress.seconds)}", refresh=False)
            self.bar.update(1)

        def on_epoch_end(self, epoch, logs=None):
            self.close()
            row = as_row(self.trainer.progress.history[-1])
            number = f"{row['epoch']:>{len(str(epochs))}}/{epochs}"
            print(f"epoch {number}  {line_of(row)}, {row['images_per_second']:,.0f} images/s"
                  + (f", {row['skipped']:,} left out" if row["skipped"] else ""), flush=True)
            if not self.told and _waiting(row["waited"], row["seconds"]) and not _is_in_memory(self.trainer.train_loader.dataset):
                self.told = True
                print(textwrap.fill(waiting([row]), 80, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False), flush=True)

        def on_train_end(self, logs=None):
            self.close()

        def on_exception(self, error):
            self.close()

        def close(self):
            if self.bar is not None:
                self.bar.close()
                self.bar = None
    return ProgressBar()


def _is_in_memory(dataset) -> bool:
    """Whether there is nothing to be had from packing the data, or from threads that read ahead."""
    from numbanet.data.dataset import ArrayDataset
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return isinstance(dataset, ArrayDataset)


def _waiting(waited: float, seconds: float) -> str:
    """What to say of waiting for data: nothing where it is little."""
    from numbanet.data.loader import WAITING
    return f", {100 * waited / seconds:.0f}% waiting" if seconds > 0 and waited > WAITING * seconds else ""
