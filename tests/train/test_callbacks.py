"""Callbacks: Keras's order of hooks, and each by a table of numbers it is shown."""

import csv
import math

import numpy as np
import pytest

import numbanet
from numbanet import nn, optim
from numbanet.errors import CheckpointError, UnsupportedOperationError, UsageError
from numbanet.train import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    CurvatureEstimation,
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TensorBoard,
    TerminateOnNaN,
    Trainer,
)
from numbanet.train.callbacks.callback import HOOKS
from numbanet.weights import load_weights

BATCHES = [(np.ones((2, 3), np.float32) * i, np.array([0, 1])) for i in (1, 2)]


class Shown(Callback):
    """Puts numbers of its own into the logs."""

    def __init__(self, **values):
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: series[epoch] for name, series in self.values.items()})


def trainer(*callbacks, lr=0.1):
    numbanet.manual_seed(0)
    net = nn.Linear(3, 2).to("reference")
    return Trainer(net, None, optim.SGD(net.parameters(), lr=lr), callbacks=callbacks, compiled=False)


def test_hooks_come_in_keras_order():
    calls = []
    hooks = {name: (lambda *a, name=name: calls.append((name, *a[:-1]))) for name in HOOKS}
    made = trainer(LambdaCallback(**hooks))
    made.fit(BATCHES, BATCHES[:1], 1)
    names = [("on_train_begin",), ("on_epoch_begin", 0), ("on_train_batch_begin", 0), ("on_train_batch_end", 0),
             ("on_train_batch_begin", 1), ("on_train_batch_end", 1), ("on_test_begin",), ("on_test_batch_begin", 0),
             ("on_test_batch_end", 0), ("on_test_end",), ("on_epoch_end", 0), ("on_train_end",)]
    assert calls == names
    calls.clear()
    made.predict(BATCHES)
    assert [c[0] for c in calls] == ["on_predict_begin", *["on_predict_batch_begin", "on_predict_batch_end"] * 2, "on_predict_end"]
    with pytest.raises(UsageError, match="no hook on_epoch_ends; did you mean on_epoch_end"):
        LambdaCallback(on_epoch_ends=print)


def test_curvatures_need_their_optimiser_and_a_data_set():
    with pytest.raises(UsageError, match="expected the optimiser DiagonalLevenbergMarquardt, received SGD"):
        trainer(CurvatureEstimation()).fit(BATCHES)
    net = nn.Linear(3, 2)
    with pytest.raises(UsageError, match="expected a DataLoader, .* received list"):
        Trainer(net, None, optim.DiagonalLevenbergMarquardt(net.parameters()), callbacks=[CurvatureEstimation()]).fit(BATCHES)


def test_stopping_as_in_keras():
    """stop_training stands on the model as well; the epoch is closed."""
    def stop(batch, logs):
        made.model.stop_training = True
    made = trainer(LambdaCallback(on_train_batch_end=stop))
    rows = made.fit(BATCHES, epochs=5).rows
    assert len(rows) == 1 and made.progress.step == 1


@pytest.mark.parametrize(("options", "losses", "epochs"), [
    ({"patience": 2}, [5, 4, 4, 4, 1, 1], 4), ({}, [5, 6, 1], 2), ({"patience": 2, "min_delta": 1}, [5, 4.5, 3.9, 3, 3, 3], 5),
    ({"patience": 1, "start_from_epoch": 3}, [1, 2, 3, 9, 8, 9, 1], 6), ({"patience": 2, "baseline": 3}, [5, 6, 2], 2),
    ({"patience": 2, "baseline": 3}, [5, 4, 2, 1, 1, 1, 0], 6),
    ({"patience": 2, "mode": "max"}, [1, 2, 1, 3, 1, 1, 1], 6), ({"patience": 1}, [math.nan, math.nan, 1], 2)])
def test_early_stopping(options, losses, epochs):
    made = trainer(Shown(val_loss=losses), EarlyStopping(**options))
    assert len(made.fit(BATCHES, epochs=len(losses)).rows) == epochs


def test_early_stopping_gives_the_best_weights_back():
    weights = []
    made = trainer(Shown(val_loss=[5, 3, 4, 6]), EarlyStopping(patience=2, restore_best_weights=True))
    made.callbacks = type(made.callbacks)([*made.callbacks, LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(made.model.weight.detach().numpy().copy()))], made)
    made.fit(BATCHES, epochs=9)
    assert len(weights) == 4 and (made.model.weight.detach().numpy() == weights[1]).all() and not (weights[1] == weights[3]).all()


def test_an_entry_that_the_logs_lack():
    with pytest.raises(UsageError, match="monitor='val_loss' is none of loss, accuracy, learning_rate; fit got no val_loader"):
        trainer(EarlyStopping()).fit(BATCHES)
    with pytest.raises(UsageError, match="mode expects"):
        EarlyStopping(mode="best")


def test_reduce_lr_on_plateau():
    rates = []
    made = trainer(Shown(val_loss=[5, 5, 5, 5, 5, 1, 1, 1, 1]), ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_lr=0.03),
                   LambdaCallback(on_epoch_end=lambda e, logs: rates.append(made.optimizer.param_groups[0]["lr"])))
    made.fit(BATCHES, epochs=9)
    # waits 1, 2 -> halves; cooldown eats one epoch; waits 1, 2 -> at least min_lr
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.03, 0.03, 0.03, 0.03, 0.03])


