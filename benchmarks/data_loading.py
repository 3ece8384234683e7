"""How fast data comes: JPEGs of 256 pixels through the loader beside Pillow alone, and how long a small network waits for its data.

    python -m benchmarks.data_loading [--count 10000] [--threads 2] [--rounds 3] [--folder DIR]

Rows are measured in turns, on parts of the files, so that a machine whose speed drifts does not disturb their ratios, which are of a
part. CPU time is told too: it is what loading takes from training, and what other processes on the machine change least.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

import numbanet
from numbanet.data import DataLoader, Subset, transforms
from numbanet.data.datasets import ImageFolder, SyntheticScenes
from numbanet.nn import functional as F

SIZE, BATCH, PART = 256, 64, 1280
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_jpegs(folder: Path, count: int, threads: int) -> None:
    """Made-up scenes as JPEGs in class folders; those that are there are kept."""
    scenes = SyntheticScenes(count, SIZE)

    def write(index: int) -> None:
        path = folder / scenes.classes[labels[index]] / f"{index:05}.jpg"
        if not path.exists():
            Image.fromarray(scenes[index][0]).save(path, quality=90)

    labels = scenes.targets
    for name in scenes.classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, range(count)))


def decode(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


def to_array(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def pillow_alone(paths: list[str], threads: int, read: Callable[[str], object], part: range) -> None:
    """Pillow by a plain loop (no threads), or by a pool of threads, each with its part of the files."""
    def read_part(first: int, step: int) -> None:
        for path in paths[part.start:part.stop][first::step]:
            read(path)

    if not threads:
        return read_part(0, 1)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda first: read_part(first, threads), range(threads)))


def through_loader(dataset, threads: int, part: range) -> None:
    for _ in DataLoader(Subset(dataset, part), BATCH, shuffle=True, num_workers=threads, seed=0):
        pass


def measure_decoding(folder: Path, threads: int, rounds: int) -> None:
    """Images a second and CPU time for each, of a plain loop and of as many threads; ratios are medians over parts of the files.

    The same work is: open, decode, RGB, an array of bytes. What Pillow does alone ends with its own picture, which no network reads.
    """
    paths = [path for path, _ in ImageFolder(folder).samples]
    as_it_is = ImageFolder(folder, batch_transform=lambda images, indices: images)
    crop = ImageFolder(folder, batch_transform=transforms.BatchCropNormalize(224, MEAN, STD, random=True, flip=0.5))
    for path in paths[:BATCH]:          # and the kernels compile
        decode(path)
    next(iter(DataLoader(crop, BATCH)))
    print(f"{len(paths):,} JPEGs of {SIZE} px, {rounds} rounds; images/s, CPU time for each, and speed beside Pillow's by that time")
    for count in (0, threads):
        ways: dict[str, Callable[[range], None]] = {
            "Pillow alone": partial(pillow_alone, paths, count, decode),
            "Pillow, to RGB arrays: the same work": partial(pillow_alone, paths, count, to_array),
            "loader, uint8 (N, 256, 256, 3)": partial(through_loader, as_it_is, count),
            "loader, crop + flip + normalise": partial(through_loader, crop, count),
        }
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for part in [range(first, min(first + PART, len(paths))) for first in range(0, len(paths), PART)] * rounds:
            for name, run in ways.items():
                begin = time.perf_counter(), time.process_time()
                run(part)
                rows[name].append(((time.perf_counter() - begin[0]) / len(part), (time.process_time() - begin[1]) / len(part)))
        print(f" {f'{count} threads' if count else 'a plain loop'}")
        cpu = {name: [own for _, own in values] for name, values in rows.items()}
        alone, same = list(cpu.values())[:2]
        for name, values in rows.items():
            ratio = lambda others, own=cpu[name]: median(o / v for o, v in zip(others, own))
            by_time = median(o / v for (o, _), (v, _) in zip(next(iter(rows.values())), values))
            speed, own = 1 / median(wall for wall, _ in values), 1e6 * median(cpu[name])
            print(f"  {name:38} {speed:7,.0f} images/s  {own:5.0f} us   {ratio(same):.2f} of the same work, {ratio(alone):.2f} of Pillow "
                  f"alone, {by_time:.2f} by the clock", flush=True)


def measure_waiting(folder: Path, steps: int) -> None:
    """Share of the time that training ResNet-20 waits: pictures in memory, and JPEGs where decoding is cheaper than the step."""
    arrays = SyntheticScenes(2000, 32).to_arrays(
        batch_transform=transforms.BatchCropNormalize(32, MEAN, STD, random=True, padding=4, flip=0.5))
    files = ImageFolder(folder, transforms.Resize(96), batch_transform=transforms.BatchCropNormalize(96, MEAN, STD, flip=0.5))
    cases = (("ResNet-20 on 32 px from memory", arrays, 32, 32), ("ResNet-20 on 96 px from JPEGs", files, 16, 96))
    for name, dataset, batch, size in cases:
        for workers in (0, 1):
            model = numbanet.create_model("resnet20_cifar", num_classes=8)
            optimizer = numbanet.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
            example = numbanet.zeros(batch, 3, size, size), numbanet.zeros(batch, dtype=numbanet.int64)
            step = numbanet.compile(model, example, loss=F.cross_entropy, optimizer=optimizer)
            step(*example)
            loader = DataLoader(dataset, batch, shuffle=True, num_workers=workers, drop_last=True, seed=0)
            for _, (images, labels) in zip(range(steps), loader):
                step(images, labels)
            waited = loader.waited
            each = (waited.total - waited.first) / max(waited.batches - 1, 1)
            print(f"  {name}, batch {batch}, {workers} workers: {1e3 * each:.1f} ms a step, waited {100 * waited.share:.1f}%", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where the JPEGs are made, and kept (default: a temporary folder)")
    parser.add_argument("--only", choices=("write", "decoding", "waiting"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        write_jpegs(folder, arguments.count, os.cpu_count())
        if arguments.only in (None, "decoding"):
            measure_decoding(folder, arguments.threads, arguments.rounds)
        if arguments.only in (None, "waiting"):
            print("waiting for data")
            measure_waiting(folder, arguments.steps)


if __name__ == "__main__":
    main()
