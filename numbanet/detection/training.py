"""The run of a detector: a Trainer made of a recipe, mean average precision after each epoch, and what the run's folder holds."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from PIL import Image

import numbanet
from numbanet.data import DataLoader
from numbanet.detection.average_precision import AREAS, AveragePrecision, MeanAveragePrecision
from numbanet.detection.drawing import draw_objects
from numbanet.detection.losses import detection_loss
from numbanet.detection.preparing import Prepared
from numbanet.detection.recipe import DetectorRecipe
from numbanet.detection.samples import DetectorSamples
from numbanet.detection.selection import select
from numbanet.errors import CheckpointError
from numbanet.files import atomic_file
from numbanet.train.callbacks import BackupAndRestore, Callback
from numbanet.train.interruption import interruptible
from numbanet.train.run_directory import RunDirectory
from numbanet.train.trainer import Progress, Trainer
from numbanet.train.training import as_row
from numbanet.vision.composition import Cell, Section, compose, save_sheet
from numbanet.vision.draw import draw_panels
from numbanet.weights import save_weights

NOT_OF_THE_RUN = ("workers", "on_error", "device", "eager")             # what a run may go on with another value of
FIELDS = ("epoch", "step", "train_loss", "test_loss", "test_AP", "test_AP50", "test_AP75", "learning_rate", "seconds", "images_per_second",
          "waited", "skipped")
SHOWN = 12                                                              # test pictures drawn at the end


class DetectorTraining:
    """One run: a detector, its data, and a folder that it writes to.

    Parameters
    ----------
    prepared : Prepared
    recipe : DetectorRecipe
    run : RunDirectory
    callbacks : further callbacks, such as a progress bar
    """

    def __init__(self, prepared: Prepared, recipe: DetectorRecipe, run: RunDirectory, callbacks=()):
        self.prepared, self.recipe, self.run = prepared, recipe, run
        options = {"num_workers": recipe.workers, "seed": recipe.seed, "on_error": recipe.on_error}
        self.train_loader = DataLoader(prepared.train, recipe.batch_size, shuffle=True, drop_last=len(prepared.train) > recipe.batch_size,
                                       **options)
        self.test_loader = DataLoader(prepared.test, 2 * recipe.batch_size, **options)
        optimizer = recipe.make_optimizer(prepared.model)
        scheduler, interval = recipe.make_schedule(optimizer, -(-len(self.train_loader) // recipe.accumulate))
        asked = {name: value for name, value in asdict(recipe).items() if name not in NOT_OF_THE_RUN}
        asked["data"] = {"training pictures": len(prepared.train), "test pictures": len(prepared.test),
                         "classes": list(prepared.metadata["classes"])}
        self.backup = BackupAndRestore(run.checkpoints, recipe.checkpoint_every or "epoch", recipe.keep_checkpoints, "val_AP", mode="max",
                                       recipe=asked)
        self.judging = Judging(self.test_loader, len(prepared.metadata["classes"]))
        self.trainer = Trainer(prepared.model, detection_loss, optimizer, scheduler,
                               [self.judging, RunFiles(run, prepared.metadata), *callbacks, self.backup], compiled=not recipe.eager,
                               accumulate=recipe.accumulate, clip_norm=recipe.clip_norm, ema_decay=recipe.ema_decay,
                               scheduler_interval=interval)

    @property
    def progress(self) -> Progress:
        return self.trainer.progress

    @property
    def best(self) -> float:
        """The highest mean average precision on the test pictures so far."""
        return max((row["val_AP"] for row in self.progress.history), default=-1.0)

    def resume(self) -> None:
        """Go on from the newest checkpoint of the run."""
        self.trainer.train_loader, self.trainer.val_loader = self.train_loader, self.test_loader
        if self.backup.restore() is None:
            raise CheckpointError(f"resume: {self.run.checkpoints} holds no checkpoint")

    def fit(self) -> AveragePrecision | None:
        """Train to the last epoch and judge; None if Ctrl-C ended it first. Either way a checkpoint was written."""
        with interruptible(self.trainer):
            self.trainer.fit(self.train_loader, self.test_loader, self.recipe.epochs)
        if self.trainer.interrupted and self.progress.epoch < self.recipe.epochs:
            return None
        found, judged = self.judging.judge(tuple(AREAS))
        draw_found(self.run.path / "found.png", self.prepared.test, found, self.prepared.metadata["classes"])
        return judged


class Judging(Callback):
    """Mean average precision on the test pictures, as entries ``val_AP``, ``val_AP50`` and ``val_AP75`` of each epoch's logs."""

    def __init__(self, loader: DataLoader, num_classes: int):
        self.loader, self.num_classes = loader, num_classes

    def on_epoch_end(self, epoch, logs=None):
        values = self.judge()[1].values
        found = {f"val_{name}": values[name] for name in ("AP", "AP50", "AP75")}
        logs.update(found)
        self.trainer.progress.history[-1].update(found)

    def judge(self, areas: tuple[str, ...] = ("all",)) -> tuple[dict[int, dict], AveragePrecision]:
        """(what was found on each test picture, by its number, and what that is worth)."""
        metric, found, samples = MeanAveragePrecision(self.num_classes), {}, self.loader.dataset
        skipped = len(self.loader.skipped)
        outputs = [self.trainer.predict(x, batch_size=len(x)) for x, _ in self.loader]
        left_out = {error.index for error in self.loader.skipped[skipped:]}
        numbers = (i for i in range(len(samples)) if i not in left_out)
        for raw in outputs:
            for boxes, scores in zip(*(part.numpy() for part in self.trainer.model.decode(numbanet.tensor(raw)))):
                number = next(numbers)
                found[number] = select(boxes, scores)
                metric.update(found[number], samples.truth(number)[1])
        return found, metric.compute(areas)


