"""What `gpu_suite.py` runs: each phase yields rows, of checks {name, ok, detail} or of measurements {name, value, unit, peer}."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np

PHASES: dict[str, Callable] = {}
ROOT = Path(__file__).resolve().parent.parent
RESNET50 = {"conv1 7x7/2": (3, 64, 224, 7, 2, 3), "layer1 1x1": (64, 256, 56, 1, 1, 0), "layer1 3x3": (64, 64, 56, 3, 1, 1),
            "layer2 3x3/2": (128, 128, 56, 3, 2, 1), "layer2 3x3": (128, 128, 28, 3, 1, 1), "layer3 1x1": (1024, 256, 14, 1, 1, 0),
            "layer3 3x3": (256, 256, 14, 3, 1, 1), "layer4 1x1": (512, 2048, 7, 1, 1, 0), "layer4 3x3": (512, 512, 7, 3, 1, 1)}
DTYPES = {"tf32": "float32", "float32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def phase(kind: str) -> Callable:
    """Register a phase: kind "correctness" or "speed"."""
    def register(function):
        function.kind = kind
        PHASES[function.__name__] = function
        return function
    return register


def _dtype(math: str) -> np.dtype:
    import ml_dtypes
    return np.dtype(ml_dtypes.bfloat16) if math == "bf16" else np.dtype(DTYPES[math])


class _Card:
    """Memory and launches of the first GPU, as the backend makes them."""

    GUARD = 4096                         # bytes of a pattern at both ends of every array

    def __init__(self, found: dict):
        from numbanet.backends.cuda.driver import Device
        self.device, self.arch, self.blocks = Device(0), found["arch"], []
        self.call = self.device._call

    def put(self, array: np.ndarray, order: tuple[int, ...] | None = None):
        """A view of a copy; `order` lists the axes from the outermost to the innermost in memory."""
        from numbanet.backends.cuda.tiles.arguments import View
        order = tuple(range(array.ndim)) if order is None else order
        dense = np.ascontiguousarray(array.transpose(order))
        block = int(self.call("cuMemAlloc", dense.nbytes + 2 * self.GUARD))
        self.call("cuMemsetD8", block, 0xA5, dense.nbytes + 2 * self.GUARD)
        self.call("cuMemcpyHtoD", block + self.GUARD, dense.ctypes.data, dense.nbytes)
        self.blocks.append((block, dense.nbytes))
        strides = [0] * array.ndim
        for axis, stride in zip(order, dense.strides):
            strides[axis] = stride // dense.itemsize
        return View(block + self.GUARD, array.shape, tuple(strides))

    def get(self, view, dtype: np.dtype) -> np.ndarray:
        order = sorted(range(len(view.shape)), key=lambda axis: (-view.strides[axis], axis))
        host = np.empty([view.shape[axis] for axis in order], dtype)
        self.call("cuMemcpyDtoH", host.ctypes.data, view.address, host.nbytes)
        return host.transpose(np.argsort(order))

    def run(self, launches) -> None:
        self.device.run_tiles(launches)
        self.device.synchronize()

    def milliseconds(self, launches, least: int = 5) -> float:
        """Median time of one run of launches whose kernels are loaded, by events, after a warm-up."""
        begin, end = (self.call("cuEventCreate", 0) for _ in range(2))
        times = []
        for turn in range(3 + 4 * least):
            self.call("cuEventRecord", begin, self.device.stream)
            self.device.run_tiles(launches)
            self.call("cuEventRecord", end, self.device.stream)
            self.call("cuEventSynchronize", end)
            if turn >= 3:
                times.append(self.call("cuEventElapsedTime", begin, end))
        return median(times)

    def free(self) -> str:
        """Free all arrays; says whether something was written outside of them."""
        written = ""
        for block, size in self.blocks:
            guard = np.empty(self.GUARD, np.uint8)
            for place in (block, block + self.GUARD + size):
                self.call("cuMemcpyDtoH", guard.ctypes.data, place, self.GUARD)
                if (guard != 0xA5).any():
                    written = f"{int((guard != 0xA5).sum())} bytes beside an array of {size} were written"
            self.call("cuMemFree", block)
        self.blocks = []
        return written


def _compiled(name: str, math: str, arch: str) -> tuple[str, int, int]:
    from numbanet.backends.cuda.tiles.catalog import catalog, cubin_of
    made = cubin_of(catalog((math,))[name], arch)
    return name, made.registers, made.spills + made.stack


@phase("correctness")
def machine_code(found: dict) -> Iterator[dict]:
    """The tile programs that later phases run, compiled for this card on all cores, without spills."""
    from numbanet.backends.cuda.tiles.catalog import catalog
    wanted = [(name, math) for math in ("tf32", "bf16", "float32") for name in catalog((math,)) if math in name.split()]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for name, registers, spills in pool.map(_compiled, *zip(*wanted), [found["arch"]] * len(wanted)):
            yield {"name": name, "ok": spills == 0, "detail": f"{registers} registers, {spills} bytes spilt"}


def _gemm(card: _Card, math: str, rows: int, columns: int, depth: int, transposed=(False, False), integers: bool = True):
    """(launches, view of y, a, b) of a product by the tile that `choose` takes."""
    from numbanet.backends.cuda.tiles.arguments import gemm, workspace_bytes
    from numbanet.backends.cuda.tiles.choose import Card, choose
    rng = np.random.default_rng(rows + columns + depth)
    make = (lambda shape: rng.integers(-3, 4, shape)) if integers else rng.standard_normal
    a, b = make((1, rows, depth)).astype(_dtype(math)), make((1, depth, columns)).astype(_dtype(math))
    views = [card.put(x, (0, 2, 1) if turned else None) for x, turned in zip((a, b), transposed)]
    y = card.put(np.full((1, rows, columns), np.nan, _dtype(math)))
    tile, splits = choose(math, rows, columns, depth, card=Card())
    room = card.put(np.zeros(max(1, workspace_bytes(rows, columns, 1, splits) // 4), np.float32)).address if splits > 1 else 0
    return gemm(tile, *views, y, splits=splits, workspace=room), y, a, b


@phase("correctness")
def tile_products(found: dict) -> Iterator[dict]:
    """Matrix products of tile programs: bit for bit on integers, the same bits twice, nothing written outside."""
    card = _Card(found)
    for math in DTYPES:
        for sizes in ((256, 192, 320), (1000, 64, 4096), (257, 131, 77)):
            for transposed in ((False, False), (False, True), (True, True)) if sizes[0] < 257 else ((False, False),):
                launches, y, a, b = _gemm(card, math, *sizes, transposed)
                card.run(launches)
                first = card.get(y, _dtype(math))
                card.run(launches)
                wanted = (a.astype(np.float64) @ b.astype(np.float64)).astype(_dtype(math))
                wrong = int((first != wanted).sum())
                twice = bool((first == card.get(y, _dtype(math))).all())
                guard = card.free()
                yield {"name": f"gemm {math} {sizes} {transposed}", "ok": wrong == 0 and twice and not guard,
                       "detail": guard or f"{wrong} of {wanted.size} elements differ; the same twice: {twice}"}


def _convolution(card: _Card, math: str, batch: int, layer, direction: str, integers: bool = True):
    """(launches, result view, x, weight, grad_y, geometry)."""
    from numbanet.backends.cuda.tiles import arguments as tiles
    from numbanet.backends.cuda.tiles.choose import Card, choose
    from numbanet.geometry import conv_geometry
    channels, filters, size, kernel, stride, padding = layer
    geometry = conv_geometry(channels, filters, (size, size), (kernel, kernel), stride, padding)
    rng = np.random.default_rng(size + channels)
    make = (lambda shape: rng.integers(-2, 3, shape)) if integers else rng.standard_normal
    dtype, nhwc = _dtype(math), (0, 2, 3, 1)
    x, weight = make((batch, channels, size, size)).astype(dtype), make(geometry.weight_shape).astype(dtype)
    grad_y = make((batch, filters, *geometry.output_size)).astype(dtype)
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


@phase("correctness")
def tile_convolutions(found: dict) -> Iterator[dict]:
    """ResNet-50's convolutions in three passes by tile programs: bit for bit on integers beside the CPU backend in float64."""
    from numbanet.backends import get_backend
    card, cpu = _Card(found), get_backend("cpu")
    for math in DTYPES:
        for name, layer in RESNET50.items():
            layer = (*layer[:2], min(layer[2], 30), *layer[3:])
            for direction in ("forward", "backward_input", "backward_weight"):
                launches, result, x, weight, grad_y, geometry = _convolution(card, math, 2, layer, direction)
                card.run(launches)
                received = card.get(result, _dtype(math))
                operands = {"forward": (x, weight, None), "backward_input": (grad_y, weight), "backward_weight": (grad_y, x)}[direction]
                wide = [None if o is None else o.astype(np.float64) for o in operands]
                wanted = getattr(cpu, f"conv2d_{direction}")(*wide, geometry).astype(_dtype(math))
                wrong, guard = int((received != wanted).sum()), card.free()
                yield {"name": f"{direction} {math} {name}", "ok": wrong == 0 and not guard,
                       "detail": guard or f"{wrong} of {wanted.size} elements differ"}


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
                yield {"name": name, "ok": False, "detail": f"{type(error).__name__}: {error}"[:300]}
                continue
            allowed = 0 if case.exact else case.tolerance
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
def operation_tests(found: dict) -> Iterator[dict]:
    """The tests of operations that name the device cuda, by pytest."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "--maxfail=20", "-p", "no:cacheprovider", "tests/ops", "-k", "cuda"],
                          cwd=ROOT, capture_output=True, text=True, timeout=150)
    last = (done.stdout.strip().splitlines() or ["nothing"])[-1]
    yield {"name": "pytest tests/ops -k cuda", "ok": done.returncode == 0, "detail": last}


@phase("correctness")
def training(found: dict) -> Iterator[dict]:
    """Zoo models forward and one step on cuda beside the CPU; the same bits twice; LeNet-5 on the MNIST sample to 99.0%."""
    import numbanet
    from numbanet.nn import functional as F
    for name, size in (("lenet5", (1, 32, 32)), ("alexnet", (3, 224, 224)), ("resnet18", (3, 96, 96)), ("googlenet", (3, 96, 96))):
        gradients = []
        for device in ("cpu", "cuda", "cuda"):
            numbanet.manual_seed(3)
            model = numbanet.create_model(name).to(device)
            model.eval()
            images = numbanet.randn(4, *size, device="cpu").to(device)
            output = model(images)
            F.cross_entropy(getattr(output, "logits", output), numbanet.tensor([0, 1, 2, 3], device=device)).backward()
            gradients.append(np.concatenate([p.grad.to("cpu").numpy().ravel() for p in model.parameters()]))
        error = np.linalg.norm(gradients[1] - gradients[0]) / np.linalg.norm(gradients[0])
        same = bool(np.array_equal(gradients[1], gradients[2]))
        yield {"name": f"{name}: one step", "ok": bool(error < 1e-2), "detail": f"gradients differ by {error:.2g} of their norm"}
        yield {"name": f"{name}: the same bits twice", "ok": same, "detail": ""}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-m", "numbanet", "train", "lenet5", "--out", f"{folder}/run"], cwd=ROOT,
                              capture_output=True, text=True, timeout=200, env=os.environ | {"NUMBANET_DEVICE": "cuda"})
    best = max((float(number) for number in re.findall(r"(\d+\.\d+) ?%", done.stdout)), default=0.0)
    yield {"name": "LeNet-5 on the MNIST sample", "ok": done.returncode == 0 and best >= 99.0,
           "detail": f"{best}% ({(done.stderr.strip().splitlines() or [''])[-1][:200]})"}


def _torch_milliseconds(function, least: int = 5) -> float | None:
    """Median time of PyTorch's call by events; None where there is no PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    call, times = function(torch), []
    for turn in range(3 + 4 * least):
        begin.record()
        call()
        end.record()
        end.synchronize()
        if turn >= 3:
            times.append(begin.elapsed_time(end))
    return median(times)


