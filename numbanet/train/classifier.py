"""The run of a classifier: its model and data of a recipe, and how it is judged."""

from __future__ import annotations

from numbanet.errors import UsageError
from numbanet.train.classifier_data import open_classifier_data
from numbanet.train.judging import Judgement, draw_judgement, judge
from numbanet.train.metrics import Accuracy, ConfusionMatrix
from numbanet.train.recipe import Recipe
from numbanet.train.training import Prepared, Training, output_shape, prepare_model
from numbanet.zoo import model_info


def prepare(recipe: Recipe, watch=None) -> Prepared:
    """Open the data and make the model; `watch(iterator, total=...)` may show how many pictures were read.

    Raises
    ------
    UsageError, DataError, CheckpointError
        An unknown model or layer, data that cannot be used, weights of another model.
    """
    info = model_info(recipe.model)
    data = open_classifier_data(recipe.data, info, recipe.val_fraction, recipe.seed, recipe.make_distortions(), watch,
                                recipe.train_transforms, recipe.resize, recipe.on_error)
    prepared = prepare_model(recipe, data)
    if (shape := output_shape(prepared, recipe.device)) is not None and shape != (1, len(data.classes)):
        raise UsageError(f"{recipe.model}: expected a network that names what is on a picture, (N, {len(data.classes)}), received one that "
                         f"gives {shape}" + ("; to label pixels: numbanet train segmenter" if len(shape) == 4 else ""))
    return prepared


class ClassifierTraining(Training):
    """The run of a classifier: its model gives (N, classes) logits, its data are (input, label)."""

    measure = "accuracy"
    prepare = staticmethod(prepare)

    def make_metrics(self, classes: int) -> dict:
        metrics = {"accuracy": Accuracy(), "confusion": ConfusionMatrix(classes)}
        if classes > 10:
            metrics["top5"] = Accuracy(top_k=5)
        return metrics

    def outcome(self) -> ConfusionMatrix:
        return self.trainer.val_metrics["confusion"]

    def described(self, outcome: ConfusionMatrix) -> list[str]:
        return [f"test accuracy {100 * outcome.accuracy:.2f}% (best {100 * self.best:.2f}%)",
                "confusion matrix, a row for each true class:", outcome.table(self.classes)]

    @staticmethod
    def judged(trainer, test, classes, recipe: Recipe) -> Judgement:
        batch_size = max(recipe.batch_size, ClassifierTraining.test_batch_size)
        return judge(trainer, test, classes, batch_size, recipe.workers, recipe.on_error)

    draw = staticmethod(draw_judgement)
