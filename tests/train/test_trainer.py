"""The engine beside a loop by hand: the same bits, and what each option adds, by its formula."""

import copy
import time

import numpy as np
import pytest

import numbanet
from numbanet import nn, optim
from numbanet.data import ArrayDataset, DataLoader
from numbanet.errors import CheckpointError, DataError, TrainingError, UsageError
from numbanet.nn import functional as F
from numbanet.nn.utils import clip_grad_norm_
from numbanet.optim import lr_scheduler
from numbanet.train import (
    Accuracy,
    BackupAndRestore,
    ConfusionMatrix,
    CutMix,
    EarlyStopping,
    ExponentialMovingAverage,
    LambdaCallback,
    MixUp,
    Trainer,
    freeze,
    freeze_until,
    parameter_groups,
    unfreeze,
)
from numbanet.train.mixing import class_probabilities

X = np.random.default_rng(3).standard_normal((22, 3)).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64)


def model(seed=0, dropout=0.0):
    numbanet.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2)).to("reference")


def loader(size=4, seed=7, shuffle=True):
    return DataLoader(ArrayDataset(X, Y), size, shuffle=shuffle, seed=seed)


def sgd(net, **options):
    return optim.SGD(net.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})


def bits(net):
    return {name: t.detach().numpy().tobytes() for name, t in net.state_dict().items()}


def by_hand(net, optimizer, epochs, size=4, scheduler=None, clip=None):
    batches = loader(size)
    for _ in range(epochs):
        for x, y in batches:
            net.train()
            optimizer.zero_grad()
            F.cross_entropy(net(x.to("reference")), y.to("reference")).backward()
            if clip:
                clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
        if scheduler:
            scheduler.step()
    return net


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("clip", [None, 0.05, 1e9])
def test_the_same_bits_as_a_loop_by_hand(compiled, clip):
    expected, net = model(), model()
    optimizer = sgd(expected)
    by_hand(expected, optimizer, 3, scheduler=lr_scheduler.StepLR(optimizer, 1, 0.5), clip=clip)
    optimizer = sgd(net)
    trainer = Trainer(net, None, optimizer, lr_scheduler.StepLR(optimizer, 1, 0.5), compiled=compiled, clip_norm=clip)
    history = trainer.fit(loader(), epochs=3)
    assert bits(net) == bits(expected) and trainer.progress.step == 18 and history.epoch == [0, 1, 2]
    assert history.history["learning_rate"] == [0.1, 0.05, 0.025]


def test_on_the_kernels_it_learns_and_evaluates():
    net = model().to("cpu")
    trainer = Trainer(net, None, sgd(net))
    history = trainer.fit(loader(), loader(5, shuffle=False), 12).history
    assert history["loss"][-1] < history["loss"][0] and history["val_accuracy"][-1] > 0.8
    net.eval()
    logits = net(numbanet.tensor(X)).detach().numpy()
    np.testing.assert_allclose(trainer.predict(X, batch_size=5), logits, rtol=1e-4, atol=1e-5)
    results = trainer.evaluate(loader(5, shuffle=False))
    assert results["accuracy"] == (logits.argmax(1) == Y).mean()
    assert results["loss"] == pytest.approx(F.cross_entropy(numbanet.tensor(logits), numbanet.tensor(Y)).item(), rel=1e-4)


@pytest.mark.parametrize("compiled", [True, False])
def test_accumulated_gradients_are_those_of_the_large_batch(compiled):
    """Without batch norm, whose statistics are of each small batch."""
    def net():
        numbanet.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).to("reference")
    large, small = net(), net()
    Trainer(large, None, sgd(large), compiled=False).fit(DataLoader(ArrayDataset(X[:20], Y[:20]), 10), epochs=2)
    trainer = Trainer(small, None, sgd(small), compiled=compiled, accumulate=2)
    trainer.fit(DataLoader(ArrayDataset(X[:20], Y[:20]), 5), epochs=2)
    assert trainer.progress.step == 4
    for a, b in zip(large.parameters(), small.parameters()):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)
    trainer.fit(DataLoader(ArrayDataset(X[:15], Y[:15]), 5), epochs=3)
    assert trainer.progress.step == 6           # the batch that is left over makes an update of its own


