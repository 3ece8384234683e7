"""What `docs/search.md` states, measured: python benchmarks/search.py WHAT [--run RUN] [--weights FILE] [--count N]

    recall        100,000 digits and distorted digits as files: recall@10 of the graph, and the time of a query
    throughput    ResNet-18 at 224 pixels from JPEG files, beside the model's and the decoder's time alone
    photographs   photographs of packages, distorted in five ways: how often the source comes first, and with which cosines
    identify      the same photographs: half of them are the gallery, which names are right and which unknown ones are named
    digits        10,000 digits in ten clusters: normalised mutual information with their classes
    build         N vectors of 512 from disk: time and memory of the graph

--run: a run of `numbanet train lenet5` on MNIST, whose folder is $NUMBANET_MNIST. --weights: efficientnet_lite0.safetensors, as
`examples/imagenet_from_packages.py` writes it.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numbanet  # noqa: E402
from numbanet.backends import get_backend  # noqa: E402
from numbanet.data.datasets import MNIST  # noqa: E402
from numbanet.search import KMeans, embed_files, normalized_mutual_info_score, open_embedder, update_index  # noqa: E402
from numbanet.search.identification import THRESHOLD  # noqa: E402
from numbanet.search.index import ImageIndex, nearest_rows  # noqa: E402
from numbanet.search.neighbours import Neighbours  # noqa: E402
from numbanet.search.vectors import VectorFile  # noqa: E402


def memory() -> float:
    """Most memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def median_ms(call, times: int = 200) -> float:
    call()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return 1e3 * float(np.median(taken))


def digits(train: bool):
    return MNIST(os.environ["NUMBANET_MNIST"], train)


def write_digits(folder: Path, count: int) -> None:
    """The training digits, then distorted ones, as PNG files."""
    data, rng = digits(True).data, np.random.default_rng(0)
    for i in range(count):
        picture = Image.fromarray(np.asarray(data[i % len(data)]))
        if i >= len(data):
            turn, scale = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(0.85, 1.15)
            a, b = np.cos(turn) / scale, np.sin(turn) / scale
            x, y = 13.5 + rng.uniform(-2, 2), 13.5 + rng.uniform(-2, 2)
            picture = picture.transform((28, 28), Image.Transform.AFFINE, (a, b, 13.5 - a * x - b * y, -b, a, 13.5 + b * x - a * y),
                                        Image.Resampling.BILINEAR)
        place = folder / f"{i // 1000:03}"
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{i:06}.png", compress_level=1)


def recall(arguments) -> None:
    embedder = open_embedder(arguments.run, raw=True, batch_size=256)
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        write_digits(Path(place) / "digits", arguments.count)
        print(f"{arguments.count:,} files written in {time.perf_counter() - began:.0f} s", flush=True)
        done = update_index(Path(place) / "index", embedder, [Path(place) / "digits"], source=arguments.run)
        print(f"index of {done.files:,} files, {done.rows:,} different, in {done.seconds:.0f} s", flush=True)
        queries = embedder.embed_batch(embedder.batch(list(digits(False).data[:1000])))
        with ImageIndex(Path(place) / "index") as index:
            assert index.is_approximate
            exact, found = ([{hit.row for hit in hits} for hit_list in [index.search(queries, 10, how)] for hits in hit_list]
                            for how in (True, False))
            share = np.mean([len(a & b) / len(a) for a, b in zip(exact, found)])
            turns = iter(np.tile(np.arange(1000), 20))
            print(f"recall@10 {share:.4f}; a query {median_ms(lambda: index.search(queries[next(turns)], 10)):.2f} ms, "
                  f"exact {median_ms(lambda: index.search(queries[next(turns)], 10, True)):.2f} ms (medians)")


def jpegs(folder: Path, count: int) -> list[Path]:
    """Photographs of 500 x 375 pixels, quality 90, as in ImageNet."""
    sources = photographs()
    for i in range(count):
        sources[i % len(sources)][1].resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{i:04}.jpg", quality=90)
    return sorted(folder.glob("*.jpg"))


