"""numbanet train detector"""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict
from pathlib import Path

EXAMPLE = ("  numbanet train detector\n  numbanet train detector --data mnist/ --epochs 30\n"
           "  numbanet train detector --data coco/ --trunk mobilenet_v2 \\\n    --size 416 --flip 0.5\n"
           "  numbanet train detector --resume runs/detector-1\n  numbanet detect runs/detector-1 runs/detector-1/samples")


def configure(parser) -> None:
    from numbanet.cli.train import configure_fields
    from numbanet.detection.recipe import DetectorRecipe
    parser.usage = "numbanet train detector [--data DIR] [OPTIONS]"
    parser.add_argument("--recipe", metavar="FILE", help="a YAML file of the fields below")
    parser.add_argument("--print-config", action="store_true", help="show the recipe with all its fields, and do nothing")
    parser.add_argument("--threads", type=int, help="threads of the kernels (default: all cores)")
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/detector-N)")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run that was stopped")
    configure_fields(parser, DetectorRecipe, ("task",))


def run(arguments) -> int:
    from numbanet.cli.train import begin
    from numbanet.errors import DataError
    begin(arguments.threads)
    recipe, resumed = _recipe(arguments)
    if arguments.print_config:
        print(recipe.as_yaml(), end="")
        return 0
    from numbanet.backends import get_backend
    from numbanet.detection.preparing import prepare
    from numbanet.detection.training import DetectorTraining, save_samples
    from numbanet.train.run_directory import RunDirectory
    get_backend(recipe.device)                                          # a missing device is told before any work
    prepared = prepare(recipe)
    # nothing is written before all else is known to work
    folder = resumed or RunDirectory.create("detector", arguments.out)
    print(f"detector on {recipe.trunk}: {sum(p.numel() for p in prepared.model.parameters()):,} parameters, on {recipe.device}")
    print(f"data: {prepared.description}\n      {len(prepared.metadata['classes'])} classes, {recipe.size} x {recipe.size} pixels")
    training = DetectorTraining(prepared, recipe, folder, [_reporter(recipe.epochs)])
    if resumed:
        training.resume()
        print(f"going on with {folder.path} at epoch {training.progress.epoch + 1}, step {training.progress.step}")
    else:
        folder.write_config(asdict(recipe))
        folder.write_environment()
        save_samples(folder.samples, prepared.test)
    started = time.perf_counter()
    try:
        judged = training.fit()
    except DataError as error:
        raise DataError(f"{error.message}\n{_stopped(training, folder)}, or leave out what cannot be read:\n"
                        f"  numbanet train detector --resume {shlex.quote(str(folder.path))} --on-error skip") from error
    if judged is None:
        print(_stopped(training, folder))
        return 1
    print(f"\n{time.perf_counter() - started:.1f} s of training\n{report(judged, prepared.metadata['classes'])}")
    print(f"run: {folder.path} (weights/, found.png, curves.png, metrics.csv)\ntry it:\n"
          f"  numbanet detect {shlex.quote(str(folder.path))} {shlex.quote(str(folder.samples))} -o found")
    return 0


def report(judged, classes) -> str:
    """COCO's numbers, and those of the classes."""
    told = [f"mean average precision {100 * judged.values['AP']:.2f}% (at 0.5 {100 * judged.values['AP50']:.2f}%, "
            f"at 0.75 {100 * judged.values['AP75']:.2f}%)"]
    told.append("by area  " + ", ".join(f"{name} {_percent(judged.values[f'AP{name[0]}'])}" for name in ("small", "medium", "large"))
                + f"; recall with 100 a picture {_percent(judged.values['AR100'])}")
    width = max(map(len, classes))
    columns = max(1, 78 // (width + 10))
    cells = [f"{name.ljust(width)} {_percent(judged.per_class[k]):>7}" for k, name in enumerate(classes)]
    return "\n".join(told + ["of the classes:"] + ["  " + "  ".join(cells[i:i + columns]) for i in range(0, len(cells), columns)])


def _percent(value: float) -> str:
    return "-" if value < 0 else f"{100 * value:.2f}%"


def _stopped(training, folder) -> str:
    """Where it stopped, and how it goes on."""
    p = training.progress
    return (f"stopped at epoch {p.epoch + 1}, step {p.step}; a checkpoint was written. Go on with:\n"
            f"  numbanet train detector --resume {shlex.quote(str(folder.path))}")


def _recipe(arguments):
    """What is asked for, and the run to go on with, if any."""
    from numbanet.cli.train import MAY_CHANGE, given_fields
    from numbanet.detection.recipe import TASK, DetectorRecipe
    from numbanet.errors import UsageError
    from numbanet.train.recipe import read_recipe
    from numbanet.train.run_directory import RunDirectory
    given = given_fields(arguments, DetectorRecipe, ("task",))
    if arguments.resume:
        folder = RunDirectory.open(arguments.resume)
        changed = [f"--{name.replace('_', '-')}" for name, value in {**given, "recipe": arguments.recipe, "out": arguments.out}.items()
                   if value is not None and name not in MAY_CHANGE]
        if changed:
            raise UsageError(f"--resume: a run goes on with what it began with; leave out {', '.join(changed)}")
        config = folder.read_config()
        if config.get("task") != TASK:
            raise UsageError(f"--resume: {folder.path} is not the run of a detector; go on with it: numbanet train --resume "
                             f"{shlex.quote(str(folder.path))}")
        try:
            return DetectorRecipe.from_dict({**config, **given}), folder
        except UsageError as error:
            raise UsageError(f"--resume: {folder.path / 'config.yaml'} has entries that cannot be used ({error})") from error
    fields = {} if arguments.recipe is None else read_recipe(Path(arguments.recipe))
    recipe = DetectorRecipe.from_dict(fields).changed(given)
    from numbanet.zoo import model_info
    model_info(recipe.trunk)
    RunDirectory.check_free(arguments.out)
    return recipe, None


def _reporter(epochs: int):
    """A live bar for each epoch, and a line when it ends."""
    from numbanet.cli.train import Reporter

    def told(logs) -> str:
        return f"loss {logs['loss']:.3f}"

    def line(row) -> str:
        return (f"loss {row['train_loss']:.3f}, test loss {row['test_loss']:.3f}, AP {100 * row['test_AP']:.2f}% "
                f"(at 0.5 {100 * row['test_AP50']:.2f}%)")
    return Reporter(epochs, told, line)