def test_the_moving_average_by_its_formula():
    net, seen = model(), []
    trainer = Trainer(net, None, sgd(net), ema_decay=0.9, callbacks=[
        LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(net[0].weight.detach().numpy().copy()))])
    expected = net[0].weight.detach().numpy().copy()
    trainer.fit(loader(), loader(5), 2)
    for values in seen:
        expected = 0.9 * expected + 0.1 * values
    np.testing.assert_allclose(trainer.ema.averages["0.weight"].numpy(), expected, rtol=1e-5, atol=1e-6)
    own = bits(net)
    inside = []
    with trainer.ema.applied():
        inside.append(bits(net))
    assert bits(net) == own != inside[0]
    assert inside[0]["0.weight"] == trainer.ema.averages["0.weight"].numpy().tobytes()
    net.load_state_dict({k: v.numpy() for k, v in trainer.ema.averaged_state_dict().items()})
    assert trainer.evaluate(loader(5), ema=False) == pytest.approx(trainer.evaluate(loader(5)), rel=1e-5)
    with pytest.raises(UsageError, match="decay expects"):
        ExponentialMovingAverage(net, 1.0)


def test_smoothing_is_that_of_the_loss():
    expected, net = model(), model()
    optimizer = sgd(expected)
    for x, y in loader():
        optimizer.zero_grad()
        F.cross_entropy(expected(x.to("reference")), y.to("reference"), label_smoothing=0.2).backward()
        optimizer.step()
    Trainer(net, None, sgd(net), label_smoothing=0.2, num_classes=2).fit(loader(), epochs=1)
    for a, b in zip(expected.parameters(), net.parameters()):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_mixup_by_its_formula():
    x, y = numbanet.tensor(X[:5]), numbanet.tensor([0, 1, 2, 1, 0])
    mixed, target = MixUp(alpha=0.4, num_classes=3)(x, y, np.random.default_rng(1))
    lam = np.float32(np.random.default_rng(1).beta(0.4, 0.4))
    np.testing.assert_allclose(mixed.numpy(), lam * X[:5] + (1 - lam) * np.roll(X[:5], 1, 0), rtol=1e-6)
    hot = np.eye(3, dtype=np.float32)[y.numpy()]
    np.testing.assert_allclose(target.numpy(), lam * hot + (1 - lam) * np.roll(hot, 1, 0), rtol=1e-6)
    assert (x.numpy() == X[:5]).all()


@pytest.mark.parametrize("seed", range(12))
def test_cutmix_weighs_targets_by_what_is_seen(seed):
    x = np.arange(3, dtype=np.float32)[:, None, None, None] + np.zeros((3, 2, 7, 5), np.float32)
    mixed, target = CutMix(num_classes=3)(numbanet.tensor(x), numbanet.tensor([0, 1, 2]), np.random.default_rng(seed))
    for i, (picture, probabilities) in enumerate(zip(mixed.numpy(), target.numpy())):
        own, neighbour = (picture == i).mean(), (picture == (i - 1) % 3).mean()
        assert own + neighbour == 1 and probabilities[i] == pytest.approx(own) and probabilities[(i - 1) % 3] == pytest.approx(neighbour)


def test_mixing_trains_and_is_drawn_anew():
    net = model()
    trainer = Trainer(net, None, sgd(net), mixing=[MixUp(alpha=0.3), MixUp(alpha=2.0)], num_classes=2)
    history = trainer.fit(loader(), loader(5), 10).history
    assert history["val_loss"][-1] < history["val_loss"][0]
    for options, message in (({"mixing": MixUp()}, "number of classes"), ({"label_smoothing": 0.1}, "number of classes")):
        with pytest.raises(UsageError, match=message):
            Trainer(net, None, sgd(net), **options).fit(loader())
    with pytest.raises(UsageError, match="alpha"):
        MixUp(alpha=0)
    assert class_probabilities(numbanet.tensor([1]), 4, 0.2).numpy().tolist() == [pytest.approx([0.05, 0.85, 0.05, 0.05])]


