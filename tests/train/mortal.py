"""A training that is killed again and again: `python -m tests.train.mortal FOLDER KILLS SEED`, run by test_killed.py.

Each life is a fork of this process, which has started no thread and run no kernel, so that lives are cheap and start as a new process
does. It goes on from the checkpoints in FOLDER, with other numbers of workers and threads each time, and is killed at a random moment.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

import numbanet
from numbanet import nn, optim
from numbanet.data import ArrayDataset, DataLoader
from numbanet.train import BackupAndRestore, Checkpoints, EarlyStopping, MixUp, Trainer
from numbanet.weights import load_weights, save_weights

EPOCHS = 5


class Noisy(ArrayDataset):
    """Pictures with noise from (seed, epoch, index)."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + numbanet.data.sample_generator().standard_normal(x.shape, np.float32) * 0.1, y


def train(folder: Path, workers: int, threads: int) -> None:
    os.environ["NUMBANET_NUM_THREADS"] = str(threads)
    numbanet.set_num_threads(threads)
    x = np.random.default_rng(5).standard_normal((60, 1, 9, 7)).astype(np.float32)
    data = Noisy(x, (x.mean((1, 2, 3)) > 0).astype(np.int64))
    numbanet.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.2),
                          nn.Linear(48, 2))
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.01, epochs=EPOCHS, steps_per_epoch=8, cycle_momentum=False)
    trainer = Trainer(model, None, optimizer, schedule, [EarlyStopping(patience=99), BackupAndRestore(folder / "checkpoints", save_freq=3)],
                      ema_decay=0.9, clip_norm=1.0, mixing=MixUp(alpha=0.3), num_classes=2, compiled=False)
    trainer.fit(DataLoader(data, 8, shuffle=True, num_workers=workers), DataLoader(data, 30, num_workers=workers), EPOCHS)
    save_weights(folder / "last.safetensors", {**model.state_dict(), **{f"ema.{k}": v for k, v in trainer.ema.averages.items()}})


def life(folder: Path, workers: int, threads: int) -> int:
    """The process of one life."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(folder, workers, threads)
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def end(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for_more(checkpoints: Checkpoints, child: int) -> None:
    """Until there is a checkpoint that was not there, or the child has ended."""
    before = checkpoints.list()
    while checkpoints.list() == before and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.002)


def main(folder: Path, kills: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert end(life(folder / "first", 0, 1)) == 0           # compiles kernels, which would make the next one seem long
    whole = folder / "whole"
    started = time.perf_counter()
    assert end(life(whole, 0, 1)) == 0
    duration = time.perf_counter() - started
    expected = {k: v.tobytes() for k, v in load_weights(whole / "last.safetensors")[0].items()}
    killed = finished = gone_on = number = 0
    while killed < kills:
        run, alive, number = folder / f"run-{number}", True, number + 1
        while alive:
            checkpoints = Checkpoints(run / "checkpoints")
            gone_on += bool(checkpoints.list())
            child = life(run, int(rng.integers(3)), int(rng.integers(1, 3)))
            if killed < kills:
                if rng.random() < 0.5:                      # half of them live until they have saved something, however slow the machine
                    wait_for_more(checkpoints, child)
                    time.sleep(float(rng.uniform(0.0, 0.2)) * duration)
                else:
                    time.sleep(float(rng.uniform(0.05, 1.0)) * duration)
                os.kill(child, signal.SIGKILL)
            code = end(child)
            assert code in (0, -signal.SIGKILL), code
            if code == 0:
                found = {k: v.tobytes() for k, v in load_weights(run / "last.safetensors")[0].items()}
                assert found == expected, f"other weights after {killed} kills"
                finished, alive = finished + 1, False
            else:
                killed += 1
                if checkpoints.list():
                    checkpoints.load()                      # raises where none can be read
    print(f"{killed} kills, {gone_on} times gone on, {finished} runs finished")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
