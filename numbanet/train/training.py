"""A training run, whatever is learned: a Trainer made of a recipe, and callbacks that fill the run's folder."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numbanet
from numbanet.data import DataLoader, RandomSampler, SequentialSampler
from numbanet.data.dataset import sample_path
from numbanet.errors import CheckpointError, UnsupportedOperationError
from numbanet.graph import trace
from numbanet.nn import SyncBatchNorm
from numbanet.optim import DiagonalLevenbergMarquardt
from numbanet.random import seed_everything
from numbanet.train.callbacks import BackupAndRestore, Callback, CurvatureEstimation, EarlyStopping
from numbanet.train.freezing import freeze_until
from numbanet.train.interruption import interruptible
from numbanet.train.layer_statistics import LayerStatistics
from numbanet.train.recipe import Fields, Recipe
from numbanet.train.report import write_report
from numbanet.train.run_directory import RunDirectory
from numbanet.train.trainer import Progress, Trainer
from numbanet.vision.draw import draw_curves
from numbanet.vision.training import draw_filters, draw_layers
from numbanet.weights import save_weights
from numbanet.zoo import create_model

NOT_OF_THE_RUN = ("workers", "on_error", "device", "eager", "source")       # what a run may go on with another value of
FEWEST_WATCHED, WATCHED_PIXELS = 8, 1 << 18


class Training:
    """One run: a model, its data, and a folder that it writes to. What is learned, a subclass says.

    Attributes
    ----------
    measure : str, of the class
        Of the logs: what an epoch is judged by; the larger the better. :data:`~numbanet.train.recipe.MEASURES` has its name in words.
    loss : of the class
        See :class:`Trainer`.
    test_batch_size : int, of the class
        Of the test images, at least.
    watched_samples : int, of the class
        Of the batch that :class:`LayerStatistics` looks at, at most; of large pictures fewer.
    drops_last : bool, of the class
        Whether a last batch that is not full is left out in training, where there are others.
    weigh : callable (y) -> float, of the class
        What a batch's loss is the mean over, where that are not its samples; see :class:`Trainer`.
    columns : names, of the class
        Of ``metrics.csv``; None: all.
    counted : str, of the class
        What the data are called in checkpoints.

    Parameters
    ----------
    model : Module
    train, test : datasets of (input, target)
    recipe : Fields
    run : RunDirectory
    metadata : dict stored in the weights: model name, classes, preprocessing
    callbacks : further callbacks, such as a progress bar
    replicas : Replicas, optional
    """

    measure: str
    loss = None
    test_batch_size = 250
    watched_samples = 64
    drops_last = False
    weigh = None
    columns = None
    counted = "images"

    def __init__(self, model, train, test, recipe: Fields, run: RunDirectory, metadata: dict, callbacks=(), replicas=None):
        self.recipe, self.run, self.replicas = recipe, run, replicas
        self.train, self.test, self.classes = train, test, metadata["classes"]
        self.train_loader, self.test_loader = self._loaders()
        classes = len(self.classes)
        optimizer = recipe.make_optimizer(model)
        scheduler, interval = recipe.make_schedule(optimizer, -(-len(self.train_loader) // recipe.accumulate))
        asked = {name: value for name, value in recipe.as_asked().items() if name not in NOT_OF_THE_RUN}
        asked["data"] = {f"training {self.counted}": len(train), f"test {self.counted}": len(test), "classes": list(self.classes)}
        self.backup = BackupAndRestore(run.checkpoints, recipe.checkpoint_every or "epoch", recipe.keep_checkpoints,
                                       f"val_{self.measure}", "max", recipe=asked)
        stopping = [] if recipe.early_stopping is None else [EarlyStopping(patience=recipe.early_stopping)]
        watched = DataLoader(test, min(self.watched_samples, len(test)), seed=0, on_error=recipe.on_error)
        x, y = next(iter(watched))
        few = max(FEWEST_WATCHED, WATCHED_PIXELS // math.prod(x.shape[2:]))     # all of large pictures would take longer than an epoch
        self.statistics = LayerStatistics(x[:few], y[:few])
        curvature = [CurvatureEstimation(seed=recipe.seed)] if isinstance(optimizer, DiagonalLevenbergMarquardt) else []
        self.trainer = Trainer(model, self.loss, optimizer, scheduler,
                               [*self.judging_callbacks(), *stopping, *curvature, self.statistics, RunFiles(self, metadata), *callbacks,
                                self.backup],
                               metrics=self.make_metrics(classes), compiled=not recipe.eager, num_classes=classes,
                               scheduler_interval=interval, replicas=replicas, weigh=self.weigh, **recipe.trainer_options())

    def _loaders(self) -> tuple[DataLoader, DataLoader]:
        """Of the training and of the test data; of several processes each has a part of every batch."""
        recipe, replicas, tested = self.recipe, self.replicas, self.tested_at_once(self.recipe.batch_size)
        options = {"num_workers": recipe.workers, "seed": recipe.seed, "on_error": recipe.on_error}
        if recipe.device.startswith("cuda") and recipe.on_error == "raise":
            options |= {"pin_memory": True, "pin_memory_device": recipe.device}
        drop_last = self.drops_last and len(self.train) > recipe.batch_size
        if replicas is None:
            return (DataLoader(self.train, recipe.batch_size, shuffle=True, drop_last=drop_last, **options),
                    DataLoader(self.test, tested, **options))
        batches = replicas.batches(RandomSampler(self.train), recipe.batch_size, drop_last=drop_last)
        return (DataLoader(self.train, batch_sampler=batches, **options),
                DataLoader(self.test, batch_sampler=replicas.batches(SequentialSampler(self.test), tested, repeat=False), **options))

    @property
    def progress(self) -> Progress:
        return self.trainer.progress

    @property
    def is_first(self) -> bool:
        """Whether this is the only process, or that which writes."""
        return self.replicas is None or self.replicas.rank == 0

    # What a kind of training says of itself
    @staticmethod
    def prepare(recipe: Fields, watch=None) -> Prepared:
        """Open the data and make the model; `watch(iterator, total=...)` may show how many pictures were read."""
        raise NotImplementedError

    @classmethod
    def prepare_test(cls, recipe: Fields) -> Prepared:
        """As :meth:`prepare`, where nothing is to be trained: what is there to judge by will do."""
        return cls.prepare(recipe)

    @staticmethod
    def network(recipe: Fields) -> str:
        """The name of the network, or of that which it is made of."""
        return recipe.model

    @staticmethod
    def title(recipe: Fields) -> str:
        """The network, in words."""
        return recipe.model

    @staticmethod
    def folder_name(recipe: Fields) -> str:
        """What runs are called: ``runs/NAME-1``."""
        return recipe.model

    @staticmethod
    def example(run: RunDirectory) -> list[str]:
        """The words of a command that uses what was trained."""
        return ["predict", str(run.path), str(run.samples)]

    @classmethod
    def told(cls, logs: dict) -> str:
        """How a batch went."""
        return f"loss {logs['loss']:.3f}, {cls.measure} {100 * logs[cls.measure]:.1f}%"

    @classmethod
    def line(cls, row: dict) -> str:
        """How an epoch went: a row of ``metrics.csv``."""
        return (f"loss {row['train_loss']:.3f} ({100 * row[f'train_{cls.measure}']:.2f}%), test loss {row['test_loss']:.3f} "
                f"({100 * row[f'test_{cls.measure}']:.2f}%)")

    @classmethod
    def draw_curves(cls, path, history: list[dict]) -> None:
        """`curves.png`, of rows of ``metrics.csv``."""
        draw_curves(path, history, cls.measure)

    def tested_at_once(self, batch_size: int) -> int:
        """Test images a batch."""
        return max(batch_size, self.test_batch_size)

    def make_metrics(self, classes: int) -> dict:
        """What is computed of every epoch, the measure among them unless :meth:`judging_callbacks` gives it."""
        raise NotImplementedError

    def judging_callbacks(self) -> list[Callback]:
        """What judges an epoch beside the metrics."""
        return []

    def outcome(self):
        """What a run that has ended gives, after the test images were seen; on every process."""
        raise NotImplementedError

    def described(self, outcome) -> list[str]:
        """An outcome in lines of text; the first says the measure."""
        raise NotImplementedError

    @staticmethod
    def judged(trainer: Trainer, test, classes, recipe: Fields):
        """The :class:`~numbanet.train.judging.Judgement`, or what takes its place, of a trainer's model on test data."""
        raise NotImplementedError

    @staticmethod
    def draw(folder, judgement, test, classes) -> None:
        """The pictures that go with it, into a folder."""
        raise NotImplementedError

    # The run
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
        if self.is_first:
            self.tell(self.judgement(outcome))
        return outcome

    def judgement(self, outcome):
        """What the pictures and the report of a run that has ended tell."""
        return self.judged(self.trainer, self.test, self.classes, self.recipe)

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

    def __init__(self, training: Training, metadata: dict):
        self.run, self.metadata, self.measure = training.run, metadata, training.measure
        self.columns, self.draw = training.columns, training.draw_curves

    def on_epoch_end(self, epoch, logs=None):
        history = [as_row(row) for row in self.trainer.progress.history]
        values = [row[f"test_{self.measure}"] for row in history]
        self.trainer.check_finite()
        if values[-1] > max(values[:-1], default=-2.0):         # -1 is average precision of nothing
            self._save_weights("best", values[-1])
        self._save_weights("last", values[-1])
        self.run.write_metrics(history, self.columns)
        self.draw(self.run.path / "curves.png", history)

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
