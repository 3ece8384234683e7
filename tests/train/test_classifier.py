"""Training: an interrupted run goes on bit for bit, and a run that diverges keeps what was good."""

import csv
import os
import signal
import threading

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet import nn
from numbanet.data import ArrayDataset
from numbanet.errors import CheckpointError, TrainingError, UnsupportedOperationError, UsageError
from numbanet.random import seed_everything
from numbanet.train import Callback
from numbanet.train.callbacks import curvature
from numbanet.train.checkpoint import list_checkpoints, read_state, write_state
from numbanet.train.classifier import ClassifierTraining
from numbanet.train.recipe import OPTIMIZERS, Recipe
from numbanet.train.run_directory import RunDirectory
from numbanet.weights import load_weights

BATCHES = 5         # an epoch: 18 samples by 4


class Reporter(Callback):
    """Calls `act(trainer)` after the batch of that number, counted over the whole run."""

    def __init__(self, at=None, act=None):
        self.at, self.act, self.rows = at, act, []

    def on_train_batch_end(self, batch, logs=None):
        assert batch < BATCHES and logs.keys() == {"loss", "accuracy"}
        if self.trainer.progress.step == self.at:
            self.act(self.trainer)

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append(self.trainer.progress.history[-1])


def interrupt(trainer):
    trainer.interrupted = True


class WithHelper(nn.Sequential):
    """Two outputs in training, as networks with auxiliary heads have, and a loss of their own."""

    def forward(self, x):
        y = super().forward(x)
        return (y, y * x[:, :2]) if self.training else y

    @staticmethod
    def loss_function(outputs, labels):
        losses = [nn.functional.cross_entropy(y, labels) for y in (outputs if isinstance(outputs, tuple) else (outputs,))]
        return sum(losses[1:], losses[0])


class Deciding(nn.Sequential):
    """Reads a value of its input, which no compiled step can."""

    def forward(self, x):
        return super().forward(-x if x.mean().item() > 1.5 else x)


def make(folder, reporter=None, seed=0, epochs=3, device="reference", kind=nn.Sequential, **settings):
    """A training of a small network whose every kind of state matters: dropout, running statistics, moments."""
    settings = Recipe("small", epochs=epochs, batch_size=4, device=device, seed=seed, **{"clip_norm": 1.0, **settings})
    random = np.random.default_rng(5)
    inputs = [random.integers(0, 255, (n, 3), np.uint8) for n in (18, 6)]
    train, test = (ArrayDataset(x, (x[:, 0] > x[:, 1]).astype(int), batch_transform=lambda x, _: x.astype(np.float32) / 64) for x in inputs)
    seed_everything(settings.seed)
    model = kind(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 2)).to(device)
    return ClassifierTraining(model, train, test, settings, RunDirectory(folder), {"classes": ["even", "odd"]}, [reporter or Reporter()])


