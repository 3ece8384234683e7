"""The engine of training: epochs, steps, evaluation, prediction, and the state that going on needs.

A loop by hand stays first class; this one does the same and nothing in secret:

    forward and backward pass (a replayed plan, or the tape)  ->  every `accumulate` batches: mean of the gradients,
    clipping, ``optimizer.step()``, moving average, schedules that count steps  ->  metrics, callbacks

Its state (:meth:`Trainer.state_dict`) holds all that has a memory, so that a run that was stopped goes on to the same bits.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field

import numpy as np

from numbanet._tensor import Tensor, as_tensor
from numbanet.amp import GradScaler, check_precision
from numbanet.data import DataLoader, TensorDataset
from numbanet.errors import CheckpointError, DataError, TrainingError, UsageError
from numbanet.nn import functional as F
from numbanet.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm
from numbanet.optim import lr_scheduler
from numbanet.train.callbacks.callback import CallbackList, History
from numbanet.train.ema import ExponentialMovingAverage
from numbanet.train.metrics import Accuracy, MetricCollection
from numbanet.train.mixing import class_probabilities
from numbanet.train.random_state import get_random_state, set_random_state
from numbanet.train.steps import CompiledSteps, EagerSteps, first

COUNT_STEPS = (lr_scheduler.OneCycleLR,)        # schedules that are of steps unless said otherwise; all others are of epochs


@dataclass
class Progress:
    """Where a run stands."""

    epoch: int = 0                  # epochs that are done: the one that runs, from 0
    batch: int = 0                  # batches of it that are done, or were left out by the loader
    step: int = 0                   # updates of the parameters
    loss_sum: float = 0.0           # of this epoch, over samples
    seen: int = 0
    seconds: float = 0.0            # of training, without evaluation
    waited: float = 0.0             # of them, for data
    stopped: bool = False           # a callback ended the training
    history: list[dict] = field(default_factory=list)


class Trainer:
    """Fit, evaluate and predict with a model.

    Parameters
    ----------
    model : Module
        Its parameters' device is where batches are brought.
    loss : callable (outputs, y) -> scalar tensor, optional
        By default the model's own ``loss_function`` (GoogLeNet's, with its auxiliary heads), otherwise cross-entropy.
    optimizer : Optimizer, optional
        Of the model's parameters. Needed for ``fit``.
    scheduler : LRScheduler, optional
        ``step()`` is called after each epoch, or each update (`scheduler_interval`); ReduceLROnPlateau gets the epoch's validation loss.
    callbacks : sequence of Callback
    metrics : Metric, sequence or dict of metrics, optional
        Besides the loss; by default the accuracy where the loss is a classifier's default. Those that are numbers enter the logs.
    compiled : bool
        Replay plans (``numbanet.compile``) instead of recording each step on the tape. A model that cannot be compiled is an error that
        says why.
    accumulate : int
        Batches whose gradients are averaged for one update.
    clip_norm, clip_value : float, optional
        Limits of the common norm, and of each element, of the gradients of an update.
    ema_decay : float, optional
        Keep an exponential moving average, which evaluation and prediction then use.
    label_smoothing : float
        Share of each training target that is spread over all classes.
    mixing : MixUp, CutMix, or a sequence of which one is drawn for each batch, optional
    num_classes : int, optional
        Needed for smoothing and mixing where the model does not say it.
    scheduler_interval : "epoch" or "step", optional
        By default "step" for OneCycleLR, "epoch" for all others.
    replicas : Replicas, optional
        Other processes that train the same model on other parts of each batch; see :mod:`numbanet.train.distributed`.
    weigh : callable (y) -> float above 0, optional
        What the loss of a batch is the mean over, where that is not its samples: with `replicas`, parts of a batch count by it.
    precision : "float32" (the default), "bf16" or "fp16", on GPUs
        Mixed precision, see :func:`numbanet.compile`; in "fp16" the loss is scaled by a :class:`numbanet.amp.GradScaler`.

    Attributes
    ----------
    progress : Progress
    interrupted : bool
        Set by anyone: the training ends after this update, and can go on from there.
    """

    def __init__(self, model, loss=None, optimizer=None, scheduler=None, callbacks=(), *, metrics=None, compiled: bool = True,
                 accumulate: int = 1, clip_norm: float | None = None, clip_value: float | None = None, ema_decay: float | None = None,
                 label_smoothing: float = 0.0, mixing=None, num_classes: int | None = None, scheduler_interval: str | None = None,
                 replicas=None, weigh=None, precision: str | None = None):
        if not isinstance(accumulate, int) or accumulate < 1:
            raise UsageError(f"Trainer: accumulate expects an integer of at least 1, received {accumulate!r}")
        for name, value in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if value is not None and not value > 0:
                raise UsageError(f"Trainer: {name} expects a number above 0, received {value}")
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"Trainer: label_smoothing expects a number from 0 to below 1, received {label_smoothing}")
        if scheduler_interval not in ("epoch", "step", None):
            raise UsageError(f"Trainer: scheduler_interval expects 'epoch' or 'step', received {scheduler_interval!r}")
        if scheduler is not None and optimizer is None:
            raise UsageError("Trainer: a scheduler needs the optimizer whose rate it changes")
        classifies = loss is None or loss is F.cross_entropy
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.loss = getattr(model, "loss_function", F.cross_entropy) if loss is None else loss
        self.accumulate, self.clip_norm, self.clip_value, self.label_smoothing = accumulate, clip_norm, clip_value, label_smoothing
        self.mixing = () if mixing is None else tuple(mixing) if isinstance(mixing, (list, tuple)) else (mixing,)
        self.num_classes = num_classes if num_classes is not None else getattr(model, "num_classes", None)
        self.scheduler_interval = scheduler_interval or ("step" if isinstance(scheduler, COUNT_STEPS) else "epoch")
        metrics = {"accuracy": Accuracy()} if metrics is None and classifies else {} if metrics is None else metrics
        self.metrics, self.val_metrics = (MetricCollection(copy.deepcopy(metrics)) for _ in range(2))
        self.replicas, self.weigh = replicas, weigh
        self.ema = None if ema_decay is None else ExponentialMovingAverage(model, ema_decay)
        self.compiled = compiled
        dtype = check_precision("Trainer", precision, self.device) if precision else None
        self.scaler = GradScaler() if dtype == "float16" else None
        self.steps = (CompiledSteps if compiled else EagerSteps)(model, self.loss, optimizer, dtype, self.scaler)
        if replicas is not None:
            replicas.attach(self)
        self.progress = Progress()
        self.callbacks = CallbackList(callbacks, self)
        self.stop_training, self.interrupted = False, False
        self.train_loader = self.val_loader = None
        self.epochs = 0
        self._accumulated = self._skipped = 0
        self._parameters = [p for p in model.parameters() if p.requires_grad]

    @property
    def device(self):
        """Where the model's parameters are."""
        return next(iter(self.model.parameters())).device

    @property
    def stop_training(self) -> bool:
        """Whether the training is to end after this batch. It stands on the model, where Keras's callbacks look for it."""
        return self.model.__dict__.get("stop_training", False)

    @stop_training.setter
    def stop_training(self, value: bool) -> None:
        self.model.__dict__["stop_training"] = value

    # Training
    def fit(self, train_loader, val_loader=None, epochs: int = 1) -> History:
        """Train until `epochs` epochs are done, counted from the first: those of earlier calls and of a loaded state are among them.

        Parameters
        ----------
        train_loader, val_loader : iterable of (x, y)
            DataLoaders; anything else that begins anew when it is iterated will do.
        epochs : int

        Returns
        -------
        History : ``.history`` as in Keras, a list for each entry of the logs

        Raises
        ------
        TrainingError
            The loss is no number, and no callback ended the training for it. Parameters are as before the step.
        UsageError
            No optimizer, or a loader without batches.
        """
        if self.optimizer is None:
            raise UsageError("Trainer.fit: expected an optimizer; Trainer(model, loss, optimizer)")
        if not isinstance(epochs, int) or epochs < 1:
            raise UsageError(f"Trainer.fit: epochs expects an integer of at least 1, received {epochs!r}")
        self.train_loader, self.val_loader, self.epochs = train_loader, val_loader, epochs
        self.interrupted = self.stop_training = self.progress.stopped = False
        for loader in (train_loader, val_loader):
            getattr(loader, "seed", None)           # is drawn now: random streams must not depend on where a run goes on
        try:
            self.callbacks.restore()
            self.callbacks.on_train_begin()
            p = self.progress
            self.stop_training = p.stopped
            if p.epoch >= epochs or p.stopped:
                logging.getLogger(__name__).info("fit: %d epochs are done already; epochs=%d counts from the first", p.epoch, epochs)
            while p.epoch < epochs and not self.stop_training and not self.interrupted:
                if not self._epoch():
                    break
            self.callbacks.on_train_end(dict(p.history[-1]) if p.history else {})
        except BaseException as error:
            self.callbacks.on_exception(error)
            if self.replicas is not None:
                self.replicas.abort(error)
            raise
        return History(self.progress.history)

    def _epoch(self) -> bool:
        """The rest of the running epoch; False if it was interrupted before its last batch."""
        p, loader, calls = self.progress, self.train_loader, self.callbacks
        self.model.train()
        if p.batch == 0:
            self.metrics.reset()
        calls.on_epoch_begin(p.epoch)
        length, self._skipped = _length(loader), len(getattr(loader, "skipped", ()))
        batches, measured = self._rest_of_epoch(loader), isinstance(loader, DataLoader)
        started, before, waited_before = time.perf_counter(), p.seconds, p.waited
        for batch in batches:
            x, y = self._unpacked(batch)
            self._check_parts(p.batch + 1)
            p.batch = loader.position - 1 if measured else p.batch      # the loader may have left out whole batches
            if calls.watches_batches:
                calls.on_train_batch_begin(p.batch)
            value = self._train_batch(x, y)
            p.batch += 1
            p.seconds = before + time.perf_counter() - started
            if measured:
                p.waited = waited_before + loader.waited.seconds
            if calls.watches_batches:
                calls.on_train_batch_end(p.batch - 1, self._logs())
            if self.replicas is not None:
                self.interrupted = self.replicas.any(self.interrupted)
            if not math.isfinite(value) and not self.stop_training:
                raise self.diverged("the loss", value, p.step + 1)
            if self.stop_training:
                break
            if self.interrupted and not self._accumulated and p.batch != length:
                return False
        else:
            self._check_parts(p.batch)
        if not p.seen:
            raise UsageError("Trainer.fit: train_loader gave no batch; an iterator can be read only once, pass what makes one")
        if self._accumulated:
            self._update()
        self._finish_epoch()
        return True

    def _rest_of_epoch(self, loader) -> Iterable:
        """The batches of this epoch that are not done."""
        p = self.progress
        if isinstance(loader, DataLoader):
            loader.set_epoch(p.epoch, p.batch)          # and loads none of those before
            return loader
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(p.epoch)
        return itertools.islice(iter(loader), p.batch, None)

    def _check_parts(self, position: int) -> None:
        """Every process has a part of every batch: one whose part was left out altogether would let the others wait for ever."""
        loader = self.train_loader
        if self.replicas is not None and isinstance(loader, DataLoader) and loader.position != position:
            raise DataError(f"rank {self.replicas.rank}: of its part of batch {position - 1} no sample can be loaded; remove the broken "
                            f"files, or use larger batches ({loader.skipped[-1]})")

    def _train_batch(self, x: Tensor, y: Tensor) -> float:
        """One batch: gradients, and an update where it is time; returns the loss."""
        p, size = self.progress, len(x)
        if self.mixing or self.label_smoothing:
            x, y = self._softened(x, y)
        if not self._accumulated:
            self.optimizer.zero_grad()
        if self.replicas is not None:
            weight = size if self.weigh is None else self.weigh(y)
            self.replicas.begin(weight, reduce=self._accumulated + 1 >= self.accumulate)
        loss, outputs = self.steps.forward_backward(x, y)
        value = loss.item()
        if self.replicas is not None:
            value, size = self.replicas.mean(value, weight, size)
        p.loss_sum += value * size
        p.seen += size
        if not math.isfinite(value):
            self._accumulated = 0           # what was gathered is worth nothing
            return value
        self.metrics.update(outputs, y)
        self._accumulated += 1
        if self._accumulated >= self.accumulate:
            self._update()
        return value

    def _update(self) -> None:
        """One step of the optimiser with the gathered gradients."""
        if self.replicas is not None:
            self.replicas.finish(self._parameters)
        if self._accumulated > 1:
            for p in self._parameters:
                if p.grad is not None:
                    p.grad.mul_(1.0 / self._accumulated)
        self._accumulated = 0
        self.steps.look_at_gradients()
        if self.clip_value is not None:
            clip_grad_value_(self._parameters, self.clip_value)
        if self.clip_norm is not None:
            self._clip_norm()
        self.steps.update()
        if self.ema is not None:
            self.ema.update()
        if self.scheduler is not None and self.scheduler_interval == "step":
            self.scheduler.step()
        self.progress.step += 1

    def _clip_norm(self) -> None:
        """As ``clip_grad_norm_``, to the bit; shorter gradients, whose factor is 1, are not multiplied."""
        norm = get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if not norm.item() < self.clip_norm * (1 - 1e-6) - 1e-6:
            clip_grads_with_norm_(self._parameters, self.clip_norm, norm)

    def _softened(self, x, y):
        """The batch mixed, and its targets as probabilities."""
        y = class_probabilities(y, self.num_classes, self.label_smoothing)
        if self.mixing:
            from numbanet.data.randomness import generator_of
            from numbanet.random import default_generator
            generator = generator_of(default_generator())
            mix = self.mixing[int(generator.integers(len(self.mixing)))] if len(self.mixing) > 1 else self.mixing[0]
            x, y = mix(x, y, generator)
        return x, y

    def _finish_epoch(self) -> None:
        """Evaluation, schedule and history."""
        p, loader = self.progress, self.train_loader
        if self.replicas is not None:
            self.replicas.sum_states(self.metrics.states)
            self.replicas.share_buffers(self.model)
        logs = self._logs()
        if self.val_loader is not None:
            if hasattr(self.val_loader, "set_epoch"):       # its order, if it has one, must not depend on where a run went on
                self.val_loader.set_epoch(p.epoch)
            results = self.evaluate(self.val_loader)
            logs |= {f"val_{name}": value for name, value in results.items()}
            if not math.isfinite(results["loss"]) and not self.stop_training:
                raise self.diverged("the validation loss", results["loss"], p.step)
        logs["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        if self.scheduler is not None and self.scheduler_interval == "epoch":
            if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
                self.scheduler.step(logs.get("val_loss", logs["loss"]))
            else:
                self.scheduler.step()
        loaded = {"waited": round(p.waited, 3), "skipped": len(loader.skipped) - self._skipped} if isinstance(loader, DataLoader) else {}
        p.history.append({"epoch": p.epoch + 1, "step": p.step, **logs, "seconds": round(p.seconds, 3),
                          "samples_per_second": round(p.seen / max(p.seconds, 1e-9), 1), **loaded})
        p.epoch, p.batch, p.loss_sum, p.seen, p.seconds, p.waited = p.epoch + 1, 0, 0.0, 0, 0.0, 0.0
        self.callbacks.on_epoch_end(p.epoch - 1, logs)
        p.stopped = self.stop_training

    def _logs(self) -> dict[str, float]:
        """Loss and metrics of this epoch so far."""
        p = self.progress
        logs = {"loss": p.loss_sum / p.seen if p.seen else math.nan}
        return logs | _numbers(self.metrics)

    def diverged(self, what: str, value: float, step: int) -> TrainingError:
        """The error that says what is no number any more, and what is left."""
        kept = [text for text in (callback.recovery() for callback in self.callbacks) if text]
        return TrainingError(f"{what} became {value} at step {step} (epoch {self.progress.epoch + 1}); "
                             f"{'; '.join(kept) or 'no callback keeps checkpoints (BackupAndRestore does)'}. "
                             "A smaller learning rate (--lr) usually helps")

    def check_finite(self) -> None:
        """Raise where a parameter is no number: the last step made it so, and what was written before is worth more."""
        for name, parameter in self.model.named_parameters():
            if not np.isfinite(parameter.detach().numpy()).all():
                raise self.diverged(name, math.nan, self.progress.step)

    @property
    def between_updates(self) -> bool:
        """Whether no gradients wait for an update: what a state holds is whole then."""
        return not self._accumulated

    # Evaluation and prediction
    def evaluate(self, loader, *, ema: bool = True) -> dict[str, float]:
        """Mean loss and metrics over a loader, in evaluation mode, without smoothing and mixing.

        `ema`: with the moving average, where there is one. The metrics themselves, of which those that are no numbers are not returned,
        are in ``val_metrics``.
        """
        calls, total, seen = self.callbacks, 0.0, 0
        self.val_metrics.reset()
        calls.on_test_begin()
        with self._evaluating(ema):
            for index, batch in enumerate(loader):
                x, y = self._unpacked(batch)
                calls.on_test_batch_begin(index)
                outputs = self.steps.infer(x)
                loss = self.loss(outputs, y)
                value = (loss if isinstance(loss, Tensor) else loss[0]).item()
                total += value * len(x)
                seen += len(x)
                self.val_metrics.update(first(outputs), y)
                calls.on_test_batch_end(index, {"loss": total / seen})
        if self.replicas is not None and self.replicas.shards(loader):
            total, seen = self.replicas.sum(total, seen)
            self.replicas.sum_states(self.val_metrics.states)
        if not seen:
            raise UsageError("Trainer.evaluate: the loader gave no batch")
        logs = {"loss": total / seen} | _numbers(self.val_metrics)
        calls.on_test_end(logs)
        return logs

    def predict(self, data, batch_size: int = 32, *, ema: bool = True) -> np.ndarray:
        """The model's outputs (the first, of several) for a loader of x or (x, y), or for an array or tensor, which is cut in batches.

        Returns
        -------
        numpy.ndarray (N, ...)
        """
        if isinstance(data, (Tensor, np.ndarray)):
            data = DataLoader(TensorDataset(as_tensor(data)), batch_size)
        made = []
        self.callbacks.on_predict_begin()
        with self._evaluating(ema):
            for index, batch in enumerate(data):
                self.callbacks.on_predict_batch_begin(index)
                x = batch[0] if isinstance(batch, (tuple, list)) else batch
                made.append(first(self.steps.infer(self._placed(x))).numpy().copy())
                self.callbacks.on_predict_batch_end(index, {})
        self.callbacks.on_predict_end()
        if not made:
            raise UsageError("Trainer.predict: expected one batch at least, received none")
        return np.concatenate(made)

    def _evaluating(self, ema: bool):
        self.model.eval()
        return self.ema.applied() if ema and self.ema is not None else nullcontext()

    def _unpacked(self, batch) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise UsageError(f"Trainer: a loader's batch expects (x, y), received {type(batch).__name__}"
                             + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""))
        return self._placed(batch[0]), self._placed(batch[1])

    def _placed(self, x) -> Tensor:
        x = x if isinstance(x, Tensor) else as_tensor(x)
        device = self._parameters[0].device if self._parameters else self.device
        return x if x.device == device else x.to(device)

    # State
    def state_dict(self) -> dict:
        """All that going on needs, as nested dicts and lists of tensors and plain values; tensors are not copied."""
        if not self.between_updates:
            raise CheckpointError("Trainer.state_dict: gradients are gathered for an update that is not made yet; ask when "
                                  "between_updates")
        return {"model": self.model.state_dict(), "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
                "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
                "ema": None if self.ema is None else self.ema.state_dict(), "random": get_random_state(),
                "samplers": [{"seed": getattr(loader, "seed", None)} for loader in (self.train_loader, self.val_loader)],
                "progress": {**asdict(self.progress), "stopped": self.stop_training}, "choices": self.steps.choices(),
                "metrics": [state.arrays() for state in self.metrics.states], "callbacks": self.callbacks.state_dict(),
                "scaler": None if self.scaler is None else self.scaler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Go on from what :meth:`state_dict` gave, of a Trainer made alike.

        Raises
        ------
        CheckpointError
            Another architecture, other groups of parameters, other metrics or callbacks, or a state of another version.
        """
        try:
            for name in ("optimizer", "scheduler", "ema"):
                if (state[name] is None) != (getattr(self, name) is None):
                    here, there = ("with", "without") if state[name] is None else ("without", "with")
                    raise CheckpointError(f"Trainer.load_state_dict: the state is {there} {name}, this Trainer is {here} it")
            progress = Progress(**state["progress"])
            self.model.load_state_dict(state["model"])
            for name in ("optimizer", "scheduler", "ema"):
                if state[name] is not None:
                    getattr(self, name).load_state_dict(state[name])
            if len(state["metrics"]) != len(self.metrics.states):
                raise CheckpointError(f"Trainer.load_state_dict: expected {len(self.metrics.states)} metrics, received "
                                      f"{len(state['metrics'])}")
            for metric, arrays in zip(self.metrics.states, state["metrics"]):
                metric.load(arrays)
            self.callbacks.load_state_dict(state["callbacks"])
            for loader, sampler in zip((self.train_loader, self.val_loader), state["samplers"], strict=True):
                if sampler["seed"] is not None and hasattr(loader, "seed"):
                    loader.seed = sampler["seed"]
            if self.scaler is not None and state.get("scaler"):
                self.scaler.load_state_dict(state["scaler"])
            self.steps.set_choices(state.get("choices", {}))        # older checkpoints: the backend's own
            set_random_state(state["random"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"resume: the checkpoint is of another version of numbanet, or of another run ({error})") from error
        vars(self.progress).update(vars(progress))


def _numbers(metrics: MetricCollection) -> dict[str, float]:
    return {name: value for name, value in metrics.compute().items() if isinstance(value, (int, float))}


def _length(loader: Iterable) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None

