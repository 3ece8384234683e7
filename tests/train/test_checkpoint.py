"""Checkpoints: everything comes back bit for bit, and there is always a whole one."""

import json
import logging
import shutil

import numpy as np
import pytest

import numbanet
from numbanet import nn, optim
from numbanet.errors import CheckpointError
from numbanet.train.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from tests.faults import Disk, Killed

OPTIMIZERS = {"adamw": lambda p: optim.AdamW(p, lr=0.1), "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
              "rmsprop": lambda p: optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True)}


class Run:
    """A small model in training, on plain NumPy."""

    def __init__(self, optimizer="sgd", seed=0):
        numbanet.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to("reference")
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.scheduler = optim.lr_scheduler.OneCycleLR(self.optimizer, 0.1, total_steps=20, cycle_momentum=False)
        self.x = numbanet.tensor(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32), device="reference")

    def step(self, times=1):
        for _ in range(times):
            self.optimizer.zero_grad()
            (self.model(self.x) ** 2).sum().backward()
            self.optimizer.step()
            self.scheduler.step()
        return self

    def values(self):
        return [t.numpy().tobytes() for t in self.model.state_dict().values()]

    def save(self, folder, step):
        return save_checkpoint(folder, step, self.model, self.optimizer, self.scheduler, {"step": step})

    def load(self, folder):
        return load_checkpoint(folder, self.model, self.optimizer, self.scheduler)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_going_on_is_the_same_as_never_having_stopped(optimizer, tmp_path):
    first = Run(optimizer).step(5)
    first.save(tmp_path, 5)
    second = Run(optimizer, seed=1)
    assert second.values() != first.values()
    assert second.load(tmp_path) == {"step": 5}
    assert second.step(4).values() == first.step(4).values()
    assert second.optimizer.param_groups[0]["lr"] == first.optimizer.param_groups[0]["lr"]


def test_the_newest_two_are_kept_in_order_of_their_numbers(tmp_path):
    run = Run().step()
    for step in (1, 9, 10, 100):
        run.save(tmp_path, step)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-10", "step-100"] == sorted(p.name for p in tmp_path.iterdir())


def damage_tensors(folder):
    file = folder / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def damage_json(folder):
    file = folder / "state.json"
    file.write_text(file.read_text()[:40])


def lose_a_tensor(folder):
    state = json.loads((folder / "state.json").read_text().replace("optimizer.state.0.momentum_buffer", "gone"))
    (folder / "state.json").write_text(json.dumps(state))


DAMAGE = {"tensors": damage_tensors, "json": damage_json, "no tensor": lose_a_tensor,
          "not a mapping": lambda f: (f / "state.json").write_text("[1]"), "no entries": lambda f: (f / "state.json").write_text("{}"),
          "no file": lambda f: (f / "tensors.safetensors").unlink(), "binary": lambda f: (f / "state.json").write_bytes(b"\xff\xfe"),
          "empty": lambda f: (shutil.rmtree(f), f.mkdir())}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_newest_checkpoint_gives_way_to_the_previous_one(damage, tmp_path, caplog):
    run = Run().step()
    run.save(tmp_path, 1)
    values = run.values()
    damage(run.step().save(tmp_path, 2))
    other = Run(seed=1)
    with caplog.at_level(logging.WARNING):
        assert other.load(tmp_path) == {"step": 1}
    assert other.values() == values
    assert "step-2" in caplog.text and "going on from step-1" in caplog.text


def test_only_damaged_checkpoints(tmp_path):
    run = Run().step()
    for step in (1, 2):
        damage_json(run.save(tmp_path, step))
    values = run.values()
    with pytest.raises(CheckpointError, match=r"no checkpoint of .* can be read: step-2 .*step-1"):
        run.load(tmp_path)
    assert run.values() == values


def test_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        Run().load(tmp_path / "absent")


def test_a_checkpoint_of_another_model(tmp_path):
    Run().step().save(tmp_path, 1)
    other = Run()
    other.model = nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match="does not fit Linear"):
        other.load(tmp_path)


@pytest.mark.parametrize("step", [20, 21], ids=["same step", "next step"])
def test_a_full_disk_leaves_the_old_or_the_new_checkpoint(step, tmp_path, monkeypatch):
    old, new = Run().step(2), Run().step(3)
    disk = Disk()
    old.save(tmp_path / "0", 20)
    with disk.mounted(monkeypatch):
        new.save(tmp_path / "0", step)
    refused = 0
    for position in range(1, disk.count + 1):
        folder = tmp_path / str(position)
        old.save(folder, 20)
        try:
            with Disk(position).mounted(monkeypatch):
                new.save(folder, step)
        except CheckpointError as error:
            refused += 1
            assert "No space left" in str(error)
        read = Run()
        read.load(folder)
        assert read.values() in (old.values(), new.values())
        assert len(list_checkpoints(folder)) in (1, 2)
    assert refused >= 10


def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    old, new, disk = Run().step(2), Run().step(3), Disk()
    for step in (10, 20):
        old.save(tmp_path / "0", step)
    with disk.mounted(monkeypatch):
        new.save(tmp_path / "0", 20)
    for position in range(1, disk.count + 1):
        folder = tmp_path / str(position)
        for step in (10, 20):
            old.save(folder, step)
        with pytest.raises(Killed), Disk(position, Killed(), for_good=True).mounted(monkeypatch):
            new.save(folder, 20)
        read = Run()
        read.load(folder)
        assert read.values() in (old.values(), new.values())
