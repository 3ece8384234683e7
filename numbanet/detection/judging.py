"""A trained detector on the test pictures: COCO's numbers, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

import numbanet
from numbanet.data import DataLoader
from numbanet.detection.average_precision import AREAS, AveragePrecision, MeanAveragePrecision
from numbanet.detection.drawing import draw_objects
from numbanet.detection.selection import SURE, select
from numbanet.train.trainer import Trainer
from numbanet.vision.composition import Cell, Section, compose, save_sheet

SHOWN = 12           # test pictures that are drawn
WIDTH = 78


@dataclass
class DetectionJudgement:
    """What :func:`judge` found.

    Attributes
    ----------
    precision : AveragePrecision
    found : dict from a test picture's number to its objects: boxes, scores, labels
    """

    precision: AveragePrecision
    found: dict[int, dict]

    drawn = ("found.png",)

    @property
    def values(self) -> dict[str, float]:
        """COCO's numbers, without those that there is nothing to judge by."""
        return {name: value for name, value in self.precision.values.items() if value >= 0}

    @property
    def count(self) -> int:
        """Test pictures that were judged."""
        return len(self.found)

    def facts(self) -> dict:
        """As plain values: -1 is what there is nothing to judge by, as in pycocotools."""
        per_class = self.precision.per_class
        return {**self.precision.values, "images": self.count, "per_class": [per_class[k] for k in sorted(per_class)]}

    def lines(self, classes: Sequence[str]) -> list[str]:
        """In words: COCO's numbers, and those of the classes in columns."""
        values, per_class = self.precision.values, self.precision.per_class
        told = [f"mean average precision {_percent(values['AP'])} (at 0.5 {_percent(values['AP50'])}, at 0.75 {_percent(values['AP75'])})",
                "by area  " + ", ".join(f"{name} {_percent(values[f'AP{name[0]}'])}" for name in ("small", "medium", "large")),
                "recall with 1, 10 and 100 a picture  " + ", ".join(_percent(values[f"AR{most}"]) for most in (1, 10, 100)),
                "average precision of each class:"]
        width = max(map(len, classes))
        columns = max(1, WIDTH // (width + 10))
        cells = [f"{name.ljust(width)} {_percent(per_class[k]):>7}" for k, name in enumerate(classes)]
        return told + ["  " + "  ".join(cells[i:i + columns]) for i in range(0, len(cells), columns)]


def _percent(value: float) -> str:
    return "-" if value < 0 else f"{100 * value:.2f}%"


def judge(trainer: Trainer, loader: DataLoader, num_classes: int, areas: tuple[str, ...] = tuple(AREAS)) -> DetectionJudgement:
    """Run test pictures through a trainer's model once; those that cannot be loaded are left out as `loader` says.

    Of several processes, each runs its part; what was found is put together in the pictures' order, so that all come to the same.

    Parameters
    ----------
    loader : DataLoader of DetectorSamples, in their order
    areas : of which ranges; the values of others are left out
    """
    samples, skipped = loader.dataset, len(loader.skipped)
    outputs = [trainer.predict(x, batch_size=len(x)) for x, _ in loader]
    left_out = {error.index for error in loader.skipped[skipped:]}
    numbers = (number for batch in loader.batch_sampler for number in batch if number not in left_out)
    pictures = []
    for raw in outputs:
        for boxes, scores in zip(*(part.numpy() for part in trainer.model.decode(numbanet.tensor(raw)))):
            number = next(numbers)
            pictures.append((number, select(boxes, scores), samples.truth(number)[1]))
    if trainer.replicas is not None and trainer.replicas.shards(loader):
        pictures = sorted(trainer.replicas.gather(pictures), key=lambda picture: picture[0])
    metric = MeanAveragePrecision(num_classes)
    for _, found, truth in pictures:
        metric.update(found, truth)
    return DetectionJudgement(metric.compute(areas), {number: found for number, found, _ in pictures})


def draw_judgement(folder, judgement: DetectionJudgement, samples, classes: Sequence[str]) -> None:
    """`found.png`: some test pictures with what was found on them."""
    cells = []
    for number, found in list(judgement.found.items())[:SHOWN]:
        pixels, truth = samples.truth(number)
        sure = found["scores"] >= SURE
        picture = draw_objects(Image.fromarray(pixels), {name: values[sure] for name, values in found.items()}, classes)
        cells.append(Cell(np.asarray(picture), (f"{len(truth['boxes'])} there, {sure.sum()} found",), smooth=True))
    save_sheet(folder / "found.png", compose("What it finds", [f"Test pictures, with all that has a score of {SURE} or more."],
                                             [Section(cells, "", 4)]))
