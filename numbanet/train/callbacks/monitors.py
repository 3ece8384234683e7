"""Callbacks that watch one number of the logs."""

from __future__ import annotations

import logging
import math

from numbanet.errors import UsageError
from numbanet.train.callbacks.callback import Callback

LARGER_IS_BETTER = ("accuracy", "acc", "precision", "recall", "f1", "top", "auc")
log = logging.getLogger(__name__)


class Monitor(Callback):
    """Base: which number, and whether it has become better.

    `mode` is "min", "max" or "auto", which takes accuracies and their like to rise and all else to fall.
    """

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0):
        if mode not in ("auto", "min", "max"):
            raise UsageError(f"{type(self).__name__}: mode expects 'auto', 'min' or 'max', received {mode!r}")
        if mode == "auto":
            mode = "max" if any(word in monitor.lower() for word in LARGER_IS_BETTER) else "min"
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)
        self.best = math.inf if mode == "min" else -math.inf

    def value(self, logs: dict) -> float:
        """The watched number.

        Raises
        ------
        UsageError
            The logs lack it.
        """
        if self.monitor not in logs:
            hint = "; fit got no val_loader" if self.monitor.startswith("val_") and not any(n.startswith("val_") for n in logs) else ""
            raise UsageError(f"{type(self).__name__}: monitor={self.monitor!r} is none of {', '.join(logs)}{hint}")
        return logs[self.monitor]

    def is_better(self, value: float, than: float) -> bool:
        """NaN never is."""
        return value < than - self.min_delta if self.mode == "min" else value > than + self.min_delta


class EarlyStopping(Monitor):
    """End the training when a number has not become better for `patience` epochs.

    Parameters
    ----------
    monitor : str
        An entry of the epoch's logs.
    min_delta : float
        Smaller changes are none.
    patience : int
        Epochs without improvement that are tolerated; the training ends with the one in which they reach this number (at least 1).
    mode : "auto", "min" or "max"
    baseline : float, optional
        What has to be beaten.
    restore_best_weights : bool
        The model gets the weights of its best epoch back when the training ends.
    start_from_epoch : int
        Epochs before this one are not looked at.
    """

    def __init__(self, monitor: str = "val_loss", min_delta: float = 0.0, patience: int = 0, verbose: int = 0, mode: str = "auto",
                 baseline: float | None = None, restore_best_weights: bool = False, start_from_epoch: int = 0):
        super().__init__(monitor, mode, min_delta)
        if patience < 0:
            raise UsageError(f"EarlyStopping: patience expects at least 0, received {patience}")
        self.patience, self.baseline, self.restore_best_weights = patience, baseline, restore_best_weights
        self.start_from_epoch, self.verbose = start_from_epoch, verbose
        self.wait, self.best_epoch, self.stopped_epoch, self._weights = 0, 0, 0, None

    def on_epoch_end(self, epoch, logs=None):
        value = self.value(logs)
        if epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self.restore_best_weights and self._weights is None:
            self._weights = self._copy()
        if self.is_better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self._weights = self._copy()
            if self.baseline is None or self.is_better(value, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.trainer.stop_training = True
            log.info("EarlyStopping: %s has not become better than %g, of epoch %d, for %d epochs", self.monitor, self.best,
                     self.best_epoch + 1, self.wait)

    def on_train_end(self, logs=None):
        if self._weights is not None and not self.trainer.interrupted:     # an interrupted run goes on with its own
            self.trainer.model.load_state_dict(self._weights)

    def _copy(self) -> dict:
        return {name: t.detach().clone() for name, t in self.trainer.model.state_dict().items()}

    def state_dict(self) -> dict:
        return {"wait": self.wait, "best": self.best, "best_epoch": self.best_epoch, "stopped_epoch": self.stopped_epoch,
                "weights": self._weights}

    def load_state_dict(self, state: dict) -> None:
        self.wait, self.best, self.best_epoch = state["wait"], state["best"], state["best_epoch"]
        self.stopped_epoch, self._weights = state["stopped_epoch"], state["weights"]


class ReduceLROnPlateau(Monitor):
    """Multiply the learning rates by `factor` when a number has not become better for `patience` epochs.

    Parameters
    ----------
    monitor : str
    factor : float below 1
    patience : int
    mode : "auto", "min" or "max"
    min_delta : float
    cooldown : int
        Epochs after a reduction in which none are counted.
    min_lr : float
    """

    def __init__(self, monitor: str = "val_loss", factor: float = 0.1, patience: int = 10, verbose: int = 0, mode: str = "auto",
                 min_delta: float = 1e-4, cooldown: int = 0, min_lr: float = 0.0):
        super().__init__(monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise UsageError(f"ReduceLROnPlateau: factor expects a number between 0 and 1, received {factor}")
        self.factor, self.patience, self.cooldown, self.min_lr, self.verbose = factor, patience, cooldown, min_lr, verbose
        self.wait = self.cooldown_counter = 0

    def on_epoch_end(self, epoch, logs=None):
        value = self.value(logs)
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.is_better(value, self.best):
            self.best, self.wait = value, 0
        elif self.cooldown_counter <= 0:
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(epoch)

    def _reduce(self, epoch: int) -> None:
        for group in self.trainer.optimizer.param_groups:
            if group["lr"] > self.min_lr:
                group["lr"] = max(group["lr"] * self.factor, self.min_lr)
                log.info("ReduceLROnPlateau: learning rate %g after epoch %d", group["lr"], epoch + 1)
        self.cooldown_counter, self.wait = self.cooldown, 0

    def state_dict(self) -> dict:
        return {"wait": self.wait, "best": self.best, "cooldown_counter": self.cooldown_counter}

    def load_state_dict(self, state: dict) -> None:
        self.wait, self.best, self.cooldown_counter = state["wait"], state["best"], state["cooldown_counter"]


class TerminateOnNaN(Callback):
    """End the training, without an error, when the loss is NaN or infinite; the parameters are those of before that step."""

    def on_train_batch_end(self, batch, logs=None):
        loss = logs.get("loss")
        if loss is not None and not math.isfinite(loss):
            log.warning("TerminateOnNaN: the loss became %s in batch %d; the training ends", loss, batch)
            self.trainer.stop_training = True
