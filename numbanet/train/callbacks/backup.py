"""Callbacks that write models and states."""

from __future__ import annotations

import logging
from pathlib import Path

from numbanet.errors import CheckpointError, DataError, NumbanetError, UsageError
from numbanet.files import FolderLock
from numbanet.train.callbacks.monitors import Monitor
from numbanet.train.checkpoint import KEEP, Checkpoints, read_state, write_state
from numbanet.weights import save_weights

logger = logging.getLogger(__name__)

WEIGHTS = (".safetensors", ".npz", ".pt", ".pth")


class BackupAndRestore(Monitor):
    """Keep checkpoints of everything in a folder, and go on from the newest one that is there when a training begins.

    Parameters
    ----------
    backup_dir : path
    save_freq : "epoch" or int
        An integer also saves after every so many updates.
    keep : int
        The newest that are kept, besides the best by `monitor`.
    monitor : str, optional
        An entry of the epoch's logs; by default ``val_loss`` or, without it, ``loss``.
    mode : "auto", "min" or "max"
    recipe : dict, optional
        What the run was asked for; kept with the state. Going on with another one is an error.
    delete_checkpoint : bool
        Remove the checkpoints when the training is complete. Keras does so by default; here they are kept.
    """

    last = only_first = True

    def __init__(self, backup_dir, save_freq="epoch", keep: int = KEEP, monitor: str | None = None, mode: str = "auto",
                 recipe: dict | None = None, delete_checkpoint: bool = False):
        super().__init__(monitor or "val_loss", mode)
        if save_freq != "epoch" and not (isinstance(save_freq, int) and save_freq > 0):
            raise UsageError(f"BackupAndRestore: save_freq expects 'epoch' or a number of updates, received {save_freq!r}")
        self.save_freq, self.recipe, self.delete_checkpoint, self._chosen = save_freq, recipe, delete_checkpoint, monitor is not None
        self.checkpoints = Checkpoints(backup_dir, keep, self.mode)
        self.lock = FolderLock(backup_dir)
        self._saved: tuple | None = None

    def restore(self) -> Path | None:
        """Load the newest checkpoint that is whole into the trainer; None where the folder has none.

        Raises
        ------
        CheckpointError
            All are damaged, or of another run; the folder is in use.
        """
        first = self.trainer.replicas is None or self.trainer.replicas.rank == 0
        if first:
            self.lock.acquire()
        there = self._saved is not None and self._saved == self._position()
        if first and not there:
            self.checkpoints.recover()
        if self.trainer.replicas is not None:
            there = self.trainer.replicas.share(there)      # which the others do not know; they wait until the first has cleared up
        if there:
            return None                     # the trainer is where the newest checkpoint is
        if not self.checkpoints.list():
            return None
        state, folder = self.checkpoints.load()
        recipe = state.pop("recipe", None)
        if recipe is not None and self.recipe is not None and recipe != self.recipe:
            changed = sorted(k for k in recipe.keys() | self.recipe.keys() if recipe.get(k) != self.recipe.get(k))
            raise CheckpointError(f"resume: {folder} is of a run with another {', '.join(changed)}; choose another folder")
        self.trainer.load_state_dict(state)
        self._saved = self._position()
        return folder

    def _position(self) -> tuple:
        p = self.trainer.progress
        return p.epoch, p.batch, p.step

    def on_train_batch_end(self, batch, logs=None):
        trainer = self.trainer
        if self.save_freq != "epoch" and trainer.between_updates and trainer.progress.step % self.save_freq == 0:
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        if not self._chosen and self.monitor not in logs:
            self.monitor = "loss"
        self.save(self.value(logs))

    def on_train_end(self, logs=None):
        if self.trainer.interrupted and self._saved != self._position():
            self.save()
        elif self.delete_checkpoint and not self.trainer.interrupted:
            import shutil
            for folder in self.checkpoints.list():
                shutil.rmtree(folder, ignore_errors=True)
        self._saved = self._position()
        self.lock.release()

    def on_exception(self, error):
        trainer = self.trainer
        if isinstance(error, DataError) and trainer.replicas is None and trainer.between_updates and self._saved != self._position():
            try:                            # a picture that cannot be read: what was learned in this epoch is whole
                self.save()
            except NumbanetError as second:
                logger.warning("no checkpoint of where it stood: %s", second)
        self.lock.release()

    def save(self, value: float | None = None) -> Path | None:
        """Write a checkpoint of where the trainer stands.

        Raises
        ------
        TrainingError
            A parameter is not finite; earlier checkpoints are worth more.
        """
        self.trainer.check_finite()
        state = self.trainer.state_dict()
        written = self.checkpoints.save(self.trainer.progress.step, {**state, "recipe": self.recipe}, value)
        self._saved = self._position()
        return written

    def recovery(self) -> str:
        kept = self.checkpoints.list()
        return f"the last good checkpoint is kept: {kept[-1]}" if kept else "there was no checkpoint yet"


