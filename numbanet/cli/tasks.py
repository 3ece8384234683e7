"""What networks are trained for: one table, from which train and val take the parts of each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Task:
    """A kind of training: what comes of it, its recipe and its :class:`~numbanet.train.training.Training`, by module and name."""

    noun: str
    recipe_at: tuple[str, str]
    training_at: tuple[str, str]

    @property
    def recipe(self) -> type:
        return _found(*self.recipe_at)

    @property
    def training(self) -> type:
        return _found(*self.training_at)


USUAL = "classification"
TASKS = {
    "classification": Task("classifier", ("numbanet.train.recipe", "Recipe"), ("numbanet.train.classifier", "ClassifierTraining")),
    "segmentation": Task("segmenter", ("numbanet.train.recipe", "Recipe"), ("numbanet.segmentation.training", "SegmenterTraining")),
    "detection": Task("detector", ("numbanet.detection.recipe", "DetectorRecipe"), ("numbanet.detection.training", "DetectorTraining")),
}


def _found(module: str, name: str):
    return getattr(import_module(module), name)


def task_of(fields: dict, where: str) -> Task:
    """That of a recipe's fields, which stand in `where`; without any it is a classifier's."""
    from numbanet.errors import UsageError
    name = fields.get("task", USUAL)
    if not isinstance(name, str) or name not in TASKS:
        raise UsageError(f"{where}: task expects one of {', '.join(TASKS)}, received {name!r}")
    return TASKS[name]
