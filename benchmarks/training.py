"""What training costs beside its steps, several processes beside one, and a whole training beside PyTorch's.

    python -m benchmarks.training cost                  the Trainer's own time for each step, above forward and backward pass and update
    python -m benchmarks.training processes             2 processes of 1 thread beside 1 process of 2 threads, the same global batch
    python -m benchmarks.training resnet20              accuracy and time of epochs of ResNet-20 on synthetic scenes, beside PyTorch
    python -m benchmarks.training lenet5                the same of the recipe lenet5 on MNIST, in the folder that NUMBANET_MNIST names

Engines run in processes of their own, one at a time, in turns; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


class Batches:
    """The same batch again and again, with the moments at which it was asked for."""

    def __init__(self, x, y, steps: int):
        self.batch, self.steps, self.moments = (x, y), steps, []

    def __iter__(self):
        self.moments = []
        for _ in range(self.steps):
            self.moments.append(time.perf_counter())
            yield self.batch
        self.moments.append(time.perf_counter())

    def __len__(self) -> int:
        return self.steps

    def seconds(self) -> float:
        """Median of a step."""
        return median(np.diff(self.moments))


def model_and_batch(name: str, batch: int, size: int | None):
    import numbanet
    numbanet.manual_seed(0)
    model = numbanet.create_model(name)
    channels, height, width = numbanet.zoo.model_info(name).input_size
    height, width = (size, size) if size else (height, width)
    optimizer = numbanet.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    return model, optimizer, numbanet.randn(batch, channels, height, width), numbanet.randint(0, 10, (batch,))


def cost(name: str, batch: int, size: int | None, steps: int) -> None:
    """The loop without its kernels: the passes are made once and stand still afterwards; then the update too."""
    from numbanet.train import Trainer
    model, optimizer, x, y = model_and_batch(name, batch, size)
    trainer, batches = Trainer(model, None, optimizer), Batches(x, y, 20)
    trainer.fit(batches, epochs=1)
    whole = batches.seconds()
    passed = trainer.steps.forward_backward(x, y)
    trainer.steps.forward_backward = lambda x, y: passed
    optimizer.zero_grad = lambda set_to_none=True: None
    batches.steps = steps
    trainer.fit(batches, epochs=2)
    with_update = batches.seconds()
    optimizer.step = lambda: None
    trainer.fit(batches, epochs=3)
    bare = batches.seconds()
    print(f"{name}, batches of {batch}: a step {1e6 * whole:,.0f} us; the Trainer's own part {1e6 * bare:.1f} us "
          f"({100 * bare / whole:.3f}%), with the optimiser's update {1e6 * with_update:.1f} us")


def worker(name: str, batch: int, size: int | None, steps: int, sync: bool) -> None:
    """One process of `processes`: seconds of a step, told by the first."""
    import numbanet
    from numbanet.train import Trainer
    from numbanet.train.distributed import Replicas, launched
    replicas = Replicas() if launched() else None
    model, optimizer, x, y = model_and_batch(name, batch // (replicas.size if replicas else 1), size)
    if sync:
        model = numbanet.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    batches = Batches(x, y, 2)
    trainer = Trainer(model, None, optimizer, replicas=replicas)
    trainer.fit(batches, epochs=1)
    batches.steps = steps
    trainer.fit(batches, epochs=2)
    if replicas is None or replicas.rank == 0:
        print(json.dumps(batches.seconds()), flush=True)


def processes(name: str, batch: int, size: int | None, steps: int, rounds: int, sync: bool) -> None:
    words = [sys.executable, "-m", "benchmarks.training", "worker", "--model", name, "--batch", str(batch), "--steps", str(steps),
             *(["--size", str(size)] if size else []), *(["--sync-batch-norm"] if sync else [])]
    ways = {"1 process, 2 threads": ([], "2"), "2 processes, 1 thread each": ([MPIEXEC, "-n", "2"], "1")}
    rows = []
    for _ in range(rounds):
        rows.append([])
        for before, threads in ways.values():
            done = subprocess.run([*before, *words], cwd=ROOT, env=os.environ | {"NUMBANET_NUM_THREADS": threads}, capture_output=True,
                                  text=True, check=True)
            rows[-1].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{name}, global batch {batch}, {rounds} rounds")
    for label, seconds in zip(ways, zip(*rows)):
        print(f"  {label:28} {batch / median(seconds):8.1f} images/s")
    ratios = sorted(one / two for one, two in rows)
    print(f"  ratio {median(ratios):.3f} ({ratios[0]:.3f} ... {ratios[-1]:.3f})")


# ResNet-20 on synthetic scenes: the recipe of He et al. 2016, section 4.2, with fewer epochs
LR, MOMENTUM, DECAY, BATCH = 0.1, 0.9, 1e-4, 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def scenes(count: int, train: bool):
    from numbanet.data.datasets import SyntheticScenes
    from numbanet.data.transforms import BatchCropNormalize
    return SyntheticScenes(count, 32, train).to_arrays(batch_transform=BatchCropNormalize(
        32, MEAN, STD, **({"random": True, "padding": 4, "flip": 0.5} if train else {})))


def digits(count: int, train: bool):
    """The first of MNIST's, as the recipe distorts them."""
    from numbanet.data import ArrayDataset
    from numbanet.data.datasets import MNIST
    from numbanet.data.transforms import BatchAffineNormalize
    from numbanet.train.preprocessing import DISTORTIONS
    found = MNIST(os.environ["NUMBANET_MNIST"], train)
    return ArrayDataset(found.data[:count], found.targets[:count], batch_transform=BatchAffineNormalize(
        32, 0.1307, 0.3081, **(DISTORTIONS if train else {})))


