"""The data of a detector's run: scenes made up, or pictures with COCO's annotations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from numbanet.data.datasets import DigitScenes, SyntheticScenes
from numbanet.data.datasets.mnist import find_idx
from numbanet.detection.coco import CocoPictures, find_splits
from numbanet.detection.model import Detector, detector
from numbanet.detection.recipe import TASK, DetectorRecipe
from numbanet.detection.samples import DetectorSamples, Fitting
from numbanet.detection.targets import Levels, strides_for
from numbanet.errors import DataError, UsageError
from numbanet.random import seed_everything
from numbanet.zoo import model_info


@dataclass
class Prepared:
    """A detector and its data, as a recipe asks for them."""

    model: Detector
    train: DetectorSamples
    test: DetectorSamples
    metadata: dict              # stored in the weights
    description: str


def prepare(recipe: DetectorRecipe, find=find_splits) -> Prepared:
    """Open the data and make the model; `find(folder)` gives the two splits of a folder with COCO's annotations.

    Raises
    ------
    UsageError, DataError, CheckpointError
        An unknown trunk, data that cannot be used, weights of another model.
    """
    model_info(recipe.trunk)
    train, test, classes, description = open_data(recipe, find)
    strides = tuple(recipe.strides) or strides_for(recipe.size)
    fitting, levels = Fitting((recipe.size, recipe.size)), Levels((recipe.size, recipe.size), strides)
    seed_everything(recipe.seed)
    try:
        model = detector(recipe.trunk, len(classes), strides=strides, channels=recipe.channels,
                         convolutions=recipe.convolutions, weights=recipe.weights, **recipe.trunk_options).to(recipe.device)
    except TypeError as error:
        raise UsageError(f"--trunk-options: {recipe.trunk} cannot be made of {recipe.trunk_options} ({error})") from None
    metadata = {"task": TASK, "trunk": recipe.trunk, "trunk_options": recipe.trunk_options, "classes": list(classes),
                "strides": list(strides), "channels": recipe.channels, "convolutions": recipe.convolutions,
                "fitting": fitting.as_metadata()}
    return Prepared(model, DetectorSamples(train, fitting, levels, recipe.make_augmentation()), DetectorSamples(test, fitting, levels),
                    metadata, description)


def open_data(recipe: DetectorRecipe, find=find_splits) -> tuple:
    """(training pictures, test pictures, names of the classes, lines that describe them)."""
    folder = None if recipe.data is None else Path(recipe.data)
    if folder is not None and not folder.is_dir():
        raise DataError(f"--data: {folder} is no folder; expected COCO's annotations and pictures, or MNIST's files")
    if folder is not None and find_idx(folder, True)[0] is None:
        splits = find(folder)
        train, test = (CocoPictures(*split) for split in splits)
        if train.classes != test.classes:
            raise DataError(f"{folder}: training and test annotations expect the same categories, received {', '.join(train.classes)} and "
                            f"{', '.join(test.classes)}")
        return train, test, train.classes, f"{folder} (COCO)\n      {_counted(train)} to train on, {_counted(test)} to judge by"
    options = {"size": recipe.size, "seed": recipe.seed, "target": "detection", "anew": recipe.scenes_anew}
    if recipe.scenes == "digits":
        made = [DigitScenes(count, train=train, root=folder, **options)
                for count, train in ((recipe.train_scenes, True), (recipe.test_scenes, False))]
        source = "the MNIST sample of the package" if folder is None else str(folder)
        what = f"scenes of digits from {source}"
    else:
        if folder is not None:
            raise DataError(f"--data: {folder} holds digits, which scenes of shapes have no use for; leave it out")
        made = [SyntheticScenes(count, train=train, **options)
                for count, train in ((recipe.train_scenes, True), (recipe.test_scenes, False))]
        what = "scenes of shapes"
    each = "an epoch" if recipe.scenes_anew else "to train on"
    return *made, made[0].classes, f"{what}\n      {len(made[0]):,} {each}, {len(made[1]):,} to judge by"


def _counted(pictures: CocoPictures) -> str:
    return f"{len(pictures):,} pictures with {pictures.count_boxes():,} objects"
