"""The run of a classifier: a Trainer made of a recipe, and callbacks that fill the run's folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from numbanet.data import DataLoader, RandomSampler, SequentialSampler
from numbanet.data.dataset import sample_path
from numbanet.errors import CheckpointError
from numbanet.nn import SyncBatchNorm
from numbanet.random import seed_everything
from numbanet.train.callbacks import BackupAndRestore, Callback, EarlyStopping
from numbanet.train.classifier_data import ClassifierData, open_classifier_data
from numbanet.train.freezing import freeze_until
from numbanet.train.interruption import interruptible
from numbanet.train.judging import draw_judgement, judge
from numbanet.train.layer_statistics import LayerStatistics
from numbanet.train.metrics import Accuracy, ConfusionMatrix
from numbanet.train.recipe import Recipe
from numbanet.train.report import write_report
from numbanet.train.run_directory import RunDirectory
from numbanet.train.trainer import Progress, Trainer
from numbanet.vision.draw import draw_curves
from numbanet.vision.training import draw_filters, draw_layers
from numbanet.weights import save_weights
from numbanet.zoo import create_model, model_info

NOT_OF_THE_RUN = ("workers", "on_error", "device", "eager", "source")       # what a run may go on with another value of


@dataclass
class Prepared:
    """A model and its data, as a recipe asks for them."""

    model: object
    data: ClassifierData
    metadata: dict              # stored in the weights: model name, classes, preprocessing


def prepare(recipe: Recipe, watch=None) -> Prepared:
    """Open the data and make the model; `watch(iterator, total=...)` may show how many pictures were read.

    Raises
    ------
    UsageError, DataError, CheckpointError
        An unknown model or layer, data that cannot be used, weights of another model.
    """
    info = model_info(recipe.model)
    data = open_classifier_data(recipe.data, info, recipe.val_fraction, recipe.seed, recipe.distort, watch, recipe.train_transforms,
                                recipe.resize, recipe.on_error)
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


class ClassifierTraining:
    """One run: a model, its data, and a folder that it writes to.

    Parameters
    ----------
    model : Module giving (N, classes) logits
    train, test : datasets of (input, label)
    recipe : Recipe
    run : RunDirectory
    metadata : dict stored in the weights: model name, classes, preprocessing
    callbacks : further callbacks, such as a progress bar
    replicas : Replicas, optional
    """

    def __init__(self, model, train, test, recipe: Recipe, run: RunDirectory, metadata: dict, callbacks=(), replicas=None):
        self.recipe, self.run = recipe, run
        options = {"num_workers": recipe.workers, "seed": recipe.seed, "on_error": recipe.on_error}
        if recipe.device.startswith("cuda") and recipe.on_error == "raise":
            options |= {"pin_memory": True, "pin_memory_device": recipe.device}
        self.replicas = replicas
        if replicas is None:
            self.train_loader = DataLoader(train, recipe.batch_size, shuffle=True, **options)
            self.test_loader = DataLoader(test, max(recipe.batch_size, 250), **options)
        else:                                   # batch_size is that of all processes together
            self.train_loader = DataLoader(train, batch_sampler=replicas.batches(RandomSampler(train), recipe.batch_size), **options)
            self.test_loader = DataLoader(test, batch_sampler=replicas.batches(SequentialSampler(test), max(recipe.batch_size, 250),
                                                                                 repeat=False), **options)
        classes = len(metadata["classes"])
        optimizer = recipe.make_optimizer(model)
        scheduler, interval = recipe.make_schedule(optimizer, -(-len(self.train_loader) // recipe.accumulate))
        asked = {name: value for name, value in asdict(recipe).items() if name not in NOT_OF_THE_RUN}
        if recipe.precision == "float32":
            del asked["precision"]              # which runs of earlier versions do not have
        asked["data"] = {"training images": len(train), "test images": len(test), "classes": list(metadata["classes"])}
        self.backup = BackupAndRestore(run.checkpoints, recipe.checkpoint_every or "epoch", recipe.keep_checkpoints, "val_accuracy",
                                       recipe=asked)
        stopping = [] if recipe.early_stopping is None else [EarlyStopping(patience=recipe.early_stopping)]
        metrics = {"accuracy": Accuracy(), "confusion": ConfusionMatrix(classes)}
        if classes > 10:
            metrics["top5"] = Accuracy(top_k=5)
        self.test, self.classes = test, metadata["classes"]
        self.statistics = LayerStatistics(*next(iter(DataLoader(test, min(64, len(test)), seed=0, on_error=recipe.on_error))))
        self.trainer = Trainer(model, None, optimizer, scheduler, [*stopping, self.statistics, RunFiles(run, metadata),
                                                                     *callbacks, self.backup], metrics=metrics,
                               compiled=not recipe.eager, accumulate=recipe.accumulate, clip_norm=recipe.clip_norm,
                               ema_decay=recipe.ema_decay, label_smoothing=recipe.label_smoothing, mixing=recipe.make_mixing(),
                               num_classes=classes, scheduler_interval=interval, replicas=replicas, precision=recipe.precision)

    @property
    def progress(self) -> Progress:
        return self.trainer.progress

    @property
    def best(self) -> float:
        """The best accuracy on the test images so far."""
        return max((row["val_accuracy"] for row in self.progress.history), default=-1.0)

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

    def fit(self) -> ConfusionMatrix | None:
        """Train to the last epoch; None if Ctrl-C ended it first. Either way a checkpoint was written."""
        epochs = self.progress.epoch
        with interruptible(self.trainer):
            self.trainer.fit(self.train_loader, self.test_loader, self.recipe.epochs)
        if self.trainer.interrupted and self.progress.epoch < self.recipe.epochs:
            return None
        if self.progress.epoch == epochs:                   # a finished run has nothing left to train
            self.trainer.evaluate(self.test_loader)
        confusion = self.trainer.val_metrics["confusion"]
        if self.replicas is None or self.replicas.rank == 0:
            self.tell(judge(self.trainer, self.test, self.classes, max(self.recipe.batch_size, 250), self.recipe.workers,
                            self.recipe.on_error))
        return confusion

    def tell(self, judgement) -> None:
        """The pictures of a run that has ended, and its report."""
        draw_judgement(self.run.path, judgement, self.test, self.classes)
        if self.statistics.filters:
            draw_filters(self.run.path / "filters.png", self.statistics.filters)
        if self.statistics.history:
            draw_layers(self.run.path / "layers.png", self.statistics.history)
        write_report(self.run, judgement, self.statistics.history, self.skipped)


class RunFiles(Callback):
    """Weights, the table of epochs and their curves, after each epoch."""

    only_first = True

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
        if name in ("epoch", "step", "learning_rate", "seconds", "waited", "skipped"):
            row[name] = value
        elif name == "samples_per_second":
            row["images_per_second"] = value
        else:
            row[f"test_{name.removeprefix('val_')}" if name.startswith("val_") else f"train_{name}"] = value
    return row
