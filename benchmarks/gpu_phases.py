"""What `gpu_suite.py` runs: each phase yields rows, of checks {name, ok, detail} or of measurements {name, value, unit, peer}."""

from __future__ import annotations

import base64
import copy
import importlib
import os
import pickle
import pkgutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np

PHASES: dict[str, Callable] = {}
DRY = False                  # whether this process computes nothing
ROOT = Path(__file__).resolve().parent.parent
WANTED = "WANTED "           # begins the line in which a dry run tells its kernels
RESNET50 = {"conv1 7x7/2": (3, 64, 224, 7, 2, 3), "layer1 1x1": (64, 256, 56, 1, 1, 0), "layer1 3x3": (64, 64, 56, 3, 1, 1),
            "layer2 3x3/2": (128, 128, 56, 3, 2, 1), "layer2 3x3": (128, 128, 28, 3, 1, 1), "layer3 1x1": (1024, 256, 14, 1, 1, 0),
            "layer3 3x3": (256, 256, 14, 3, 1, 1), "layer4 1x1": (512, 2048, 7, 1, 1, 0), "layer4 3x3": (512, 512, 7, 3, 1, 1)}
DTYPES = {"tf32": "float32", "float32": "float32", "bf16": "bfloat16", "fp16": "float16"}
if find_spec("ml_dtypes") is None:       # NumPy's bfloat16: without it that arithmetic is left out
    del DTYPES["bf16"]


def phase(kind: str, alone: bool | None = None) -> Callable:
    """Register a phase: kind "correctness" or "speed"; whether no other may run beside it, as where it measures."""
    def register(function):
        function.kind, function.alone = kind, kind == "speed" if alone is None else alone
        PHASES[function.__name__] = function
        return function
    return register


def failed(name: str, error: Exception) -> dict:
    """The row of what raised; a dry run is there to find such errors, and raises them."""
    if DRY:
        raise error
    return {"name": name, "ok": False, "detail": f"{type(error).__name__}: {error}".strip()[:600]}


def attempted(name: str, rows: Callable[[], Iterator[dict]]) -> Iterator[dict]:
    """The rows of a case, or a failed one where making them raises: the next cases may still tell something."""
    try:
        yield from rows()
    except Exception as error:
        yield failed(name, error)


def _dtype(math: str) -> np.dtype:
    if math != "bf16":
        return np.dtype(DTYPES[math])
    import ml_dtypes
    return np.dtype(ml_dtypes.bfloat16)


class Card:
    """Memory and launches of the first GPU, by the backend's own device."""

    GUARD = 4096                         # bytes of a pattern at both ends of every array

    def __init__(self, found: dict):
        from numbanet.backends import get_backend
        self.device, self.arch, self.blocks = get_backend("cuda").device, found["arch"], {}

    def put(self, array: np.ndarray, order: tuple[int, ...] | None = None):
        """A view of a copy; `order` lists the axes from the outermost to the innermost in memory."""
        from numbanet.backends.cuda.tiles.arguments import View
        order = tuple(range(array.ndim)) if order is None else order
        dense = np.ascontiguousarray(array.transpose(order))
        block = self.device.allocate(dense.nbytes + 2 * self.GUARD)
        self.device.fill(block, 0, dense.nbytes + 2 * self.GUARD, 0xA5)
        self.device.upload(block, self.GUARD, dense.reshape(-1).view(np.uint8))
        self.blocks[self.device.address(block) + self.GUARD] = block, dense.nbytes
        strides = [0] * array.ndim
        for axis, stride in zip(order, dense.strides):
            strides[axis] = stride // dense.itemsize
        return View(self.device.address(block) + self.GUARD, array.shape, tuple(strides))

    def get(self, view, dtype: np.dtype) -> np.ndarray:
        order = sorted(range(len(view.shape)), key=lambda axis: (-view.strides[axis], axis))
        host = np.empty([view.shape[axis] for axis in order], dtype)
        self.device.download(host.reshape(-1).view(np.uint8), self.blocks[view.address][0], self.GUARD)
        return host.transpose(np.argsort(order))

    def run(self, launches) -> None:
        self.device.run_tiles(launches)
        self.device.synchronize()

    def milliseconds(self, launches, least: int = 5) -> float:
        """Median time of one run of launches whose kernels are loaded, by events, after a warm-up."""
        begin, end = self.device.event(), self.device.event()
        times = []
        for turn in range(3 + 4 * least):
            begin.record()
            self.device.run_tiles(launches)
            end.record()
            end.synchronize()
            if turn >= 3:
                times.append(begin.elapsed(end))
        return max(median(times), 1e-6)

    def free(self) -> str:
        """Free all arrays; says whether something was written outside of them."""
        written, guard = "", np.empty(self.GUARD, np.uint8)
        for block, size in self.blocks.values():
            for place in (0, self.GUARD + size):
                self.device.download(guard, block, place)
                if (guard != 0xA5).any():
                    written = f"{int((guard != 0xA5).sum())} bytes beside an array of {size} were written"
            self.device.free(block)
        self.blocks = {}
        return written