@dataclass(frozen=True)
class Task:
    """A recipe, of which both engines make the same."""

    model: str
    classes: int
    data: Callable
    counts: tuple[int, int]
    batch: int
    sgd: dict
    schedule: Callable              # (lr_scheduler, optimizer, epochs, steps of an epoch)
    each_step: bool                 # the schedule's interval
    clip: float | None = None


TASKS = {"resnet20": Task("resnet20_cifar", 8, scenes, (5000, 1000), BATCH, dict(lr=LR, momentum=MOMENTUM, weight_decay=DECAY),
                          lambda kinds, optimizer, epochs, steps: kinds.CosineAnnealingLR(optimizer, epochs), False),
         "lenet5": Task("lenet5", 10, digits, (60000, 10000), 64, dict(lr=0.08, momentum=0.9, nesterov=True, weight_decay=5e-4),
                        lambda kinds, optimizer, epochs, steps: kinds.OneCycleLR(optimizer, 0.08, epochs=epochs, steps_per_epoch=steps,
                                                                                 cycle_momentum=False), True, 1.0)}


def train_numbanet(task: Task, seed: int, epochs: int, counts: tuple[int, int]) -> dict:
    import numbanet
    from numbanet import optim
    from numbanet.data import DataLoader
    from numbanet.train import Trainer
    numbanet.manual_seed(seed)
    model = numbanet.create_model(task.model, num_classes=task.classes)
    optimizer = optim.SGD(model.parameters(), **task.sgd)
    loader = DataLoader(task.data(counts[0], True), task.batch, shuffle=True, seed=seed)
    trainer = Trainer(model, None, optimizer, task.schedule(optim.lr_scheduler, optimizer, epochs, len(loader)), clip_norm=task.clip)
    history = trainer.fit(loader, DataLoader(task.data(counts[1], False), 250), epochs)
    return {"accuracy": history.history["val_accuracy"][-1], "seconds": history.history["seconds"]}