class RunFiles(Callback):
    """Weights, the table of epochs and their curves, after each epoch."""

    only_first = True

    def __init__(self, run: RunDirectory, metadata: dict):
        self.run, self.metadata = run, metadata

    def on_epoch_end(self, epoch, logs=None):
        history = [as_row(row) for row in self.trainer.progress.history]
        values = [row["test_AP"] for row in history]
        self.trainer.check_finite()
        if values[-1] > max(values[:-1], default=-2.0):
            self._save_weights("best", values[-1])
        self._save_weights("last", values[-1])
        self.run.write_metrics(history, FIELDS)
        draw_panels(self.run.path / "curves.png", [row["epoch"] for row in history], [
            ("loss", [[row[name] for row in history] for name in ("train_loss", "test_loss")], ("training", "test")),
            ("1 - average precision, %", [[100 * (1 - row[name]) for row in history] for name in ("test_AP", "test_AP50")],
             ("at 0.5 to 0.95", "at 0.5"))])

    def _save_weights(self, name: str, precision: float) -> None:
        ema, model = self.trainer.ema, self.trainer.model
        save_weights(self.run.weights / f"{name}.safetensors", model.state_dict() if ema is None else ema.averaged_state_dict(),
                     {**self.metadata, "test_AP": precision})


def draw_found(path, samples: DetectorSamples, found: dict[int, dict], classes) -> None:
    """`found.png`: some test pictures with what was found on them."""
    cells = []
    for number in list(found)[:SHOWN]:
        sure = found[number]["scores"] >= 0.3
        objects = {name: values[sure] for name, values in found[number].items()}
        picture = draw_objects(Image.fromarray(samples.truth(number)[0]), objects, classes)
        cells.append(Cell(np.asarray(picture), (f"{len(samples.truth(number)[1]['boxes'])} there, {sure.sum()} found",), smooth=True))
    save_sheet(path, compose("What it finds", ["Test pictures, with all that has a score of 0.3 or more."],
                             [Section(cells, "", 4)]))


def save_samples(folder, samples: DetectorSamples, count: int = 8) -> None:
    """Keep some test pictures as PNGs, to try detection on."""
    for number in range(min(count, len(samples))):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / f"{number:03d}.png") as temporary:
            Image.fromarray(samples.truth(number)[0]).save(temporary, "PNG")