class ModelCheckpoint(Monitor):
    """Write the model, or everything, after epochs.

    Parameters
    ----------
    filepath : path
        May hold ``{epoch}`` (from 1) and entries of the logs: ``"best-{epoch:02d}-{val_loss:.3f}.safetensors"``. A name that ends in
        .safetensors, .npz, .pt or .pth is a file of weights; any other a folder with the state of the trainer, which
        ``ModelCheckpoint.load(trainer, folder)`` reads.
    monitor : str
    save_best_only : bool
        Write only where `monitor` is better than ever before.
    save_weights_only : bool, optional
        By default as the name says; a contradiction is an error.
    mode : "auto", "min" or "max"
    save_freq : "epoch" or int
        Or after every so many batches.
    initial_value_threshold : float, optional
        What the first has to be better than.
    metadata : dict, optional
        Stored with the weights: classes, preprocessing.
    """

    last = only_first = True

    def __init__(self, filepath, monitor: str = "val_loss", verbose: int = 0, save_best_only: bool = False,
                 save_weights_only: bool | None = None, mode: str = "auto", save_freq="epoch",
                 initial_value_threshold: float | None = None, metadata: dict | None = None):
        super().__init__(monitor, mode)
        self.filepath, self.save_best_only, self.verbose, self.metadata = str(filepath), save_best_only, verbose, metadata
        self.is_weights = Path(self.filepath).suffix.lower() in WEIGHTS
        if save_weights_only is not None and save_weights_only != self.is_weights:
            wanted = f"a name that ends in {', '.join(WEIGHTS)}" if save_weights_only else "the name of a folder"
            raise UsageError(f"ModelCheckpoint: save_weights_only={save_weights_only} expects {wanted}, received {self.filepath}")
        if save_freq != "epoch" and not (isinstance(save_freq, int) and save_freq > 0):
            raise UsageError(f"ModelCheckpoint: save_freq expects 'epoch' or a number of batches, received {save_freq!r}")
        self.save_freq = save_freq
        if initial_value_threshold is not None:
            self.best = initial_value_threshold

    def on_train_batch_end(self, batch, logs=None):
        trainer = self.trainer
        if self.save_freq != "epoch" and (batch + 1) % self.save_freq == 0 and (self.is_weights or trainer.between_updates):
            self._save(trainer.progress.epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        if self.save_freq == "epoch":
            self._save(epoch, logs)

    def _save(self, epoch: int, logs: dict) -> None:
        if self.save_best_only:
            value = self.value(logs)
            if not self.is_better(value, self.best):
                return
            self.best = value
        try:
            path = Path(self.filepath.format(epoch=epoch + 1, batch=self.trainer.progress.batch, **logs))
        except (KeyError, IndexError, ValueError) as error:
            raise UsageError(f"ModelCheckpoint: filepath {self.filepath} cannot be filled in ({error}); the logs hold "
                             f"{', '.join(logs)}") from None
        self.trainer.check_finite()
        if self.is_weights:
            ema = self.trainer.ema
            save_weights(path, self.trainer.model.state_dict() if ema is None else ema.averaged_state_dict(),
                         {**(self.metadata or {}), **logs, "epoch": epoch + 1})
        else:
            write_state(path, self.trainer.state_dict(), step=self.trainer.progress.step, value=logs.get(self.monitor))

    @staticmethod
    def load(trainer, folder) -> None:
        """Restore the state that was written to `folder`."""
        try:
            trainer.load_state_dict(read_state(Path(folder)))
        except OSError as error:
            raise CheckpointError(f"{folder}: the checkpoint cannot be read ({error.strerror})") from error

    def state_dict(self) -> dict:
        return {"best": self.best}

    def load_state_dict(self, state: dict) -> None:
        self.best = state["best"]