def throughput(arguments) -> None:
    embedder, threads = open_embedder("resnet18"), numbanet.get_num_threads()
    with tempfile.TemporaryDirectory() as place:
        paths = jpegs(Path(place), 256)
        x = embedder.batch([embedder.read(path) for path in paths[:32]])
        list(embed_files(embedder, paths[:64]))
        shares = []
        for _ in range(arguments.rounds):
            began = time.perf_counter()
            for path in paths[:64]:
                embedder.read(path)
            decode = (time.perf_counter() - began) / 64
            began = time.perf_counter()
            for _ in range(4):
                embedder.embed_batch(x)
            model = (time.perf_counter() - began) / 128 * threads
            began = time.perf_counter()
            count = sum(map(len, embed_files(embedder, paths)))
            rate = count / (time.perf_counter() - began)
            shares.append(rate * (decode + model) / threads)
            print(f"decode {1e3 * decode:.2f} ms, model {1e3 * model:.2f} ms of a core; {rate:.1f} images/s on {threads} threads: "
                  f"{100 * shares[-1]:.1f}% of {threads / (decode + model):.1f}", flush=True)
    print(f"median {100 * np.median(shares):.1f}%")


def package_folder(package: str, *path: str) -> Path | None:
    found = find_spec(package)
    return Path(found.submodule_search_locations[0], *path) if found else None


NO_PHOTOGRAPHS = ("binary", "blobs", "chessboard", "clock", "color", "horse", "logo", "motorcycle_right", "multipage", "page", "phantom",
                  "text")


def photographs() -> list[tuple[str, Image.Image]]:
    """(name, picture) of the packages that are installed; neither drawings, nor the second picture of a stereo pair."""
    made = []
    for package, path in (("foolbox", ("data",)), ("skimage", ("data",)), ("sklearn", ("datasets", "images"))):
        folder = package_folder(package, *path)
        for file in sorted(folder.iterdir()) if folder else ():
            named = file.name.startswith("imagenet_") if package == "foolbox" else not file.name.startswith(NO_PHOTOGRAPHS)
            if named and file.suffix in (".jpg", ".png"):
                made.append((file.stem, Image.open(file).convert("RGB")))
    return made


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    with tempfile.TemporaryFile() as file:
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")


def cropped(picture: Image.Image, share: float) -> Image.Image:
    across, down = (round(n * (1 - share) / 2) for n in picture.size)
    return picture.crop((across, down, picture.size[0] - across, picture.size[1] - down))


