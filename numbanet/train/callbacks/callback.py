"""The interface of callbacks: Keras's hooks, and what a stopped run needs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from numbanet.errors import CheckpointError, UsageError

HOOKS = tuple(f"on_{what}_{when}" for what in ("train", "epoch", "train_batch", "test", "test_batch", "predict", "predict_batch")
              for when in ("begin", "end"))


class Callback:
    """Base of the callbacks; override the hooks that are wanted.

    `logs` are dicts of numbers: at the end of an epoch ``loss``, the metrics, ``val_loss``, ``val_<metric>`` and ``learning_rate``; at the
    end of a batch the loss and metrics of the epoch so far. `epoch` and `batch` count from 0. A hook stops the training with
    ``self.trainer.stop_training = True`` (or ``self.model.stop_training``, which is the same, as in Keras).

    Attributes
    ----------
    trainer : Trainer, from the moment that it is given to one
    model : Module
    """

    trainer = None
    last = False                # called after those that are not, such as what writes the states of all
    only_first = False          # of several processes that train together only the first calls it: what writes

    @property
    def model(self):
        return None if self.trainer is None else self.trainer.model

    def on_train_begin(self, logs=None): ...
    def on_train_end(self, logs=None): ...
    def on_epoch_begin(self, epoch, logs=None): ...
    def on_epoch_end(self, epoch, logs=None): ...
    def on_train_batch_begin(self, batch, logs=None): ...
    def on_train_batch_end(self, batch, logs=None): ...
    def on_test_begin(self, logs=None): ...
    def on_test_end(self, logs=None): ...
    def on_test_batch_begin(self, batch, logs=None): ...
    def on_test_batch_end(self, batch, logs=None): ...
    def on_predict_begin(self, logs=None): ...
    def on_predict_end(self, logs=None): ...
    def on_predict_batch_begin(self, batch, logs=None): ...
    def on_predict_batch_end(self, batch, logs=None): ...

    def restore(self):
        """Before ``on_train_begin`` of any: load a state, if there is one to go on from."""

    def on_exception(self, error: BaseException) -> None:
        """The training ends with this error: give back what is held."""

    def recovery(self) -> str | None:
        """What is left when a run has failed, in words."""
        return None

    def state_dict(self) -> dict:
        """What going on needs, as plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` gave."""


class CallbackList:
    """Calls hooks in order; those that no callback overrides cost nothing."""

    def __init__(self, callbacks, trainer):
        callbacks = list(callbacks)
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise UsageError(f"Trainer: callbacks expects instances of Callback, received {callback!r}")
        self.silent = trainer.replicas is not None and trainer.replicas.rank > 0
        self._callbacks = sorted(callbacks, key=lambda c: c.last)
        for callback in self._callbacks:
            callback.trainer = trainer
        for hook in HOOKS:
            setattr(self, hook, self._caller(hook))

    @property
    def watches_batches(self) -> bool:
        return self.on_train_batch_begin is not _nothing or self.on_train_batch_end is not _nothing

    def _caller(self, hook: str):
        calls = [getattr(c, hook) for c in self._callbacks if overrides(c, hook) and not (self.silent and c.only_first)]
        if not calls:
            return _nothing
        takes_position = "batch" in hook or "epoch" in hook

        def at(position, logs=None):
            logs = {} if logs is None else logs
            for call in calls:
                call(position, logs)

        def once(logs=None):
            logs = {} if logs is None else logs
            for call in calls:
                call(logs)
        return at if takes_position else once

    def restore(self) -> None:
        for callback in self._callbacks:
            callback.restore()

    def on_exception(self, error: BaseException) -> None:
        for callback in self._callbacks:
            callback.on_exception(error)

    def state_dict(self) -> dict:
        return {name: state for name, callback in self._named() if (state := callback.state_dict())}

    def load_state_dict(self, states: dict) -> None:
        named = dict(self._named())
        for name, state in states.items():
            if name not in named:
                raise CheckpointError(f"the state holds what {name} remembers, but the callbacks are {', '.join(named) or 'none'}; pass "
                                      "the same callbacks as before")
            named[name].load_state_dict(state)

    def _named(self) -> Iterator[tuple[str, Callback]]:
        """By class, with a number from the second of a class on."""
        seen: dict[str, int] = {}
        for callback in self._callbacks:
            name = type(callback).__name__
            seen[name] = seen.get(name, 0) + 1
            yield (name if seen[name] == 1 else f"{name}-{seen[name]}"), callback

    def __iter__(self) -> Iterator[Callback]:
        return iter(self._callbacks)


def overrides(callback: Callback, hook: str) -> bool:
    return hook in vars(callback) or getattr(type(callback), hook) is not getattr(Callback, hook)


def _nothing(*_arguments) -> None:
    pass


class LambdaCallback(Callback):
    """Hooks from functions: ``LambdaCallback(on_epoch_end=lambda epoch, logs: ...)``."""

    def __init__(self, **hooks):
        for name, function in hooks.items():
            if name not in HOOKS:
                close = difflib.get_close_matches(name, HOOKS, 1)
                raise UsageError(f"LambdaCallback: there is no hook {name}" + (f"; did you mean {close[0]}?" if close else ""))
            if function is not None:
                setattr(self, name, function)


class History:
    """What ``fit`` returns.

    Attributes
    ----------
    rows : list of dict, one an epoch
    epoch : list of int, from 0 as in Keras
    history : dict of name -> list of values, one an epoch
    """

    def __init__(self, rows: list[dict]):
        self.rows = [dict(row) for row in rows]
        self.epoch = [row["epoch"] - 1 for row in rows]
        names = dict.fromkeys(name for row in rows for name in row if name != "epoch")
        self.history = {name: [row.get(name) for row in rows] for name in names}