@phase("correctness", alone=True)
def first_contact(found: dict) -> Iterator[dict]:
    """Seconds, one thing after the other: a kernel, pieces of 16 bytes, a tile program, memory, events, random numbers, a CUDA graph."""
    import numbanet
    rng = np.random.default_rng(1)
    x = rng.standard_normal((64, 1000)).astype(np.float32)

    def to_cuda(array):
        return numbanet.tensor(array, device="cuda")

    def memory():
        np.testing.assert_array_equal(to_cuda(x).numpy(), x)
        free, total = numbanet.backends.get_backend("cuda").device.memory()
        return f"{free / 2**30:.1f} of {total / 2**30:.1f} GB free"

    def elements(of=slice(1, None)):
        np.testing.assert_array_equal((to_cuda(x)[:, of] + 1.0).numpy(), x[:, of] + np.float32(1))

    def sums():
        np.testing.assert_allclose(to_cuda(x).sum(1).numpy(), x.sum(1), rtol=0, atol=1e-3)

    def tile():
        card = Card(found)
        launches, y, a, b = gemm(card, "tf32", 128, 128, 64)
        card.run(launches)
        np.testing.assert_array_equal(card.get(y, np.dtype(np.float32)), a @ b)
        time = card.milliseconds(launches)
        assert not card.free(), "something was written beside an array"
        return f"{1e3 * time:.1f} us by events"

    def random_numbers():
        drawn = [numbanet.rand(1000, device=device, generator=numbanet.Generator(3)).numpy() for device in ("cuda", "reference")]
        np.testing.assert_array_equal(*drawn)

    def graph():
        model = numbanet.nn.Sequential(numbanet.nn.Linear(8, 8), numbanet.nn.ReLU(), numbanet.nn.Linear(8, 4))
        rows = numbanet.tensor(x[:, :8], device="cpu")
        expected = model(rows).detach().numpy()
        compiled = numbanet.compile(model.to("cuda").eval(), to_cuda(x[:, :8]))
        for _ in range(3):                               # run, captured, replayed
            np.testing.assert_allclose(compiled(to_cuda(x[:, :8])).numpy(), expected, rtol=0, atol=1e-5)

    for name, check in (("memory to the card and back", memory), ("a kernel", elements), ("a kernel of 16-byte pieces", lambda: elements(
            slice(None))), ("sums", sums), ("a tile program", tile), ("random numbers", random_numbers), ("a CUDA graph", graph)):
        try:
            detail = check()
            yield {"name": name, "ok": True, "detail": detail or ""}
        except Exception as error:                       # the next may still tell something
            if found.get("dry") and isinstance(error, AssertionError):          # nothing was computed
                yield {"name": name, "ok": True, "detail": ""}
            else:
                yield failed(name, error)


# Without a dry run, or of others' kernels.
UNASKED = ("first_contact", "machine_code", "operation_tests", "guard_zones", "sanitizers", "mnist", "speed_start")


