"""The run of a classifier: a Trainer, and callbacks that fill the run's folder."""

from __future__ import annotations

import math
from dataclasses import dataclass

from numbanet import optim
from numbanet.data import DataLoader
from numbanet.errors import CheckpointError, UsageError
from numbanet.train.callbacks import BackupAndRestore, Callback
from numbanet.train.interruption import interruptible
from numbanet.train.metrics import Accuracy, ConfusionMatrix
from numbanet.train.run_directory import RunDirectory
from numbanet.train.trainer import Progress, Trainer
from numbanet.vision.draw import draw_curves
from numbanet.weights import save_weights

OPTIMIZERS = {
    "adamw": (optim.AdamW, 4e-3, {"weight_decay": 1e-2}),
    "adam": (optim.Adam, 4e-3, {}),
    "sgd": (optim.SGD, 8e-2, {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    "rmsprop": (optim.RMSprop, 1e-3, {"momentum": 0.9}),
}

MAX_GRADIENT_NORM = 1.0     # longer ones are shortened: at the top of the one-cycle, one bad batch could throw a run off


@dataclass
class Settings:
    """What a run is asked for; written into its config.yaml."""

    model: str
    data: str | None = None
    epochs: int = 25
    batch_size: int = 64
    lr: float | None = None
    optimizer: str = "sgd"
    device: str = "cpu"
    seed: int = 0
    val_fraction: float = 0.2
    distort: bool = True
    workers: int = 0
    eager: bool = False             # record each step on the tape instead of replaying a compiled one

    def __post_init__(self):
        for name, minimum in (("epochs", 1), ("batch_size", 1), ("workers", 0)):
            if getattr(self, name) < minimum:
                raise UsageError(f"--{name.replace('_', '-')}: expected at least {minimum}, received {getattr(self, name)}")
        if self.lr is not None and not (0 < self.lr < math.inf):
            raise UsageError(f"--lr: expected a number above 0, received {self.lr}")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"--optimizer: expected one of {', '.join(OPTIMIZERS)}, received {self.optimizer!r}")


class ClassifierTraining:
    """One run: a model, its data, and a folder that it writes to.

    Parameters
    ----------
    model : Module giving (N, classes) logits
    train, test : datasets of (input, label)
    settings : Settings
    run : RunDirectory
    metadata : dict stored in the weights: model name, classes, preprocessing
    callbacks : further callbacks, such as a progress bar
    """

    def __init__(self, model, train, test, settings: Settings, run: RunDirectory, metadata: dict, callbacks=()):
        self.settings, self.run = settings, run
        self.train_loader = DataLoader(train, settings.batch_size, shuffle=True, num_workers=settings.workers, seed=settings.seed)
        self.test_loader = DataLoader(test, max(settings.batch_size, 250), num_workers=settings.workers, seed=settings.seed)
        kind, default_lr, options = OPTIMIZERS[settings.optimizer]
        lr = settings.lr if settings.lr is not None else default_lr
        optimizer = kind(model.parameters(), lr=lr, **options)
        scheduler = optim.lr_scheduler.OneCycleLR(optimizer, lr, epochs=settings.epochs, steps_per_epoch=len(self.train_loader),
                                                  cycle_momentum=False)
        self.backup = BackupAndRestore(run.checkpoints, monitor="val_accuracy")
        metrics = {"accuracy": Accuracy(), "confusion": ConfusionMatrix(len(metadata["classes"]))}
        self.trainer = Trainer(model, None, optimizer, scheduler, [RunFiles(run, metadata), *callbacks, self.backup], metrics=metrics,
                               compiled=not settings.eager, clip_norm=MAX_GRADIENT_NORM)

    @property
    def progress(self) -> Progress:
        return self.trainer.progress

    @property
    def best(self) -> float:
        """The best accuracy on the test images so far."""
        return max((row["val_accuracy"] for row in self.progress.history), default=-1.0)

    def resume(self) -> None:
        """Go on from the newest checkpoint of the run."""
        self.trainer.train_loader, self.trainer.val_loader = self.train_loader, self.test_loader
        if self.backup.restore() is None:
            raise CheckpointError(f"resume: {self.run.checkpoints} holds no checkpoint")

    def fit(self) -> ConfusionMatrix | None:
        """Train to the last epoch; None if Ctrl-C ended it first. Either way a checkpoint was written."""
        epochs = self.progress.epoch
        with interruptible(self.trainer):
            self.trainer.fit(self.train_loader, self.test_loader, self.settings.epochs)
        if self.trainer.interrupted and self.progress.epoch < self.settings.epochs:
            return None
        if self.progress.epoch == epochs:                   # a finished run has nothing left to train
            self.trainer.evaluate(self.test_loader)
        return self.trainer.val_metrics["confusion"]


class RunFiles(Callback):
    """Weights, the table of epochs and their curves, after each epoch."""

    def __init__(self, run: RunDirectory, metadata: dict):
        self.run, self.metadata = run, metadata

    def on_epoch_end(self, epoch, logs=None):
        history = [as_row(row) for row in self.trainer.progress.history]
        accuracies = [row["test_accuracy"] for row in history]
        self.trainer.check_finite()
        if accuracies[-1] > max(accuracies[:-1], default=-1.0):
            self._save_weights("best", accuracies[-1])
        self._save_weights("last", accuracies[-1])
        self.run.write_metrics(history)
        draw_curves(self.run.path / "curves.png", history)

    def _save_weights(self, name: str, accuracy: float) -> None:
        ema, model = self.trainer.ema, self.trainer.model
        save_weights(self.run.weights / f"{name}.safetensors", model.state_dict() if ema is None else ema.averaged_state_dict(),
                     {**self.metadata, "test_accuracy": accuracy})


def as_row(logs: dict) -> dict:
    """An epoch's entry of the history with the names of ``metrics.csv``."""
    row = {}
    for name, value in logs.items():
        if name in ("epoch", "step", "learning_rate", "seconds"):
            row[name] = value
        elif name == "samples_per_second":
            row["images_per_second"] = value
        else:
            row[f"test_{name.removeprefix('val_')}" if name.startswith("val_") else f"train_{name}"] = value
    return row