def train_torch(task: Task, seed: int, epochs: int, counts: tuple[int, int]) -> dict:
    """The same network, initial values, order and pictures; channels last, as PyTorch is fastest here."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    import numbanet
    from numbanet.data import DataLoader

    class Block(nn.Module):
        def __init__(self, channels, out, stride):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
            self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
            self.stride, self.more = stride, out - channels

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            shortcut = F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, 0, self.more)) if self.more else x
            return F.relu(y + shortcut)

    class ResNet20(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
            self.layer1, self.layer2, self.layer3 = (nn.Sequential(*(Block(before if i == 0 else out, out, stride if i == 0 else 1)
                                                                     for i in range(3)))
                                                     for before, out, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)))
            self.fc = nn.Linear(64, 8)

        def forward(self, x):
            x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
            return self.fc(x.mean((2, 3)))

    def lenet5():
        features = dict(c1=nn.Conv2d(1, 6, 5), relu1=nn.ReLU(), s2=nn.MaxPool2d(2), c3=nn.Conv2d(6, 16, 5), relu3=nn.ReLU(),
                        s4=nn.MaxPool2d(2))
        classifier = dict(flatten=nn.Flatten(), c5=nn.Linear(400, 120), relu5=nn.ReLU(), f6=nn.Linear(120, 84), relu6=nn.ReLU(),
                          output=nn.Linear(84, 10))
        return nn.Sequential(OrderedDict(features=nn.Sequential(OrderedDict(features)), classifier=nn.Sequential(OrderedDict(classifier))))

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    numbanet.manual_seed(seed)
    ours = numbanet.create_model(task.model, num_classes=task.classes)
    model = {"resnet20_cifar": ResNet20, "lenet5": lenet5}[task.model]()
    model.load_state_dict({name: torch.from_numpy(np.array(t.detach().numpy())) for name, t in ours.state_dict().items()})
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), **task.sgd)
    loader, seconds = DataLoader(task.data(counts[0], True), task.batch, shuffle=True, seed=seed), []
    schedule = task.schedule(torch.optim.lr_scheduler, optimizer, epochs, len(loader))
    as_torch = lambda t: torch.from_numpy(np.array(t.numpy()))
    for _ in range(epochs):
        begin = time.perf_counter()
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(as_torch(x).to(memory_format=torch.channels_last)), as_torch(y))
            loss.backward()
            if task.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), task.clip)
            optimizer.step()
            if task.each_step:
                schedule.step()
            loss.item()
        seconds.append(time.perf_counter() - begin)
        if not task.each_step:
            schedule.step()
    model.eval()
    with torch.no_grad():
        right = sum(int((model(as_torch(x)).argmax(1) == as_torch(y)).sum()) for x, y in DataLoader(task.data(counts[1], False), 250))
    return {"accuracy": right / counts[1], "seconds": seconds}


def beside_torch(name: str, seeds: int, epochs: int, counts: tuple[int, int]) -> None:
    found: dict[str, list[dict]] = {"numbanet": [], "torch": []}
    for seed in range(seeds):
        for engine in found:
            words = ["--task", name, "--engine", engine, "--seed", str(seed), "--epochs", str(epochs), "--train", str(counts[0]),
                     "--test", str(counts[1])]
            done = subprocess.run([sys.executable, "-m", "benchmarks.training", "train", *words], cwd=ROOT, capture_output=True, text=True,
                                  check=True)
            found[engine].append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{TASKS[name].model}, {counts[0]:,} training images, {epochs} epochs, {seeds} seeds")
    for engine, runs in found.items():
        accuracies = [100 * run["accuracy"] for run in runs]
        print(f"  {engine:10} {np.mean(accuracies):6.2f}% +- {np.std(accuracies):.2f} of {counts[1]:,} test images, "
              f"{median(s for run in runs for s in run['seconds'][1:] or run['seconds']):.2f} s an epoch")
    ratios = [median(a["seconds"][1:] or a["seconds"]) / median(b["seconds"][1:] or b["seconds"]) for a, b in zip(*found.values())]
    print(f"  time for an epoch beside PyTorch's {median(ratios):.2f} ({min(ratios):.2f} ... {max(ratios):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("cost", "processes", "resnet20", "lenet5", "worker", "train"))
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, help="of the pictures (default: the network's)")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sync-batch-norm", action="store_true")
    parser.add_argument("--task", choices=tuple(TASKS), default="resnet20")
    parser.add_argument("--engine", choices=("numbanet", "torch"), default="numbanet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--train", type=int, help="training images (default: 5,000 scenes, 60,000 digits)")
    parser.add_argument("--test", type=int, help="test images (default: 1,000 scenes, 10,000 digits)")
    a = parser.parse_args()
    task = a.what if a.what in TASKS else a.task
    counts = a.train or TASKS[task].counts[0], a.test or TASKS[task].counts[1]
    if a.what == "cost":
        cost("lenet5", 64, None, 2000)
        cost("resnet18", 16, None, 200)
    elif a.what == "processes":
        processes(a.model, a.batch, a.size, a.steps, a.rounds, a.sync_batch_norm)
    elif a.what == "worker":
        worker(a.model, a.batch, a.size, a.steps, a.sync_batch_norm)
    elif a.what == "train":
        train = {"numbanet": train_numbanet, "torch": train_torch}[a.engine]
        print(json.dumps(train(TASKS[task], a.seed, a.epochs, counts)))
    else:
        beside_torch(task, a.seeds, a.epochs, counts)


if __name__ == "__main__":
    main()