# Freezing

@pytest.mark.parametrize("compiled", [True, False])
def test_frozen_layers_stay_as_they_are(compiled):
    net = model()
    assert freeze_until(net, "4") == ["0", "1", "2", "3"]
    before = bits(net)
    Trainer(net, None, sgd(net), compiled=compiled).fit(loader(), epochs=2)
    changed = {name for name, value in bits(net).items() if value != before[name]}
    assert changed == {"4.weight", "4.bias"} and not net[1].training and net[4].training
    unfreeze(net)
    assert net[1].training and all(p.requires_grad for p in net.parameters())


def test_freeze_until_a_block_of_a_network():
    net = numbanet.create_model("resnet18", num_classes=3)
    freeze_until(net, "layer4.1")
    learning = {name.rpartition(".")[0].rpartition(".")[0] if "fc" not in name else "fc" for name, p in net.named_parameters()
                if p.requires_grad}
    assert learning == {"layer4.1", "fc"}
    net.train()
    assert not net.layer4[0].bn1.training and net.layer4[1].bn1.training
    with pytest.raises(UsageError, match="no layer 'layer44'; did you mean layer4"):
        freeze_until(net, "layer44")
    copied = copy.deepcopy(freeze(net))
    assert not copied.train().fc.training


def test_groups_of_parameters():
    net = model()
    groups = parameter_groups(net, 0.1, layer_lr={"4": 10, "0": 0.5}, weight_decay=1e-2, norm_weight_decay=0.0)
    found = {tuple(p.shape): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found[(8, 3)] == (0.05, 1e-2) and found[(2, 8)] == (1.0, 1e-2)
    assert [(g["lr"], g["weight_decay"]) for g in groups if any(p is net[1].weight for p in g["params"])] == [(0.1, 0.0)]
    assert sum(len(g["params"]) for g in groups) == 6
    optim.SGD(groups, lr=0.1)
    with pytest.raises(UsageError, match="no layer '5'"):
        parameter_groups(net, 0.1, layer_lr={"5": 1})
    with pytest.raises(UsageError, match="all are frozen"):
        parameter_groups(freeze(net), 0.1)


# Going on

def everything(folder, epochs_of=None):
    net = model(dropout=0.3)
    optimizer = optim.AdamW(parameter_groups(net, 0.05, layer_lr={"4": 2}))
    return Trainer(net, None, optimizer, lr_scheduler.OneCycleLR(optimizer, [0.05, 0.1], total_steps=12, cycle_momentum=False),
                   [EarlyStopping(patience=9, restore_best_weights=True), BackupAndRestore(folder, save_freq=2)], ema_decay=0.8,
                   accumulate=2, clip_norm=0.5, label_smoothing=0.1, mixing=MixUp(alpha=0.3), num_classes=2,
                   metrics={"accuracy": Accuracy(), "confusion": ConfusionMatrix(2)})


@pytest.mark.parametrize("at", [1, 3, 4, 7, 11])
def test_all_that_has_a_memory_goes_on_to_the_same_bits(at, tmp_path):
    whole = everything(tmp_path / "whole")
    history = whole.fit(loader(), loader(5), 4).rows
    first = everything(tmp_path / "stopped")

    def stop(batch, logs):
        first.interrupted = first.progress.step >= at
    first.callbacks = type(first.callbacks)([*first.callbacks, LambdaCallback(on_train_batch_end=stop)], first)
    first.fit(loader(), loader(5), 4)
    assert at <= first.progress.step < 12
    np.random.seed(99)
    second = everything(tmp_path / "stopped")
    rows = second.fit(loader(), loader(5), 4).rows
    assert bits(second.model) == bits(whole.model)
    assert {k: v.numpy().tobytes() for k, v in second.ema.averages.items()} == {k: v.numpy().tobytes()
                                                                                 for k, v in whole.ema.averages.items()}
    strip = lambda rows: [{k: v for k, v in row.items() if "second" not in k and k != "waited"} for row in rows]
    assert strip(rows) == strip(history)


def test_loaders_that_draw_their_seeds_go_on_with_them(tmp_path):
    def run(folder, epochs):
        net = model(dropout=0.4)
        trainer = Trainer(net, None, sgd(net), callbacks=[BackupAndRestore(folder)])
        trainer.fit(DataLoader(ArrayDataset(X, Y), 4, shuffle=True), DataLoader(ArrayDataset(X, Y), 9), epochs=epochs)
        return bits(net)
    expected = run(tmp_path / "a", 4)
    run(tmp_path / "b", 2)
    assert run(tmp_path / "b", 4) == expected


def test_what_a_state_does_not_fit(tmp_path):
    first = everything(tmp_path / "a")
    first.fit(loader(), loader(5), 1)
    state = first.state_dict()
    net = model()
    with pytest.raises(CheckpointError, match="the state is with scheduler, this Trainer is without it"):
        Trainer(net, None, sgd(net)).load_state_dict(state)
    other = everything(tmp_path / "b")
    other.callbacks = type(other.callbacks)([], other)
    with pytest.raises(CheckpointError, match="what EarlyStopping remembers, but the callbacks are none"):
        other.load_state_dict(state)
    wider = everything(tmp_path / "c")
    wider.model.register_module("4", nn.Linear(8, 3))
    with pytest.raises(CheckpointError, match="does not fit Sequential"):
        wider.load_state_dict(state)
    with pytest.raises(CheckpointError, match="another version"):
        everything(tmp_path / "d").load_state_dict({**state, "progress": {"epoch": 1, "speed": 2}})


def test_another_recipe_in_the_same_folder(tmp_path):
    for recipe, fails in (({"lr": 1}, False), ({"lr": 2}, True)):
        net = model()
        trainer = Trainer(net, None, sgd(net), callbacks=[BackupAndRestore(tmp_path, recipe=recipe)])
        if fails:
            with pytest.raises(CheckpointError, match="of a run with another lr"):
                trainer.fit(loader())
        else:
            trainer.fit(loader())


def test_two_writers(tmp_path):
    def begin(epoch, logs=None):
        net = model()
        with pytest.raises(CheckpointError, match=r"another process \(process \d+ on .*\) is writing there"):
            Trainer(net, None, sgd(net), callbacks=[BackupAndRestore(tmp_path)]).fit(loader())
    net = model()
    Trainer(net, None, sgd(net), callbacks=[BackupAndRestore(tmp_path), LambdaCallback(on_epoch_begin=begin)]).fit(loader())
    assert not (tmp_path / ".lock").exists()


# What goes wrong

def test_a_loss_that_is_no_number_changes_nothing():
    net = model()
    before = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
    data = DataLoader(ArrayDataset(np.full((4, 3), np.nan, np.float32), Y[:4]), 4)
    with pytest.raises(TrainingError, match=r"the loss became nan at step 1 \(epoch 1\); no callback keeps checkpoints"):
        Trainer(net, None, sgd(net)).fit(data)
    assert all((p.detach().numpy() == before[name]).all() for name, p in net.named_parameters())


def test_what_fit_refuses():
    net = model()
    with pytest.raises(UsageError, match="expected an optimizer"):
        Trainer(net).fit(loader())
    for options, message in (({"accumulate": 0}, "accumulate expects"), ({"clip_norm": 0}, "clip_norm expects"),
                             ({"clip_value": -1}, "clip_value"), ({"label_smoothing": 1}, "label_smoothing"),
                             ({"scheduler_interval": "batch"}, "scheduler_interval"), ({"callbacks": [print]}, "callbacks expects")):
        with pytest.raises(UsageError, match=message):
            Trainer(net, None, sgd(net), **options)
    trainer = Trainer(net, None, sgd(net))
    for data, message in (([], "gave no batch"), ([X], "expects .x, y., received ndarray"), ([(X, Y, Y)], "received tuple of 3")):
        with pytest.raises(UsageError, match=message):
            trainer.fit(data)
    with pytest.raises(UsageError, match="epochs expects"):
        trainer.fit(loader(), epochs=0)
    with pytest.raises(UsageError, match="gave no batch"):
        trainer.evaluate([])
    with pytest.raises(UsageError, match="one batch at least"):
        trainer.predict([])


def test_other_losses_and_shapes_of_batches():
    net = nn.Linear(3, 1).to("reference")
    trainer = Trainer(net, lambda out, y: ((out[:, 0] - y) ** 2).mean(), sgd(net, lr=0.05))
    target = (X @ np.array([1, -2, 0.5], np.float32)).astype(np.float32)
    rows = trainer.fit([(X, target), (X[:7], target[:7])], [(X, target)], 40).rows
    assert rows[-1]["val_loss"] < 1e-3 and rows[-1].keys() == {"epoch", "step", "loss", "val_loss", "learning_rate", "seconds",
                                                               "samples_per_second"}


class Watched(ArrayDataset):
    """Remembers which samples were asked for; some cannot be loaded."""

    def __init__(self, broken=()):
        super().__init__(X, Y)
        self.asked, self.broken = [], broken

    def __getitem__(self, index):
        self.asked.append(int(index))
        if index in self.broken:
            raise OSError("a file that is broken")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("broken", [(), (0, 1, 2, 3, 9, 20, 21)], ids=["whole", "broken"])
def test_going_on_within_an_epoch_loads_what_is_left(workers, broken, tmp_path):
    """Also where samples, and batches of them only, were left out."""
    make = lambda: DataLoader(Watched(broken), 4, num_workers=workers, on_error="skip", seed=0)
    whole = everything(tmp_path / "whole")
    whole.fit(make(), loader(5), 2)
    first, stopped = everything(tmp_path / "stopped"), make()

    def stop(batch, logs):
        first.interrupted = batch >= 3
    first.callbacks = type(first.callbacks)([*first.callbacks, LambdaCallback(on_train_batch_end=stop)], first)
    first.fit(stopped, loader(5), 2)
    begin = 5 if broken else 4                      # an update is made after every second batch, and one was left out
    assert first.progress.epoch == 0 and first.progress.batch == begin
    second, rest = everything(tmp_path / "stopped"), make()
    rows = second.fit(rest, loader(5), 2).rows
    assert bits(second.model) == bits(whole.model)
    assert set(rest.dataset.asked[:2]) <= set(range(4 * begin, 22)) and rest.dataset.asked.count(5) == 1
    assert {error.index for error in rest.skipped} == set(broken)
    assert rows[1]["skipped"] == len(broken) and rows[0]["skipped"] == sum(i >= 20 for i in broken)


def test_waiting_is_part_of_the_time():
    class Slow(Watched):
        def __getitem__(self, index):
            time.sleep(0.003)
            return super().__getitem__(index)
    net, data = model(), DataLoader(Slow(), 4)
    row, = Trainer(net, None, sgd(net)).fit(data, None, 1).rows
    assert 22 * 0.003 <= row["waited"] + 1e-3 <= row["seconds"] + 2e-3 and row["skipped"] == 0
    assert row["waited"] == pytest.approx(data.waited.seconds, abs=2e-3)


def test_a_sample_that_cannot_be_loaded_loses_nothing(tmp_path):
    """The error names it, what was learned before it is kept, and leaving it out goes on from there."""
    whole = everything(tmp_path / "whole")
    whole.fit(DataLoader(Watched((9,)), 4, on_error="skip", seed=0), loader(5), 2)
    with pytest.raises(DataError, match="sample 9 of Watched failed: OSError: a file that is broken"):
        everything(tmp_path / "stopped").fit(DataLoader(Watched((9,)), 4, seed=0), loader(5), 2)
    second = everything(tmp_path / "stopped")
    second.fit(DataLoader(Watched((9,)), 4, on_error="skip", seed=0), loader(5), 2)
    assert second.train_loader.dataset.asked[0] == 8 and bits(second.model) == bits(whole.model)
