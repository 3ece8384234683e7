"""Training of a classifier: epochs, evaluation, checkpoints, a clean end."""

from __future__ import annotations

import itertools
import math
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

import numbanet
from numbanet import optim
from numbanet.data import DataLoader
from numbanet.errors import CheckpointError, TrainingError, UnsupportedOperationError, UsageError
from numbanet.nn import functional as F
from numbanet.nn.utils import clip_grad_norm_
from numbanet.random import get_rng_state, set_rng_state
from numbanet.train.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from numbanet.train.metrics import ConfusionMatrix
from numbanet.train.run_directory import RunDirectory
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


@dataclass
class Progress:
    """Where a run stands; stored in checkpoints."""

    epoch: int = 0                  # the epoch that is running, from 0
    batch: int = 0                  # batches of it that are done
    step: int = 0
    best: float = -1.0
    loss_sum: float = 0.0           # of this epoch
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)


class ClassifierTraining:
    """One run: a model, its data, and a folder that it writes to.

    Parameters
    ----------
    model : Module giving (N, classes) logits
    train, test : datasets of (input, label)
    settings : Settings
    run : RunDirectory
    metadata : dict stored in the weights: model name, classes, preprocessing
    reporter : object with `epoch_started(progress, batches)`, `batch_done(progress)`, `epoch_ended(row)`
    """

    def __init__(self, model, train, test, settings: Settings, run: RunDirectory, metadata: dict, reporter):
        self.model, self.settings, self.run, self.metadata, self.reporter = model, settings, run, metadata, reporter
        self.device = settings.device
        self.loss_function = getattr(model, "loss_function", F.cross_entropy)
        self.train_loader = DataLoader(train, settings.batch_size, shuffle=True, num_workers=settings.workers, seed=settings.seed)
        self.test_loader = DataLoader(test, max(settings.batch_size, 250), num_workers=settings.workers, seed=settings.seed)
        kind, default_lr, options = OPTIMIZERS[settings.optimizer]
        lr = settings.lr if settings.lr is not None else default_lr
        self.optimizer = kind(model.parameters(), lr=lr, **options)
        self.scheduler = optim.lr_scheduler.OneCycleLR(self.optimizer, lr, epochs=settings.epochs,
                                                       steps_per_epoch=len(self.train_loader), cycle_momentum=False)
        self._parameters = list(model.parameters())
        self._compiled = None
        self.progress = Progress()
        self.interrupted = False

    def resume(self) -> None:
        """Go on from the newest checkpoint of the run."""
        numbers = load_checkpoint(self.run.checkpoints, self.model, self.optimizer, self.scheduler)
        try:
            self.progress = Progress(**numbers["progress"])
            set_rng_state(tuple(numbers["random"]))
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"resume: the checkpoint is of another version of numbanet ({error})") from error

    def fit(self) -> ConfusionMatrix | None:
        """Train to the last epoch; None if Ctrl-C ended it first. Either way a checkpoint was written."""
        confusion = None
        with self._interruptible():
            while self.progress.epoch < self.settings.epochs:
                if not self._epoch():
                    self.checkpoint()
                    return None
                confusion = self._finish_epoch()
                if self.interrupted and self.progress.epoch < self.settings.epochs:
                    return None
        return self.evaluate()[1] if confusion is None else confusion       # a finished run has nothing left to train

    def _epoch(self) -> bool:
        """The rest of the running epoch; False if it was interrupted before its last batch."""
        p, batches = self.progress, len(self.train_loader)
        self.model.train()
        self.train_loader.set_epoch(p.epoch)
        self.reporter.epoch_started(p, batches)
        started, before = time.perf_counter(), p.seconds
        for images, labels in itertools.islice(self.train_loader, p.batch, None):
            loss, correct = self.train_step(images, labels)
            p.batch, p.step = p.batch + 1, p.step + 1
            p.loss_sum, p.correct, p.seen = p.loss_sum + loss * len(images), p.correct + correct, p.seen + len(images)
            p.seconds = before + time.perf_counter() - started
            self.reporter.batch_done(p)
            if self.interrupted and p.batch < batches:
                return False
        return True

    def train_step(self, images, labels) -> tuple[float, int]:
        """One update; returns the loss and how many of the batch were right.

        Raises
        ------
        TrainingError
            The loss is NaN or infinite; parameters are as they were before the step.
        UnsupportedOperationError
            The step cannot be compiled, because the model reads values of its tensors; ``eager=True`` runs it.
        """
        images, labels = images.to(self.device), labels.to(self.device)
        self.optimizer.zero_grad()
        if self.settings.eager:
            loss, logits = self._loss_and_logits(self.model(images), labels)
            loss.backward()
        else:
            loss, logits = self._compiled_step(images, labels).forward_backward(images, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise self._diverged("the loss", value, self.progress.step + 1)
        clip_grad_norm_(self._parameters, MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.scheduler.step()
        return value, int((logits.detach().numpy().argmax(1) == labels.numpy()).sum())

    def _compiled_step(self, images, labels):
        if self._compiled is None:
            try:
                self._compiled = numbanet.compile(self.model, (images, labels), loss=self._loss_and_logits, optimizer=self.optimizer)
            except UnsupportedOperationError as error:
                raise UnsupportedOperationError(f"{error}. The training step of {type(self.model).__name__} cannot be compiled: "
                                                "--eager records each step anew") from error
        return self._compiled

    def _loss_and_logits(self, outputs, labels):
        return self.loss_function(outputs, labels), outputs[0] if isinstance(outputs, tuple) else outputs   # auxiliary heads follow

    def evaluate(self) -> tuple[float, ConfusionMatrix]:
        """Mean loss and confusion matrix on the test images."""
        confusion, total, count = ConfusionMatrix(len(self.metadata["classes"])), 0.0, 0
        self.model.eval()
        with numbanet.no_grad():
            for images, labels in self.test_loader:
                images, labels = images.to(self.device), labels.to(self.device)
                logits = self.model(images)
                total += self.loss_function(logits, labels).item() * len(images)
                count += len(images)
                confusion.update(logits.numpy().argmax(1), labels.numpy())
        return total / max(count, 1), confusion

    def _diverged(self, what: str, value: float, step: int) -> TrainingError:
        kept = list_checkpoints(self.run.checkpoints)
        good = f"the last good checkpoint is kept: {kept[-1]}" if kept else "there was no checkpoint yet"
        return TrainingError(f"{what} became {value} at step {step} (epoch {self.progress.epoch + 1}); {good}. "
                             "A smaller --lr usually helps")

    def _finish_epoch(self) -> ConfusionMatrix:
        p = self.progress
        test_loss, confusion = self.evaluate()
        if not math.isfinite(test_loss):
            raise self._diverged("the test loss", test_loss, p.step)
        row = {"epoch": p.epoch + 1, "step": p.step, "train_loss": p.loss_sum / p.seen, "train_accuracy": p.correct / p.seen,
               "test_loss": test_loss, "test_accuracy": confusion.accuracy, "learning_rate": self.optimizer.param_groups[0]["lr"],
               "seconds": round(p.seconds, 3), "images_per_second": round(p.seen / max(p.seconds, 1e-9), 1)}
        p.history.append(row)
        p.epoch, p.batch, p.loss_sum, p.correct, p.seen, p.seconds = p.epoch + 1, 0, 0.0, 0, 0, 0.0
        if confusion.accuracy > p.best:
            p.best = confusion.accuracy
            self._save_weights("best")
        self.checkpoint()
        self._save_weights("last")
        self.run.write_metrics(p.history)
        draw_curves(self.run.path / "curves.png", p.history)
        self.reporter.epoch_ended(row)
        return confusion

    def checkpoint(self) -> None:
        """Write everything that going on needs.

        Raises
        ------
        TrainingError
            A parameter is not finite: the last step made it so, and earlier checkpoints are worth more.
        """
        for name, parameter in self.model.named_parameters():
            if not np.isfinite(parameter.detach().numpy()).all():
                raise self._diverged(name, math.nan, self.progress.step)
        save_checkpoint(self.run.checkpoints, self.progress.step, self.model, self.optimizer, self.scheduler,
                        {"progress": vars(self.progress), "random": list(get_rng_state())})

    def _save_weights(self, name: str) -> None:
        save_weights(self.run.weights / f"{name}.safetensors", self.model.state_dict(),
                     {**self.metadata, "test_accuracy": self.progress.history[-1]["test_accuracy"]})

    @contextmanager
    def _interruptible(self):
        """Ctrl-C lets the step end and is then obeyed; a second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(_number, _frame):
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
        previous = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
