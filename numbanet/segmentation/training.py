"""The run of a segmenter: its model and data of a recipe, and how it is judged."""

from __future__ import annotations

from numbanet.data import DataLoader
from numbanet.errors import UsageError
from numbanet.segmentation.data import open_segmentation_data
from numbanet.segmentation.judging import SegmentationJudgement, draw_judgement, judge, made_metrics
from numbanet.segmentation.losses import segmentation_loss
from numbanet.train.recipe import Recipe
from numbanet.train.training import Prepared, Training, output_shape, prepare_model
from numbanet.zoo import model_info


def prepare(recipe: Recipe, watch=None) -> Prepared:
    """Open the data and make the model; `watch(iterator, total=...)` may show how many masks were read.

    Raises
    ------
    UsageError, DataError, CheckpointError
        An unknown model, layer or loss, a model that does not label pixels, data that cannot be used, weights of another model.
    """
    segmentation_loss(recipe.loss)
    prepared = prepare_model(recipe, open_segmentation_data(recipe, model_info(recipe.model), watch))
    size, classes = prepared.data.preprocessing.input_size, len(prepared.data.classes)
    shape = output_shape(prepared, recipe.device)
    if shape is not None and shape != (1, classes, *size[1:]):
        raise UsageError(f"{recipe.model}: expected a network that labels the pixels, (N, {classes}, {size[1]}, {size[2]}), received one "
                         f"that gives {shape}; use unet, or train a classifier: numbanet train {recipe.model}")
    prepared.metadata["task"] = "segmentation"
    return prepared


class SegmenterTraining(Training):
    """The run of a segmenter: its model gives (N, classes, H, W) logits, its data are (input, labels (H, W))."""

    measure = "iou"
    test_batch_size = 32
    watched_samples = 8
    prepare = staticmethod(prepare)

    @staticmethod
    def folder_name(recipe: Recipe) -> str:
        return "segmenter"

    @staticmethod
    def example(run) -> list[str]:
        return ["segment", str(run.path), str(next(iter(sorted(run.samples.glob("*.png"))), run.samples))]

    @property
    def loss(self):
        return segmentation_loss(self.recipe.loss)

    def make_metrics(self, classes: int) -> dict:
        return made_metrics(classes)

    def outcome(self):
        return self.trainer.val_metrics["confusion"]

    def described(self, outcome) -> list[str]:
        values = self.trainer.val_metrics
        each = dict(zip(self.classes, _of_classes(outcome.counts)))
        width = max(map(len, each))
        rows = [f"  {name:<{width}}  {'-' if value is None else f'{100 * value:6.2f}%'}" for name, value in each.items()]
        return [f"test mean IoU {100 * values['iou'].compute():.2f}% (best {100 * self.best:.2f}%), "
                f"{100 * values['accuracy'].compute():.2f}% of the pixels",
                "IoU of each class:", *rows]

    @staticmethod
    def judged(trainer, test, classes, recipe: Recipe) -> SegmentationJudgement:
        loader = DataLoader(test, SegmenterTraining.test_batch_size, num_workers=recipe.workers, on_error=recipe.on_error)
        return judge(trainer, loader, test, classes)

    draw = staticmethod(draw_judgement)


def _of_classes(counts) -> list[float | None]:
    """IoU of each class of a confusion matrix; None where it never occurs."""
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return [float(common / whole) if whole else None for common, whole in zip(counts.diagonal(), union)]