def test_terminate_on_nan_ends_without_an_error():
    made = trainer(TerminateOnNaN())
    before = made.model.weight.detach().numpy().copy()
    bad = [(np.full((2, 3), np.inf, np.float32), np.array([0, 1])), *BATCHES]
    rows = made.fit(bad, epochs=3).rows
    assert len(rows) == 1 and math.isnan(rows[0]["loss"]) and (made.model.weight.detach().numpy() == before).all()


def test_csv_logger(tmp_path):
    file = tmp_path / "log.csv"

    def read(separator=","):
        with open(file, newline="") as lines:
            return list(csv.DictReader(lines, delimiter=separator))
    trainer(CSVLogger(file, separator=";")).fit(BATCHES, BATCHES, 2)
    rows = read(";")
    assert [row["epoch"] for row in rows] == ["0", "1"] and list(rows[0]) == ["epoch", "accuracy", "learning_rate", "loss",
                                                                              "val_accuracy", "val_loss"]
    trainer(CSVLogger(file)).fit(BATCHES, epochs=1)
    assert len(read()) == 1
    trainer(CSVLogger(file, append=True)).fit(BATCHES, epochs=2)
    assert [row["epoch"] for row in read()] == ["0", "0", "1"]
    file.write_text("a,b\n1,2\n")
    with pytest.raises(CheckpointError, match="no column 'epoch'"):
        trainer(CSVLogger(file, append=True)).fit(BATCHES)
    assert file.read_text() == "a,b\n1,2\n"


def test_csv_logger_of_a_run_that_goes_on(tmp_path):
    file = tmp_path / "log.csv"
    trainer(CSVLogger(file), BackupAndRestore(tmp_path / "backup")).fit(BATCHES, epochs=2)
    trainer(CSVLogger(file), BackupAndRestore(tmp_path / "backup")).fit(BATCHES, epochs=4)
    assert [line.split(",")[0] for line in file.read_text().splitlines()] == ["epoch", "0", "1", "2", "3"]


def test_model_checkpoint(tmp_path):
    made = trainer(Shown(val_loss=[3, 4, 2]), ModelCheckpoint(tmp_path / "w-{epoch:02d}-{val_loss:.1f}.safetensors", save_best_only=True,
                                                              metadata={"classes": ["a"]}),
                   ModelCheckpoint(tmp_path / "all-{epoch}"))
    made.fit(BATCHES, epochs=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all-1", "all-2", "all-3", "w-01-3.0.safetensors", "w-03-2.0.safetensors"]
    arrays, metadata = load_weights(tmp_path / "w-03-2.0.safetensors")
    assert (arrays["weight"] == made.model.weight.detach().numpy()).all() and metadata["classes"] == ["a"] and metadata["epoch"] == 3
    again = trainer(Shown(val_loss=[3, 4, 2, 5]), ModelCheckpoint(tmp_path / "x.npz"), ModelCheckpoint(tmp_path / "y"))
    ModelCheckpoint.load(again, tmp_path / "all-3")
    assert again.progress.epoch == 3 and (again.model.weight.detach().numpy() == arrays["weight"]).all()
    with pytest.raises(CheckpointError, match="gone"):
        ModelCheckpoint.load(again, tmp_path / "gone")
    with pytest.raises(UsageError, match="cannot be filled in .'top5'.; the logs hold loss"):
        trainer(ModelCheckpoint("{top5}.npz")).fit(BATCHES)
    with pytest.raises(UsageError, match="save_weights_only=True expects a name that ends in"):
        ModelCheckpoint(tmp_path / "folder", save_weights_only=True)


def test_backup_deletes_on_request_and_counts_updates(tmp_path):
    trainer(BackupAndRestore(tmp_path / "a", save_freq=1, keep=3)).fit(BATCHES, epochs=3)
    assert len(list((tmp_path / "a").glob("step-*"))) in (3, 4)
    trainer(BackupAndRestore(tmp_path / "b", delete_checkpoint=True)).fit(BATCHES, epochs=3)
    assert not list((tmp_path / "b").iterdir())
    with pytest.raises(UsageError, match="save_freq"):
        BackupAndRestore(tmp_path, save_freq=0)


def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    trainer(TensorBoard(tmp_path, update_freq=1, histogram_freq=1)).fit(BATCHES, BATCHES, 2)
    files = {part: list((tmp_path / part).glob("events*")) for part in ("train", "validation")}
    assert all(len(found) == 1 for found in files.values())
    names = set()
    data, at = files["train"][0].read_bytes(), 0
    while at < len(data):                           # length, its checksum, the event, its checksum
        length = int.from_bytes(data[at:at + 8], "little")
        names |= {value.tag for value in Event.FromString(data[at + 12:at + 12 + length]).summary.value}
        at += 16 + length
    assert {"epoch_loss", "epoch_accuracy", "epoch_learning_rate", "batch_loss", "weight"} <= names
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(UnsupportedOperationError, match=r"numbanet\[tensorboard\]"):
        TensorBoard(tmp_path)
