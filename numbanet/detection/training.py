"""The run of a detector: its model and data of a recipe, and mean average precision after each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from numbanet.data import DataLoader
from numbanet.detection import preparing
from numbanet.detection.coco import CocoPictures, find_splits
from numbanet.detection.judging import DetectionJudgement, draw_judgement, judge
from numbanet.detection.losses import detection_loss
from numbanet.detection.recipe import DetectorRecipe
from numbanet.detection.samples import DetectorSamples
from numbanet.detection.targets import BACKGROUND
from numbanet.errors import DataError
from numbanet.files import atomic_file
from numbanet.train.callbacks import Callback
from numbanet.train.classifier_data import check_pictures
from numbanet.train.training import Prepared, Training
from numbanet.vision.draw import draw_panels

LOGGED = ("AP", "AP50", "AP75")         # of every epoch


@dataclass
class DetectionData:
    """Samples to train on and to judge by, with what describes them."""

    train: DetectorSamples
    test: DetectorSamples
    classes: tuple[str, ...]
    description: str

    def save_samples(self, folder: Path, count: int = 8) -> None:
        """Keep test pictures as PNGs, to try detection on."""
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(min(count, len(self.test))):
            try:
                picture = Image.fromarray(self.test.truth(number)[0])
            except DataError:               # on_error="skip", or it was whole a moment ago
                continue
            with atomic_file(folder / f"{number:03d}.png") as temporary:
                picture.save(temporary, "PNG")


def prepare(recipe: DetectorRecipe, watch=None, find=find_splits) -> Prepared:
    """Open the data and make the model.

    Headers of images in files are looked at here, so that training does not meet one of another size, or none at all; `watch(iterator,
    total=...)` may show how many. With `on_error` "skip" broken ones are told of and stay, for the loader to leave out.

    Parameters
    ----------
    find : callable
        Gives the two splits of a folder with COCO's annotations.

    Raises
    ------
    UsageError, DataError, CheckpointError
        An unknown trunk, data that cannot be used, weights of another model.
    """
    made = preparing.prepare(recipe, find)
    files = [part for part in (made.train.dataset, made.test.dataset) if isinstance(part, CocoPictures)]
    for pictures, purpose in zip(files, ("to learn", "to judge by")):
        if not pictures.count_boxes():
            raise DataError(f"{pictures.path}: expected objects {purpose}, received none on its {len(pictures):,} pictures")
    check_pictures(files, watch, recipe.on_error)
    classes = tuple(made.metadata["classes"])
    description = f"{made.description}\n      {len(classes)} classes, {recipe.size} x {recipe.size} pixels"
    return Prepared(made.model, DetectionData(made.train, made.test, classes, description), made.metadata)


class DetectorTraining(Training):
    """The run of a detector: its model gives (N, P, classes + 5), its data are (input, dense targets (P, 5))."""

    measure = "AP"
    loss = staticmethod(detection_loss)
    watched_samples = 4
    drops_last = True
    columns = ("epoch", "step", "train_loss", "test_loss", *(f"test_{name}" for name in LOGGED), "learning_rate", "seconds",
               "images_per_second", "waited", "skipped")
    counted = "pictures"
    prepare = staticmethod(prepare)

    @staticmethod
    def prepare_test(recipe: DetectorRecipe) -> Prepared:
        return prepare(recipe, find=lambda folder: 2 * find_splits(folder, ("val",)))

    @staticmethod
    def network(recipe: DetectorRecipe) -> str:
        return recipe.trunk

    @staticmethod
    def title(recipe: DetectorRecipe) -> str:
        return f"detector on {recipe.trunk}"

    @staticmethod
    def folder_name(recipe: DetectorRecipe) -> str:
        return "detector"

    @staticmethod
    def example(run) -> list[str]:
        return ["detect", str(run.path), str(run.samples), "-o", "found"]

    @classmethod
    def told(cls, logs: dict) -> str:
        return f"loss {logs['loss']:.3f}"

    @classmethod
    def line(cls, row: dict) -> str:
        return (f"loss {row['train_loss']:.3f}, test loss {row['test_loss']:.3f}, AP {100 * row['test_AP']:.2f}% "
                f"(at 0.5 {100 * row['test_AP50']:.2f}%)")

    @classmethod
    def draw_curves(cls, path, history: list[dict]) -> None:
        draw_panels(path, [row["epoch"] for row in history], [
            ("loss", [[row[name] for row in history] for name in ("train_loss", "test_loss")], ("training", "test")),
            ("1 - average precision, %", [[100 * (1 - row[name]) for row in history] for name in ("test_AP", "test_AP50")],
             ("at 0.5 to 0.95", "at 0.5"))])

    def tested_at_once(self, batch_size: int) -> int:
        return 2 * batch_size

    @staticmethod
    def weigh(y) -> int:
        """The positions that answer for a box, over which the loss is a mean."""
        return max(1, int((y.numpy()[:, :, 0] > BACKGROUND).sum()))

    def make_metrics(self, classes: int) -> dict:
        return {}

    def judging_callbacks(self) -> list[Callback]:
        return [Judging(self.test_loader, len(self.classes))]

    def outcome(self) -> DetectionJudgement:
        return judge(self.trainer, self.test_loader, len(self.classes))

    def judgement(self, outcome: DetectionJudgement) -> DetectionJudgement:
        return outcome

    def described(self, outcome: DetectionJudgement) -> list[str]:
        ap = outcome.precision.values["AP"]
        return [f"test average precision {100 * ap:.2f}% (best {100 * self.best:.2f}%)", *outcome.lines(self.classes)]

    @staticmethod
    def judged(trainer, test, classes, recipe: DetectorRecipe) -> DetectionJudgement:
        loader = DataLoader(test, 2 * recipe.batch_size, num_workers=recipe.workers, seed=recipe.seed, on_error=recipe.on_error)
        return judge(trainer, loader, len(classes))

    draw = staticmethod(draw_judgement)


class Judging(Callback):
    """Mean average precision on the test pictures, as entries ``val_AP``, ``val_AP50`` and ``val_AP75`` of each epoch's logs."""

    def __init__(self, loader: DataLoader, num_classes: int):
        self.loader, self.num_classes = loader, num_classes

    def on_epoch_end(self, epoch, logs=None):
        values = judge(self.trainer, self.loader, self.num_classes, ("all",)).precision.values
        found = {f"val_{name}": values[name] for name in LOGGED}
        logs.update(found)
        self.trainer.progress.history[-1].update(found)