@phase("correctness", alone=True)
def machine_code(found: dict) -> Iterator[dict]:
    """The kernels that later phases run, which dry runs of them tell, compiled for this card on all cores, without spills."""
    from numbanet.backends.cuda.dry import compile_all
    names = ["tile_products", "plans_of_lenet5"] if found.get("tiny") else [name for name in PHASES if name not in UNASKED]
    names.sort(key=lambda name: name in ("primitives", "operations"))           # of many dtypes: what measures is compiled before
    cores, wanted = os.cpu_count() or 1, {}
    with ThreadPoolExecutor(cores) as pool:
        for name, (kernels, error) in zip(names, pool.map(lambda name: _wanted_by(name, found), names)):
            wanted |= dict.fromkeys(kernels)
            if error:
                yield {"name": f"dry run of {name}", "ok": False, "detail": error}
    left = list(wanted)[:4 if found.get("tiny") else None]
    while left:
        try:
            for one, made in compile_all(left, found["arch"], cores):
                yield {"name": f"{one.name} {' '.join(one.types)}".strip(), "ok": made.spills == 0,
                       "detail": f"{made.registers} registers, {made.spills} bytes spilt"}
                left = left[1:]
        except Exception as error:                       # of one kernel; the others are compiled all the same
            yield failed(f"{left[0].name} {' '.join(left[0].types)}".strip(), error)
            left = left[1:]


def _wanted_by(name: str, found: dict) -> tuple[list, str]:
    """(kernels that a phase launches, what went wrong), by a process in which nothing is computed."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_suite.py"), "--dry-run", found["arch"], "--child", name, "--wanted"]
    done = subprocess.run([*command, *(["--tiny"] if found.get("tiny") else [])], cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(WANTED)]
    error = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
    return (pickle.loads(base64.b64decode(lines[-1].removeprefix(WANTED))) if lines else []), error


def print_wanted() -> None:
    """For `_wanted_by`: what this process's device, which computes nothing, would have launched."""
    from numbanet.backends import get_backend
    print(WANTED + base64.b64encode(pickle.dumps(list(get_backend("cuda").device.wanted))).decode(), flush=True)


def _maker(seed: int, dtype: np.dtype, bound: int) -> Callable:
    """A function that makes arrays of a shape: whole numbers up to `bound`, or where that is 0 random ones, which repeat, since those of
    large arrays would take the host longer than the card needs for all its work."""
    rng = np.random.default_rng(seed)
    some = rng.standard_normal(65537).astype(dtype)
    return (lambda shape: rng.integers(-bound, bound + 1, shape).astype(dtype)) if bound else lambda shape: np.resize(some, shape)


