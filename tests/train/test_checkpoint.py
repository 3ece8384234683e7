"""Checkpoints: everything comes back bit for bit, and there is always a whole one."""

import logging
import shutil

import numpy as np
import pytest

import numbanet
from numbanet import nn, optim
from numbanet.errors import CheckpointError, UsageError
from numbanet.train.checkpoint import Checkpoints, list_checkpoints, read_manifest
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
        return Checkpoints(folder).save(step, {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                                               "scheduler": self.scheduler.state_dict(), "numbers": {"step": step}})

    def load(self, folder):
        checkpoints = Checkpoints(folder)
        checkpoints.recover()                   # as `BackupAndRestore` does first
        state, _ = checkpoints.load()
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        return state["numbers"]


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


def damage_manifest(folder):
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace('"step": 2', '"step": 3'))


DAMAGE = {"tensors": damage_tensors, "json": damage_json, "manifest": damage_manifest,
          "no manifest": lambda f: (f / "manifest.json").unlink(), "not a mapping": lambda f: (f / "manifest.json").write_text("[1]"),
          "no entries": lambda f: (f / "manifest.json").write_text("{}"), "deep": lambda f: (f / "manifest.json").write_text("[" * 10**5),
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


def tear(rng, data: bytes, other: bytes) -> bytes:
    """Bytes that differ from `data`, as bad disks and cut writes leave them."""
    kind, at = rng.integers(7), int(rng.integers(len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data + rng.bytes(1 + at % 9)
    if kind == 2:
        return other
    changed = bytearray(data)
    if kind == 3:                                           # a block of zeros, or of ones where it was zeros
        end = at + 1 + int(rng.integers(512))
        fill = b"\0" if any(changed[at:end]) else b"\1"
        changed[at:end] = fill * len(changed[at:end])
    elif kind == 4:                                         # a byte too many
        changed.insert(at, int(rng.integers(256)))
    else:
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def test_random_corruptions_are_all_detected(tmp_path, rng):
    run = Run().step()
    whole = run.save(tmp_path, 1)
    files = {p: p.read_bytes() for p in whole.iterdir()}
    others = list(files.values())
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load()[1] == whole
    for _ in range(2000):
        path = list(files)[rng.integers(len(files))]
        damaged = tear(rng, files[path], others[rng.integers(len(others))])
        if damaged == files[path]:
            continue
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="step-1 .*(as it was written|cannot be read)"):
            checkpoints.load()
        path.write_bytes(files[path])
    assert checkpoints.load()[1] == whole


def test_the_best_is_kept_besides_the_newest(tmp_path):
    for mode, best in (("max", "step-2"), ("min", "step-4")):
        checkpoints = Checkpoints(tmp_path / mode, keep=2, mode=mode)
        for step, value in ((1, 0.5), (2, 0.9), (3, 0.9), (4, 0.1), (5, float("nan")), (6, None), (7, 0.3)):
            checkpoints.save(step, {"step": step}, value)
        assert [p.name for p in checkpoints.list()] == [best, "step-6", "step-7"] and checkpoints.best().name == best


def test_what_a_state_may_hold(tmp_path):
    state = {"numbers": [1, 2.5, -np.inf, True, None, "é"], "by number": {3: {"x": np.arange(3, dtype=np.uint32)}}, "empty": {},
             "tensor": numbanet.tensor([[1.0, 2.0]], device="reference"), "scalar": np.float32(0.5)}
    Checkpoints(tmp_path).save(1, state)
    read, folder = Checkpoints(tmp_path).load()
    assert read["numbers"] == state["numbers"] and read["empty"] == {} and read["scalar"] == 0.5
    assert read["by number"][3]["x"].tolist() == [0, 1, 2] and read["by number"][3]["x"].dtype == np.uint32
    assert read["tensor"].tolist() == [[1.0, 2.0]]
    manifest = read_manifest(folder)
    assert manifest["step"] == 1 and set(manifest["files"]) == {"tensors.safetensors", "state.json"} and "numbanet" in manifest["versions"]
    with pytest.raises(CheckpointError, match="a.0 is of type set"):
        Checkpoints(tmp_path).save(2, {"a": [{1}]})
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


@pytest.mark.parametrize("options", [{"keep": 0}, {"keep": 1.5}, {"mode": "best"}])
def test_options_out_of_range(options, tmp_path):
    with pytest.raises(UsageError, match="Checkpoints: .* expects"):
        Checkpoints(tmp_path, **options)


@pytest.mark.parametrize("steps", [(10, 20, 20), (20, 20), (10, 20, 30)], ids=["replaced", "only one", "next"])
def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(steps, tmp_path, monkeypatch):
    old, new, disk = Run().step(2), Run().step(3), Disk()
    *before, last = steps
    for step in before:
        old.save(tmp_path / "0", step)
    with disk.mounted(monkeypatch):
        new.save(tmp_path / "0", last)
    for position in range(1, disk.count + 1):
        folder = tmp_path / str(position)
        for step in before:
            old.save(folder, step)
        with pytest.raises(Killed), Disk(position, Killed(), for_good=True).mounted(monkeypatch):
            new.save(folder, last)
        read = Run()
        read.load(folder)
        assert read.values() in (old.values(), new.values())
        assert not [p for p in folder.iterdir() if p.name.startswith(".")]      # what the dead left is cleared up