DISTORTIONS = {
    "the middle 75%": lambda p: cropped(p, 0.75),
    "turned by 10 degrees": lambda p: p.rotate(10, Image.Resampling.BICUBIC),
    "JPEG of quality 15": lambda p: jpeg(p, 15),
    "brighter by 1.4, paler by 0.6": lambda p: ImageEnhance.Color(ImageEnhance.Brightness(p).enhance(1.4)).enhance(0.6),
    "mirrored, at a third of the size": lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize([max(1, n // 3) for n in p.size]),
}


def photographs_found(arguments) -> None:
    embedder, pictures = open_embedder(arguments.weights), photographs()
    rows, backend, right = embedder([p for _, p in pictures]), get_backend("cpu"), 0
    others = rows @ rows.T - 2 * np.eye(len(rows))
    print(f"{len(pictures)} photographs; cosine of two different ones: at most {others.max():.3f}, median of the nearest "
          f"{np.median(others.max(1)):.3f}")
    for name, distort in DISTORTIONS.items():
        queries = embedder([distort(p) for _, p in pictures])
        _, found = nearest_rows(queries, rows, 1, backend)
        hits = found[:, 0] == np.arange(len(pictures))
        own = (queries * rows).sum(1)
        right += hits.sum()
        missed = ", ".join(pictures[i][0] for i in np.flatnonzero(~hits))
        print(f"  {name}: {hits.sum()} of {len(hits)} first; cosine with the source: median {np.median(own):.3f}, least {own.min():.3f}"
              + (f"; not {missed}" if missed else ""))
    print(f"source first: {right} of {len(pictures) * len(DISTORTIONS)}, {100 * right / len(pictures) / len(DISTORTIONS):.1f}%")


def identified(arguments) -> None:
    embedder, pictures = open_embedder(arguments.weights), photographs()
    known, unknown = pictures[::2], pictures[1::2]
    rows, backend = embedder([p for _, p in known]), get_backend("cpu")
    tables = {}
    for kind, some in (("known", known), ("unknown", unknown)):
        queries = embedder([distort(p) for distort in DISTORTIONS.values() for _, p in some])
        tables[kind] = nearest_rows(queries, rows, 1, backend)
    right = tables["known"][1][:, 0] == np.tile(np.arange(len(known)), len(DISTORTIONS))
    for threshold in sorted({0.4, 0.5, 0.6, 0.7, 0.8, THRESHOLD}):
        named, wrong = tables["known"][0][:, 0] >= threshold, tables["unknown"][0][:, 0] >= threshold
        print(f"threshold {threshold:.1f}: of {len(right)} known {100 * (right & named).mean():.1f}% named right, "
              f"{100 * (~right & named).mean():.1f}% wrong; of {len(wrong)} unknown {100 * wrong.mean():.1f}% named")


def clustered(arguments) -> None:
    data = digits(False)
    pixels = np.asarray(data.data).reshape(len(data), -1).astype(np.float32) / 255
    embedder = open_embedder(arguments.run, raw=True, batch_size=256)
    vectors = np.concatenate([embedder.embed_batch(embedder.batch(list(data.data[i:i + 256]))) for i in range(0, len(data), 256)])
    for name, x in (("LeNet-5 features", vectors), ("pixels", pixels)):
        began = time.perf_counter()
        labels = KMeans(10, n_init=3).fit_predict(x)
        print(f"{name} {x.shape}: normalised mutual information {normalized_mutual_info_score(data.targets, labels):.3f}, "
              f"{time.perf_counter() - began:.1f} s")


def build(arguments) -> None:
    D, count, rng = 512, arguments.count, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        file, means = VectorFile(Path(place) / "vectors-1.npy", D), rng.standard_normal((count // 100 + 1, D), np.float32)
        file.create()
        for first in range(0, count, 10_000):           # groups of about a hundred, as pictures of a kind
            x = means[rng.integers(0, len(means), min(10_000, count - first))]
            x = x + rng.standard_normal(x.shape, np.float32)
            file.write(first, x / np.linalg.norm(x, axis=1, keepdims=True))
        del means, x
        vectors, graph = file.read(count), Neighbours(Path(place) / "neighbours.usearch", D)
        print(f"{count:,} x {D}: {vectors.nbytes / 2**30:.2f} GB of vectors on disk; memory before {memory():.2f} GB", flush=True)
        began, stamps = time.perf_counter(), []
        graph.prepare(np.arange(count), None)
        for row in graph.add(vectors, lambda stamp, _complete: stamps.append(stamp)):
            if row % 50_000 == 49_999:
                print(f"  {row + 1:,} rows, {time.perf_counter() - began:.0f} s, memory {memory():.2f} GB with mapped pages", flush=True)
        with open("/proc/self/status") as status:
            kinds = {line.split(":")[0]: int(line.split()[1]) / 2**20 for line in status if line.startswith(("RssAnon", "RssFile"))}
        print(f"built in {time.perf_counter() - began:.0f} s; file {stamps[-1]['size'] / 2**30:.2f} GB; now {kinds['RssAnon']:.2f} GB own, "
              f"{kinds['RssFile']:.2f} GB mapped")
        queries = np.ascontiguousarray(vectors[rng.integers(0, count, 200)]) + 0.02 * rng.standard_normal((200, D), np.float32)
        exact = nearest_rows(queries, np.asarray(vectors), 10, get_backend("cpu"))[1]
        candidates = graph.search(queries, 64)
        print(f"recall@10 of 64 candidates {np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, candidates)]):.4f}; "
              f"a query {median_ms(lambda: graph.search(queries[:1], 64)):.2f} ms")


WHAT = {"recall": recall, "throughput": throughput, "photographs": photographs_found, "identify": identified, "digits": clustered,
        "build": build}
COUNTS = {"recall": 100_000, "build": 1_000_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--run")
    parser.add_argument("--weights")
    parser.add_argument("--count", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    arguments.count = arguments.count or COUNTS.get(arguments.what)
    WHAT[arguments.what](arguments)


if __name__ == "__main__":
    main()