def weights(folder, name="last"):
    return {k: v.tobytes() for k, v in load_weights(folder / "weights" / f"{name}.safetensors")[0].items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    training = make(folder)
    assert training.fit().counts.sum() == 6
    return folder


@pytest.mark.parametrize("at", [1, BATCHES - 1, BATCHES, BATCHES + 2, 2 * BATCHES])
def test_an_interrupted_run_goes_on_bit_for_bit(at, uninterrupted, tmp_path):
    first = make(tmp_path, Reporter(at, interrupt))
    assert first.fit() is None
    assert first.progress.step == at
    assert list_checkpoints(tmp_path / "checkpoints")[-1].name == f"step-{at}"
    numbanet.manual_seed(99)                    # what happens in between does not matter
    second = make(tmp_path, seed=0)
    numbanet.manual_seed(98)
    second.resume()
    assert second.fit() is not None
    assert weights(tmp_path) == weights(uninterrupted)
    assert weights(tmp_path, "best") == weights(uninterrupted, "best")

    def history(folder):
        with open(folder / "metrics.csv", newline="") as file:
            return [{k: v for k, v in row.items() if "second" not in k and k != "waited"} for row in csv.DictReader(file)]
    assert len(history(tmp_path)) == 3 and history(tmp_path) == history(uninterrupted)


@pytest.mark.parametrize("at", [2, BATCHES, BATCHES + 1])
def test_curvatures_are_part_of_what_a_run_goes_on_with(at, tmp_path, monkeypatch):
    monkeypatch.setattr(curvature, "EARLY", {1, 3})
    make(tmp_path / "whole", optimizer="levenberg_marquardt").fit()
    assert make(tmp_path / "parts", Reporter(at, interrupt), optimizer="levenberg_marquardt").fit() is None
    second = make(tmp_path / "parts", optimizer="levenberg_marquardt")
    second.resume()
    second.fit()
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    monkeypatch.setattr(curvature, "EARLY", set())
    make(tmp_path / "late", optimizer="levenberg_marquardt").fit()
    assert weights(tmp_path / "late") != weights(tmp_path / "whole")


def test_an_interruption_in_the_last_batch_lets_the_run_end(uninterrupted, tmp_path):
    assert make(tmp_path, Reporter(3 * BATCHES, interrupt)).fit() is not None
    assert weights(tmp_path) == weights(uninterrupted)


def test_a_finished_run_is_only_judged_again(uninterrupted):
    before = weights(uninterrupted)
    training = make(uninterrupted)
    training.resume()
    assert training.fit().counts.sum() == 6
    assert training.progress.step == 3 * BATCHES and weights(uninterrupted) == before


def test_other_seeds_give_other_weights(uninterrupted, tmp_path):
    make(tmp_path, seed=1).fit()
    assert weights(tmp_path) != weights(uninterrupted)


def test_number_of_workers_does_not_matter(uninterrupted, tmp_path):
    make(tmp_path, workers=0).fit()
    assert weights(tmp_path) == weights(uninterrupted)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("kind", [nn.Sequential, WithHelper])
def test_a_compiled_step_and_a_recorded_one_give_the_same_bits(optimizer, device, kind, tmp_path):
    runs = [Reporter(), Reporter()]
    for reporter, eager in zip(runs, (False, True)):
        make(tmp_path / str(eager), reporter, optimizer=optimizer, device=device, kind=kind, eager=eager).fit()
    assert weights(tmp_path / "True") == weights(tmp_path / "False")
    histories = [[{k: v for k, v in row.items() if "second" not in k and k not in ("val_loss", "waited")} for row in reporter.rows]
                 for reporter in runs]
    assert histories[0] == histories[1] and len(histories[0]) == 3
    losses = [[row["val_loss"] for row in reporter.rows] for reporter in runs]      # plans of inference fold batch norm into weights
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("eager", [False, True])
def test_a_run_may_go_on_in_the_other_way(eager, uninterrupted, tmp_path):
    assert make(tmp_path, Reporter(BATCHES + 2, interrupt), eager=eager).fit() is None
    second = make(tmp_path, eager=not eager)
    second.resume()
    assert second.fit() is not None and weights(tmp_path) == weights(uninterrupted)


def test_a_model_that_reads_values_asks_for_eager(tmp_path):
    with pytest.raises(UnsupportedOperationError, match="reads the values of a tensor.*Deciding cannot be compiled: --eager"):
        make(tmp_path / "compiled", kind=Deciding).fit()
    make(tmp_path / "eager", kind=Deciding, eager=True).fit()
    assert weights(tmp_path / "eager")


def test_what_a_run_leaves(uninterrupted):
    assert {p.name for p in uninterrupted.iterdir()} == {"weights", "checkpoints", "metrics.csv", "curves.png", "confusion.png",
                                                          "mistakes.png", "layers.png", "report.html"}
    with Image.open(uninterrupted / "curves.png") as image:
        image.load()
        assert len(image.convert("RGB").getcolors(1 << 20)) > 4
    metadata = load_weights(uninterrupted / "weights" / "last.safetensors")[1]
    assert metadata["classes"] == ["even", "odd"] and 0 <= metadata["test_accuracy"] <= 1


def spoil(value):
    def act(trainer):
        trainer.model[0].bias.detach().fill_(value)
    return act


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    training = make(tmp_path, Reporter(BATCHES + 2, spoil(float("nan"))))
    with pytest.raises(TrainingError, match=rf"the loss became nan at step {BATCHES + 3} \(epoch 2\).*step-{BATCHES}\..*--lr"):
        training.fit()
    assert [p.name for p in list_checkpoints(tmp_path / "checkpoints")] == [f"step-{BATCHES}"]
    again = make(tmp_path)
    again.resume()
    again.fit()
    assert all(np.isfinite(v).all() for v in load_weights(tmp_path / "weights" / "last.safetensors")[0].values())


@pytest.mark.parametrize(("at", "message"), [
    (BATCHES + 2, rf"0.bias became nan at step {BATCHES + 2}"), (2 * BATCHES, f"the validation loss became nan at step {2 * BATCHES}")])
def test_spoilt_parameters_are_not_written_over_good_ones(at, message, tmp_path):
    """The last step before a checkpoint may have spoilt them, and no loss has shown it yet."""
    def act(trainer):
        spoil(float("nan"))(trainer)
        trainer.interrupted = True
    with pytest.raises(TrainingError, match=message):
        make(tmp_path, Reporter(at, act)).fit()
    assert [p.name for p in list_checkpoints(tmp_path / "checkpoints")] == [f"step-{BATCHES}"]
    assert np.isfinite(load_weights(tmp_path / "weights" / "last.safetensors")[0]["0.bias"]).all()


def test_divergence_before_the_first_checkpoint_says_so(tmp_path):
    with pytest.raises(TrainingError, match="at step 2 .*there was no checkpoint yet"):
        make(tmp_path, Reporter(1, spoil(float("nan")))).fit()


def test_ctrl_c_lets_the_step_end_and_gives_the_handler_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    training = make(tmp_path, Reporter(2, lambda _: os.kill(os.getpid(), signal.SIGINT)))
    assert training.fit() is None
    assert training.progress.step in (2, 3) and list_checkpoints(tmp_path / "checkpoints")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    def twice(trainer):
        trainer.interrupted = True
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, Reporter(2, twice)).fit()


def test_training_in_another_thread_needs_no_signals(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(make(tmp_path).fit()))
    thread.start()
    thread.join()
    assert results[0].counts.sum() == 6 and weights(tmp_path)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimiser_learns(optimizer, tmp_path):
    reporter = Reporter()
    make(tmp_path, reporter, optimizer=optimizer, epochs=8).fit()
    assert reporter.rows[-1]["loss"] < reporter.rows[0]["loss"]
    assert reporter.rows[-1]["step"] == 8 * BATCHES


def test_a_checkpoint_of_another_version(tmp_path):
    make(tmp_path, epochs=1).fit()
    folder = list_checkpoints(tmp_path / "checkpoints")[-1]
    state = read_state(folder)
    state["progress"]["bunch"] = state["progress"].pop("batch")
    write_state(folder, state)
    with pytest.raises(CheckpointError, match="another version.*bunch"):
        make(tmp_path, epochs=1).resume()


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("batch_size", 0), ("batch_size", -3), ("lr", 0.0), ("lr", float("nan")),
                                             ("lr", float("inf")), ("optimizer", "adamm"), ("workers", -1)])
def test_settings_out_of_range(name, value):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}: expected .*received {value!r}"):
        Recipe("lenet5", **{name: value})