def gemm(card: Card, math: str, rows: int, columns: int, depth: int, transposed=(False, False), integers: bool = True):
    """(launches, view of y, a, b) of a product by the tile that `choose` takes."""
    from numbanet.backends.cuda.tiles.arguments import gemm, workspace_bytes
    from numbanet.backends.cuda.tiles.choose import Card, choose
    make = _maker(rows + columns + depth, _dtype(math), 3 if integers else 0)
    a, b = make((1, rows, depth)), make((1, depth, columns))
    views = [card.put(x, (0, 2, 1) if turned else None) for x, turned in zip((a, b), transposed)]
    y = card.put(np.full((1, rows, columns), np.nan, _dtype(math)))
    tile, splits = choose(math, rows, columns, depth, card=Card())
    room = card.put(np.zeros(max(1, workspace_bytes(rows, columns, 1, splits) // 4), np.float32)).address if splits > 1 else 0
    return gemm(tile, *views, y, splits=splits, workspace=room), y, a, b


@phase("correctness")
def tile_products(found: dict) -> Iterator[dict]:
    """Matrix products of tile programs: bit for bit on integers, the same bits twice, nothing written outside."""
    card = Card(found)
    for math in DTYPES:
        for sizes in ((256, 192, 320), (1000, 64, 4096), (257, 131, 77)):
            for transposed in ((False, False), (False, True), (True, True)) if sizes[0] < 257 else ((False, False),):
                name = f"gemm {math} {sizes} {transposed}"
                yield from attempted(name, partial(product_rows, name, card, math, sizes, transposed))


def product_rows(name: str, card: Card, math: str, sizes, transposed) -> Iterator[dict]:
    launches, y, a, b = gemm(card, math, *sizes, transposed)
    card.run(launches)
    first = card.get(y, _dtype(math))
    card.run(launches)
    wanted = (a.astype(np.float64) @ b.astype(np.float64)).astype(_dtype(math))
    wrong = int((first != wanted).sum())
    twice = bool((first == card.get(y, _dtype(math))).all())
    guard = card.free()
    yield {"name": name, "ok": wrong == 0 and twice and not guard,
           "detail": guard or f"{wrong} of {wanted.size} elements differ; the same twice: {twice}"}


def convolution(card: Card, math: str, batch: int, layer, direction: str, integers: bool = True):
    """(launches, result view, x, weight, grad_y, geometry)."""
    from numbanet.backends.cuda.tiles import arguments as tiles
    from numbanet.backends.cuda.tiles.choose import Card, choose
    from numbanet.geometry import conv_geometry
    channels, filters, size, kernel, stride, padding = layer
    geometry = conv_geometry(channels, filters, (size, size), (kernel, kernel), stride, padding)
    dtype, nhwc = _dtype(math), (0, 2, 3, 1)
    of_shape = _maker(size + channels, dtype, 2 if integers else 0)

    def make(n, c, h, w):
        return of_shape((n, h, w, c)).transpose(0, 3, 1, 2)     # in the order in which the card takes them
    x, weight = make(batch, channels, size, size), make(*geometry.weight_shape)
    grad_y = make(batch, filters, *geometry.output_size)
    pixels, window = batch * geometry.output_size[0] * geometry.output_size[1], channels * kernel * kernel
    sizes = {"forward": (pixels, filters, window), "backward_input": (batch * size * size // stride**2, channels, filters * kernel**2),
             "backward_weight": (filters, window, pixels)}[direction]
    tile, splits = choose(math, *sizes, card=Card(), may_split=direction == "backward_weight")
    result = card.put(np.full({"forward": grad_y, "backward_input": x, "backward_weight": weight}[direction].shape, np.nan, dtype), nhwc)
    operands = {"forward": (x, weight), "backward_input": (grad_y, weight), "backward_weight": (grad_y, x)}[direction]
    room = card.put(np.zeros(tiles.workspace_bytes(filters, window, 1, splits) // 4 + 1, np.float32)).address if splits > 1 else 0
    call = getattr(tiles, f"conv_{direction}")
    launches = call(tile, *[card.put(o, nhwc) for o in operands], result, geometry, splits=splits, workspace=room)
    return launches, result, x, weight, grad_y, geometry


def layers(found: dict) -> Iterator[tuple[str, tuple]]:
    """ResNet-50's convolutions by name; of a dry run with few channels and pixels."""
    for name, (channels, filters, size, *rest) in RESNET50.items():
        yield name, (channels if channels < 8 else channels // 8, filters // 8, size // 7, *rest) if found.get("tiny") else RESNET50[name]


@phase("correctness")
def tile_convolutions(found: dict) -> Iterator[dict]:
    """ResNet-50's convolutions in three passes by tile programs: bit for bit on integers beside the reference, which compiles nothing."""
    from numbanet.backends import get_backend
    card, reference = Card(found), get_backend("reference")
    for name, layer in layers(found):
        layer = (*layer[:2], min(layer[2], 30), *layer[3:])
        for direction in ("forward", "backward_input", "backward_weight"):
            for math in DTYPES:
                yield from attempted(f"{direction} {math} {name}", partial(_convolved, f"{direction} {math} {name}", card, reference, math,
                                                                           layer, direction))


def _convolved(name: str, card: Card, reference, math: str, layer, direction: str) -> Iterator[dict]:
    launches, result, x, weight, grad_y, geometry = convolution(card, math, 2, layer, direction)
    card.run(launches)
    received = card.get(result, _dtype(math))
    operands = {"forward": (x, weight, None), "backward_input": (grad_y, weight), "backward_weight": (grad_y, x)}[direction]
    operands = [o if o is None else o.astype(np.float32) for o in operands]
    wanted = getattr(reference, f"conv2d_{direction}")(*operands, geometry).astype(_dtype(math))
    wrong, guard = int((received != wanted).sum()), card.free()
    yield {"name": name, "ok": wrong == 0 and not guard, "detail": guard or f"{wrong} of {wanted.size} elements differ"}


@phase("correctness")
def primitives(found: dict) -> Iterator[dict]:
    """Every primitive on every case of the tests: cuda against reference."""
    import tests.cases
    from numbanet.backends import PRIMITIVES, get_backend
    cuda, reference = get_backend("cuda"), get_backend("reference")
    for module in pkgutil.iter_modules(tests.cases.__path__):
        for case in getattr(importlib.import_module(f"tests.cases.{module.name}"), "PRIMITIVE_CASES", ()):
            name = f"{case.primitive} {case.label}".strip()
            arguments = case.arguments(np.random.default_rng(zlib.crc32(name.encode())))
            try:
                difference = _compare(cuda, reference, PRIMITIVES[case.primitive], arguments)
            except Exception as error:                   # the other cases still tell something
                if getattr(error, "name", "") == "ml_dtypes":
                    continue                             # left out, as all of BF16
                yield {"name": name, "ok": False, "detail": f"{type(error).__name__}: {error}"[:300]}
                continue
            allowed = case.allowed("cuda")
            yield {"name": name, "ok": bool(difference <= allowed), "detail": f"differs by {difference:.2g}, allowed {allowed:.2g}"}


def _compare(cuda, reference, primitive, arguments) -> float:
    """Largest difference of results and of changed operands, relative to the largest number."""
    def moved(value, move):
        if isinstance(value, np.ndarray):
            return move(value.copy(order="K"))
        return [moved(v, move) for v in value] if isinstance(value, list) else value

    worst = 0.0
    answers = []
    for backend, move in ((reference, lambda array: array), (cuda, cuda.from_numpy)):
        operands = [moved(a, move) for a in arguments]
        results = getattr(backend, primitive.name)(*operands)
        results = list(results) if isinstance(results, tuple) else [results]
        changed = [operands[primitive.parameter_names.index(name)] for name in primitive.mutates]
        flat = [x for value in (*results, *changed) if value is not None for x in (value if isinstance(value, list) else [value])]
        answers.append([np.asarray(backend.to_numpy(x)) for x in flat])
    for expected, received in zip(*answers, strict=True):
        if expected.shape != received.shape or expected.dtype != received.dtype:
            raise AssertionError(f"expected {expected.shape} {expected.dtype}, received {received.shape} {received.dtype}")
        expected, received = expected.astype(np.float64), received.astype(np.float64)
        finite = np.isfinite(expected)
        if not np.array_equal(expected[~finite], received[~finite], equal_nan=True) or not np.isfinite(received[finite]).all():
            raise AssertionError("NaN or infinity in other places")
        worst = max(worst, np.abs(received[finite] - expected[finite]).max(initial=0) / (np.abs(expected[finite]).max(initial=0) or 1.0))
    return worst


@phase("correctness")
def operations(found: dict) -> Iterator[dict]:
    """Every operation of the tests, forward and gradients: cuda in float32 beside the reference in float64."""
    from tests.ops.test_every_operation import CASES, _values_and_gradients
    for case in CASES:
        try:
            worst = 0.0
            for mine, theirs in zip(_values_and_gradients(case, "cuda", np.float32), _values_and_gradients(case, "reference", np.float64)):
                for received, expected in zip(mine, theirs, strict=True):
                    received, expected = np.asarray(received, np.float64), np.asarray(expected, np.float64)
                    finite = np.isfinite(expected)
                    if not np.array_equal(expected[~finite], received[~finite], equal_nan=True):
                        raise AssertionError("NaN or infinity in other places")
                    scale = np.abs(expected[finite]).max(initial=0) or 1.0
                    worst = max(worst, np.abs(received[finite] - expected[finite]).max(initial=0) / scale)
            allowed = 4 * case.float32_tolerance
            yield {"name": case.name, "ok": bool(worst <= allowed), "detail": f"differs by {worst:.2g}, allowed {allowed:.2g}"}
        except Exception as error:                       # the other cases still tell something
            yield {"name": case.name, "ok": False, "detail": f"{type(error).__name__}: {error}"[:300]}


def one_step(name: str, size, device: str, model=None):
    """Gradients of one step of a model in evaluation mode, in one vector."""
    import numbanet
    from numbanet.nn import functional as F
    numbanet.manual_seed(3)
    model = (model or numbanet.create_model(name)).to(device).eval()
    model.zero_grad()
    output = model(numbanet.randn(4, *size, device="cpu").to(device))
    F.cross_entropy(getattr(output, "logits", output), numbanet.tensor([0, 1, 2, 3], device=device)).backward()
    return np.concatenate([p.grad.to("cpu").numpy().ravel() for p in model.parameters() if p.grad is not None])


@phase("correctness")
def networks(found: dict) -> Iterator[dict]:
    """Zoo models, one step on cuda beside the reference, with plain kernels and with tile programs; the same bits twice."""
    import numbanet
    for name, size in (("lenet5", (1, 32, 32)), ("resnet18", (3, 96, 96)), ("googlenet", (3, 96, 96)), ("mobilenet_v2", (3, 96, 96)),
                       ("alexnet", (3, 224, 224)), ("vgg16", (3, 64, 64)))[:2 if found.get("tiny") else None]:
        model = numbanet.create_model(name)
        expected = np.ones(1) if found.get("dry") else one_step(name, size, "reference", copy.deepcopy(model))
        for tiles in (False, True):
            yield from attempted(name, partial(_steps, name, size, model, expected, tiles))
    numbanet.cuda.set_tiles(None)


def _steps(name: str, size, model, expected: np.ndarray, tiles: bool) -> Iterator[dict]:
    import numbanet
    numbanet.cuda.set_tiles(tiles)
    first, second = (one_step(name, size, "cuda", copy.deepcopy(model)) for _ in range(2))
    error = np.linalg.norm(first - expected) / np.linalg.norm(expected)
    kind = "tiles, TF32" if tiles else "plain"
    yield {"name": f"{name}, {kind}: one step", "ok": bool(error < (5e-2 if tiles else 1e-2)),
           "detail": f"gradients differ by {error:.2g} of their norm"}
    yield {"name": f"{name}, {kind}: the same bits twice", "ok": bool(np.array_equal(first, second)), "detail": ""}


@phase("correctness")
def plans_of_lenet5(found: dict) -> Iterator[dict]:
    """Compiled training of LeNet-5: replays, of which all but the first are CUDA graphs, give the bits of eager steps."""
    yield from _replays((("lenet5", (1, 32, 32)),))


@phase("correctness")
def plans(found: dict) -> Iterator[dict]:
    """The same of larger networks; and ResNet-18 learns a batch in mixed precision."""
    yield from _replays((("resnet18", (3, 64, 64)), ("alexnet", (3, 224, 224)))[:1 if found.get("tiny") else None])
    for precision in [math for math in ("bf16", "fp16") if math in DTYPES]:
        yield from attempted(f"resnet18 learns a batch in {precision}", partial(_learns, precision))


def _learns(precision: str) -> Iterator[dict]:
    import numbanet
    from numbanet.nn import functional as F
    numbanet.cuda.set_tiles(True)
    numbanet.manual_seed(6)
    model = numbanet.create_model("resnet18").to("cuda").train()
    x, y = numbanet.randn(8, 3, 64, 64, device="cpu").to("cuda"), numbanet.tensor([0, 1, 2, 3] * 2, device="cuda")
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    step = numbanet.compile(model, (x, y), loss=F.cross_entropy, optimizer=optimizer, precision=precision)
    losses = [step(x, y).item() for _ in range(20)]
    yield {"name": f"resnet18 learns a batch in {precision}", "ok": bool(np.isfinite(losses).all() and losses[-1] < 0.7 * losses[0]),
           "detail": f"loss {losses[0]:.3f} to {losses[-1]:.3f}"}


def _replays(networks) -> Iterator[dict]:
    for name, size in networks:
        for tiles in (False, True):
            full = f"{name}, {'tiles' if tiles else 'plain'}: graph replay is eager"
            yield from attempted(full, partial(_replay, full, name, size, tiles))


def _replay(full: str, name: str, size, tiles: bool) -> Iterator[dict]:
    import numbanet
    from numbanet.nn import functional as F
    numbanet.cuda.set_tiles(tiles)
    results = []
    for compiled in (False, True):
        numbanet.manual_seed(4)
        model = numbanet.create_model(name).to("cuda").train()
        x, y = numbanet.randn(8, *size, device="cpu").to("cuda"), numbanet.tensor([0, 1, 2, 3] * 2, device="cuda")
        optimizer = numbanet.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        step = numbanet.compile(model, (x, y), loss=F.cross_entropy, optimizer=optimizer) if compiled else None
        losses = []
        numbanet.manual_seed(5)
        for _ in range(4):
            if compiled:
                losses.append(step(x, y).item())
                continue
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        results.append((losses, [p.detach().to("cpu").numpy() for p in model.parameters()]))
    same = results[0][0] == results[1][0] and all(map(np.array_equal, results[0][1], results[1][1]))
    yield {"name": full, "ok": bool(same), "detail": f"losses {results[0][0]} and {results[1][0]}"}


@phase("correctness")
def mnist(found: dict) -> Iterator[dict]:
    """LeNet-5 on the shipped MNIST sample to 99.0%: the recipe of `numbanet train lenet5`, which itself needs PyYAML."""
    import numbanet
    from numbanet.data import DataLoader, Subset, datasets, transforms
    from numbanet.train import Trainer
    from numbanet.train.preprocessing import DISTORTIONS
    numbanet.seed_everything(0)
    epochs, loaders = 1 if found.get("dry") else 25, []
    for is_training in (True, False):
        prepare = transforms.BatchAffineNormalize(32, mean=0.1307, std=0.3081, **(DISTORTIONS if is_training else {}))
        digits = datasets.MNISTSample(train=is_training, batch_transform=prepare)
        loaders.append(DataLoader(Subset(digits, range(130)) if found.get("dry") else digits, 64 if is_training else 500,
                                  shuffle=is_training, pin_memory=True, pin_memory_device="cuda"))
    model = numbanet.create_model("lenet5").to("cuda")
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.08, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = numbanet.optim.lr_scheduler.OneCycleLR(optimizer, 0.08, epochs=epochs, steps_per_epoch=len(loaders[0]), cycle_momentum=False)
    trainer = Trainer(model, optimizer=optimizer, scheduler=schedule, clip_norm=1.0)
    trainer.fit(loaders[0], epochs=epochs)
    judged = trainer.evaluate(loaders[1])
    accuracy = next(value for name, value in judged.items() if name.endswith("accuracy"))
    yield {"name": "LeNet-5 on the MNIST sample", "ok": bool(accuracy >= 0.99), "detail": f"{judged}"}


def install_dry(arch: str) -> None:
    """Let "cuda" be a device that computes nothing (`backends/cuda/dry.py`), in this process; PyTorch is not asked either."""
    global DRY
    sys.modules["torch"], DRY = None, True
    import numbanet.backends as backends
    from numbanet.backends.cuda import create_dry, guarded
    guarded.PATTERN = 0                  # what is read back is zeros
    backends._instances["cuda"] = backends._instances["cuda:0"] = create_dry(arch, "cuda:0")
