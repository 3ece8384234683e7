"""A training run, whatever is learned: a Trainer made of a recipe, and callbacks that fill the run's folder."""

from __future__ import annotations

from dataclasses import dataclass

import numbanet
from numbanet.data import DataLoader, RandomSampler, SequentialSampler
from numbanet.data.dataset import sample_path
from numbanet.errors import CheckpointError, UnsupportedOperationError
from numbanet.graph import trace
from numbanet.nn import SyncBatchNorm
from numbanet.random import seed_everything
from numbanet.train.callbacks import BackupAndRestore, Callback, EarlyStopping
from numbanet.train.freezing import freeze_until
from numbanet.train.interruption import interruptible
from numbanet.train.layer_statistics import LayerStatistics
from numbanet.train.recipe import Recipe
from numbanet.train.report import write_report
from numbanet.train.run_directory import RunDirectory
from numbanet.train.trainer import Progress, Trainer
from numbanet.vision.draw import draw_curves
from numbanet.vision.training import draw_filters, draw_layers
from numbanet.weights import save_weights
from numbanet.zoo import create_model

NOT_OF_THE_RUN = ("workers", "on_error", "device", "eager", "source")       # what a run may go on with another value of


class Training:
    """One run: a model, its data, and a folder that it writes to. What is learned, a subclass says.

    Attributes
    ----------
    measure : str, of the class
        Of the logs: what an epoch is judged by; the larger the better. :data:`~numbanet.train.recipe.MEASURES` has its name in words.
    verb : str, of the class
        Of the command line, that uses what was trained.
    loss : of the class
        See :class:`Trainer`.
    test_batch_size : int, of the class
        Of the test images, at least.
    watched_samples : int, of the class
        Of the batch that :class:`LayerStatistics` looks at.

    Parameters
    ----------
    model : Module
    train, test : datasets of (input, target)
    recipe : Recipe
    run : RunDirectory
    metadata : dict stored in the weights: model name, classes, preprocessing
    callbacks : further callbacks, such as a progress bar
    replicas : Replicas, optional
    """

    measure: str
    verb = "predict"
    loss = None
    test_batch_size = 250
    watched_samples = 64

    def __init__(self, model, train, test, recipe: Recipe, run: RunDirectory, metadata: dict, callbacks=(), replicas=None):
        self.recipe, self.run = recipe, run
        options = {"num_workers": recipe.workers, "seed": recipe.seed, "on_error": recipe.on_error}
        if recipe.device.startswith("cuda") and recipe.on_error == "raise":
            options |= {"pin_memory": True, "pin_memory_device": recipe.device}
        self.replicas, tested = replicas, max(recipe.batch_size, self.test_batch_size)
        if replicas is None:
            self.train_loader = DataLoader(train, recipe.batch_size, shuffle=True, **options)
            self.test_loader = DataLoader(test, tested, **options)
        else:                                   # batch_size is that of all processes together
            self.train_loader = DataLoader(train, batch_sampler=replicas.batches(RandomSampler(train), recipe.batch_size), **options)
            self.test_loader = DataLoader(test, batch_sampler=replicas.batches(SequentialSampler(test), tested, repeat=False), **options)
        classes = len(metadata["classes"])
        optimizer = recipe.make_optimizer(model)
        scheduler, interval = recipe.make_schedule(optimizer, -(-len(self.train_loader) // recipe.accumulate))
        asked = {name: value for name, value in recipe.as_asked().items() if name not in NOT_OF_THE_RUN}
        asked["data"] = {"training images": len(train), "test images": len(test), "classes": list(metadata["classes"])}
        self.backup = BackupAndRestore(run.checkpoints, recipe.checkpoint_every or "epoch", recipe.keep_checkpoints,
                                       f"val_{self.measure}", "max", recipe=asked)
        stopping = [] if recipe.early_stopping is None else [EarlyStopping(patience=recipe.early_stopping)]
        self.test, self.classes = test, metadata["classes"]
        watched = DataLoader(test, min(self.watched_samples, len(test)), seed=0, on_error=recipe.on_error)
        self.statistics = LayerStatistics(*next(iter(watched)))
        self.trainer = Trainer(model, self.loss, optimizer, scheduler,
                               [*stopping, self.statistics, RunFiles(run, metadata, self.measure), *callbacks, self.backup],
                               metrics=self.make_metrics(classes),
                               compiled=not recipe.eager, accumulate=recipe.accumulate, clip_norm=recipe.clip_norm,
                               ema_decay=recipe.ema_decay, label_smoothing=recipe.label_smoothing, mixing=recipe.make_mixing(),
                               num_classes=classes, scheduler_interval=interval, replicas=replicas, precision=recipe.precision)

    @property
    def progress(self) -> Progress:
        return self.trainer.progress

    @staticmethod
    def sample(run: RunDirectory):
        """What the verb can be tried on: a path."""
        return run.samples

    def make_metrics(self, classes: int) -> dict:
        """What is computed of every epoch, the measure among them."""
        raise NotImplementedError

    def outcome(self):
        """What a run that has ended gives, after the test images were seen."""
        raise NotImplementedError

    def described(self, outcome) -> list[str]:
        """An outcome in lines of text; the first says the measure."""
        raise NotImplementedError

    @staticmethod
    def judged(trainer: Trainer, test, classes, recipe: Recipe):
        """The :class:`~numbanet.train.judging.Judgement`, or what takes its place, of a trainer's model on test data."""
        raise NotImplementedError

    @staticmethod
    def draw(folder, judgement, test, classes) -> None:
        """The pictures that go with it, into a folder."""
        raise NotImplementedError

    @property
    def best(self) -> float:
        """The best measure on the test images so far."""
        return max((row[f"val_{self.measure}"] for row in self.progress.history), default=-1.0)

    @property
    def skipped(self) -> dict[str, str]:
        """Pictures that were left out, and why."""
        found = {}
        for loader in (self.train_loader, self.test_loader):
            for error in loader.skipped:
                found.setdefault(sample_path(loader.dataset, error.index) or f"sample {error.index}", str(error))
        return found

    def resume(self) -> None:
        """Go on from the newest checkpoint of the run."""
        self.trainer.train_loader, self.trainer.val_loader = self.train_loader, self.test_loader
        if self.backup.restore() is None:
            raise CheckpointError(f"resume: {self.run.checkpoints} holds no checkpoint")

    def fit(self):
        """Train to the last epoch, and return the :meth:`outcome`; None if Ctrl-C ended it first. Either way a checkpoint was written."""
        epochs = self.progress.epoch
        with interruptible(self.trainer):
            self.trainer.fit(self.train_loader, self.test_loader, self.recipe.epochs)
        if self.trainer.interrupted and self.progress.epoch < self.recipe.epochs:
            return None
        if self.progress.epoch == epochs:                   # a finished run has nothing left to train
            self.trainer.evaluate(self.test_loader)
        outcome = self.outcome()
        if self.replicas is None or self.replicas.rank == 0:
            self.tell(self.judged(self.trainer, self.test, self.classes, self.recipe))
        return outcome

    def tell(self, judgement) -> None:
        """The pictures of a run that has ended, and its report."""
        self.draw(self.run.path, judgement, self.test, self.classes)
        if self.statistics.filters:
            draw_filters(self.run.path / "filters.png", self.statistics.filters)
        if self.statistics.history:
            draw_layers(self.run.path / "layers.png", self.statistics.history)
        write_report(self.run, judgement, self.statistics.history, self.skipped)


def output_shape(prepared: Prepared, device: str) -> tuple[int, ...] | None:
    """What the model makes of one input; None where it reads values, so that the first step tells."""
    model = prepared.model
    training, size = model.training, prepared.data.preprocessing.input_size
    try:
        return tuple(trace(model.eval(), numbanet.empty(1, *size, device=device)).outputs[0].shape)
    except UnsupportedOperationError:
        return None
    finally:
        model.train(training)


@dataclass
class Prepared:
    """A model and its data, as a recipe asks for them."""

    model: object
    data: object                # with train, test, classes, preprocessing, description and save_samples
    metadata: dict              # stored in the weights: model name, classes, preprocessing


def prepare_model(recipe: Recipe, data) -> Prepared:
    """Make the model for data that were opened.

    Raises
    ------
    UsageError, CheckpointError
        An unknown layer, weights of another model.
    """
    seed_everything(recipe.seed)
    classes, channels = len(data.classes), data.preprocessing.input_size[0]
    if recipe.weights is None:
        model = create_model(recipe.model, num_classes=classes, in_chans=channels, **recipe.model_options)
    else:
        model = create_model(recipe.model, in_chans=channels, weights=recipe.weights, **recipe.model_options)
        if model.num_classes != classes:
            model.reset_classifier(classes)
    model = model.to(recipe.device)
    if recipe.sync_batch_norm:
        model = SyncBatchNorm.convert_sync_batchnorm(model)
    if recipe.freeze_until is not None:
        freeze_until(model, recipe.freeze_until)
    metadata = {"model": recipe.model, "num_classes": classes, "in_chans": channels, "classes": list(data.classes),
                "preprocessing": data.preprocessing.as_metadata()}
    if recipe.model_options:
        metadata["model_options"] = recipe.model_options
    return Prepared(model, data, metadata)


class RunFiles(Callback):
    """Weights, the table of epochs and their curves, after each epoch."""

    only_first = True

    def __init__(self, run: RunDirectory, metadata: dict, measure: str = "accuracy"):
        self.run, self.metadata, self.measure = run, metadata, measure

    def on_epoch_end(self, epoch, logs=None):
        history = [as_row(row) for row in self.trainer.progress.history]
        values = [row[f"test_{self.measure}"] for row in history]
        self.trainer.check_finite()
        if values[-1] > max(values[:-1], default=-1.0):
            self._save_weights("best", values[-1])
        self._save_weights("last", values[-1])
        self.run.write_metrics(history)
        draw_curves(self.run.path / "curves.png", history, self.measure)

    def _save_weights(self, name: str, value: float) -> None:
        ema, model = self.trainer.ema, self.trainer.model
        save_weights(self.run.weights / f"{name}.safetensors", model.state_dict() if ema is None else ema.averaged_state_dict(),
                     {**self.metadata, f"test_{self.measure}": value})


def as_row(logs: dict) -> dict:
    """An epoch's entry of the history with the names of ``metrics.csv``."""
    row = {}
    for name, value in logs.items():
        if name in ("epoch", "step", "learning_rate", "seconds", "waited", "skipped"):
            row[name] = value
        elif name == "samples_per_second":
            row["images_per_second"] = value
        else:
            row[f"test_{name.removeprefix('val_')}" if name.startswith("val_") else f"train_{name}"] = value
    return row