def _torch_settings(torch, math: str):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = math == "tf32"
    torch.backends.cudnn.benchmark = True
    return {"tf32": torch.float32, "float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[math]


@phase("speed")
def speed_products(found: dict) -> Iterator[dict]:
    """TFLOP/s of square matrix products, 1024 to 8192, on random numbers, beside cuBLAS."""
    card = _Card(found)
    for math, sizes in (("tf32", (1024, 2048, 4096, 8192)), ("bf16", (1024, 2048, 4096, 8192)), ("float32", (1024, 4096))):
        for n in sizes:
            launches, *_ = _gemm(card, math, n, n, n, integers=False)
            ours = card.milliseconds(launches)
            card.free()

            def product(torch, n=n, math=math):
                dtype = _torch_settings(torch, math)
                a, b = (torch.randn(n, n, device="cuda").to(dtype) for _ in range(2))
                return lambda: a @ b
            theirs = _torch_milliseconds(product)
            yield {"name": f"gemm {math} {n}", "value": 2e-9 * n**3 / ours, "unit": "TFLOP/s", "peer": theirs and 2e-9 * n**3 / theirs}


@phase("speed")
def speed_convolutions(found: dict) -> Iterator[dict]:
    """TFLOP/s of ResNet-50's convolutions in three passes, batch 32, beside cuDNN."""
    card = _Card(found)
    for math in ("tf32", "bf16"):
        for name, layer in RESNET50.items():
            for direction in ("forward", "backward_input", "backward_weight"):
                if layer[0] == 3 and direction == "backward_input":
                    continue                             # nobody needs the gradient of the image
                launches, *_, geometry = _convolution(card, math, 32, layer, direction, integers=False)
                ours, work = card.milliseconds(launches), 2e-9 * geometry.multiply_adds(32)
                card.free()

                def convolution(torch, layer=layer, direction=direction, math=math):
                    channels, filters, size, kernel, stride, padding = layer
                    dtype, last = _torch_settings(torch, math), torch.channels_last
                    x = torch.randn(32, channels, size, size, device="cuda").to(dtype).contiguous(memory_format=last)
                    weight = torch.randn(filters, channels, kernel, kernel, device="cuda").to(dtype).contiguous(memory_format=last)
                    y = torch.nn.functional.conv2d(x, weight, None, stride, padding)
                    if direction == "forward":
                        return lambda: torch.nn.functional.conv2d(x, weight, None, stride, padding)
                    mask = (direction == "backward_input", direction == "backward_weight", False)
                    return lambda: torch.ops.aten.convolution_backward(
                        y, x, weight, None, (stride,) * 2, (padding,) * 2, (1, 1), False, (0, 0), 1, mask)
                theirs = _torch_milliseconds(convolution)
                yield {"name": f"{direction} {math} {name}", "value": work / ours, "unit": "TFLOP/s", "peer": theirs and work / theirs}


def _seconds(call, synchronize, least: float = 0.5) -> float:
    """Median seconds of a call that is waited for, over repeats in groups of five."""
    for _ in range(3):
        call()
    synchronize()
    times, end = [], time.perf_counter() + least
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(5):
            call()
        synchronize()
        times.append((time.perf_counter() - begin) / 5)
    return median(times)


@phase("speed")
def speed_memory(found: dict) -> Iterator[dict]:
    """GB/s of kernels that are bound by memory, and microseconds of a launch, beside PyTorch."""
    import numbanet
    from numbanet.backends import get_backend
    from numbanet.nn import functional as F
    backend, shape = get_backend("cuda"), (64, 256, 56, 56)
    x = numbanet.randn(*shape, device="cuda")
    small = numbanet.ones(16, device="cuda")
    cases = {"relu": (lambda: F.relu(x), lambda torch, t: torch.relu(t), 2),
             "add": (lambda: x + x, lambda torch, t: t + t, 2),
             "max pool 3x3/2": (lambda: F.max_pool2d(x, 3, 2, 1), lambda torch, t: torch.nn.functional.max_pool2d(t, 3, 2, 1), 1.25)}
    with numbanet.no_grad():
        for name, (ours, theirs, passes) in cases.items():
            def peers(torch, theirs=theirs):
                t = torch.randn(shape, device="cuda").contiguous(memory_format=torch.channels_last)
                return lambda: theirs(torch, t)
            amount, peer = passes * 4e-9 * float(np.prod(shape)), _torch_milliseconds(peers)
            rate = amount / _seconds(ours, backend.synchronize)
            yield {"name": name, "value": rate, "unit": "GB/s", "peer": peer and 1e3 * amount / peer}
        launch = 1e6 * _seconds(lambda: small + small, backend.synchronize)
        yield {"name": "a small kernel, eager", "value": launch, "unit": "us", "peer": None}


@phase("speed")
def speed_models(found: dict) -> Iterator[dict]:
    """Images a second of inference and of a training step, eager, beside torchvision's where it is installed."""
    import numbanet
    from numbanet.backends import get_backend
    from numbanet.nn import functional as F
    backend = get_backend("cuda")
    for name, batch, size in (("lenet5", 64, (1, 32, 32)), ("alexnet", 64, (3, 224, 224)), ("googlenet", 32, (3, 224, 224)),
                              ("resnet50", 32, (3, 224, 224)), ("vgg16", 16, (3, 224, 224))):
        model, images = numbanet.create_model(name).to("cuda"), numbanet.randn(batch, *size, device="cuda")
        labels = numbanet.tensor([i % 10 for i in range(batch)], device="cuda")
        optimizer = numbanet.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def step(model=model, images=images, labels=labels, optimizer=optimizer):
            output = model(images)
            loss = F.cross_entropy(getattr(output, "logits", output), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        def infer(model=model, images=images):
            with numbanet.no_grad():
                model(images)
        model.eval()
        yield {"name": f"{name}, inference", "value": batch / _seconds(infer, backend.synchronize), "unit": "images/s", "peer": None}
        yield {"name": f"{name}, training", "value": batch / _seconds(step, backend.synchronize), "unit": "images/s",
               "peer": _torch_training(name, batch, size)}


def _torch_training(name: str, batch: int, size) -> float | None:
    try:
        import torch
        import torchvision
        make = getattr(torchvision.models, name)
    except (ImportError, RuntimeError, AttributeError):  # RuntimeError: a torchvision that does not fit torch
        return None
    _torch_settings(torch, "tf32")
    model = make(weights=None).cuda().to(memory_format=torch.channels_last).eval()
    images = torch.randn(batch, *size, device="cuda").contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device="cuda") % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step():
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return batch / _seconds(step, torch.cuda.synchronize)
