"""The phases of `gpu_suite.py` that measure, each beside PyTorch on the same card; see `gpu_phases.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np

from benchmarks.gpu_phases import DTYPES, ROOT, Card, convolution, failed, gemm, layers, phase


def _torch():
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def _torch_milliseconds(function, least: int = 5) -> float | None:
    """Median time of PyTorch's call by events; None where there is no PyTorch that runs on the card."""
    torch = _torch()
    if torch is None:
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


def _case(name: str, unit: str, ours: Callable[[], float], theirs: Callable[[], float | None] | None = None) -> dict:
    """A row: a measurement beside its peer's. One that fails is a failed check, a peer that fails a note; the next cases go on."""
    try:
        value = ours()
    except Exception as error:
        return failed(name, error)
    try:
        return {"name": name, "value": value, "unit": unit, "peer": theirs() if theirs else None}
    except Exception as error:                           # out of memory, or a library of PyTorch's that is not there
        return {"name": name, "value": value, "unit": unit, "peer": None, "note": f"PyTorch: {type(error).__name__}: {error}"[:200]}


def _torch_settings(torch, math: str):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = math == "tf32"
    torch.backends.cudnn.benchmark = True
    return {"tf32": torch.float32, "float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[math]


@phase("speed")
def speed_products(found: dict) -> Iterator[dict]:
    """TFLOP/s of square matrix products, 1024 to 8192, on random numbers, beside cuBLAS."""
    card = Card(found)
    for math, sizes in (("tf32", (1024, 2048, 4096, 8192)), ("bf16", (1024, 2048, 4096, 8192)), ("float32", (1024, 4096))):
        for n in () if math not in DTYPES else (64,) if found.get("tiny") else sizes:
            def ours(n=n, math=math):
                try:
                    return 2e-9 * n**3 / card.milliseconds(gemm(card, math, n, n, n, integers=False)[0])
                finally:
                    card.free()

            def product(torch, n=n, math=math):
                dtype = _torch_settings(torch, math)
                a, b = (torch.randn(n, n, device="cuda").to(dtype) for _ in range(2))
                return lambda: a @ b
            yield _case(f"gemm {math} {n}", "TFLOP/s", ours, lambda product=product, n=n: _rate(2e-9 * n**3, product))


@phase("speed")
def speed_convolutions(found: dict) -> Iterator[dict]:
    """TFLOP/s of ResNet-50's convolutions in three passes, batch 32, beside cuDNN."""
    from numbanet.geometry import conv_geometry
    card = Card(found)
    for math in [math for math in ("tf32", "bf16") if math in DTYPES]:
        for name, layer in layers(found):
            for direction in ("forward", "backward_input", "backward_weight"):
                if layer[0] == 3 and direction == "backward_input":
                    continue                             # nobody needs the gradient of the image
                batch = 1 if found.get("tiny") else 32
                work = 2e-9 * conv_geometry(layer[0], layer[1], (layer[2],) * 2, (layer[3],) * 2, *layer[4:]).multiply_adds(batch)

                def ours(layer=layer, direction=direction, math=math, batch=batch, work=work):
                    try:
                        return work / card.milliseconds(convolution(card, math, batch, layer, direction, integers=False)[0])
                    finally:
                        card.free()

                def peer(torch, layer=layer, direction=direction, math=math):
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
                yield _case(f"{direction} {math} {name}", "TFLOP/s", ours, lambda peer=peer, work=work: _rate(work, peer))


def _rate(work: float, function) -> float | None:
    """Work in a millisecond of PyTorch's call; None where there is no PyTorch."""
    theirs = _torch_milliseconds(function)
    return theirs and work / theirs


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
    """GB/s of kernels that are bound by memory, beside PyTorch; a copy of the same size says what the card reaches."""
    import numbanet
    from numbanet.backends import get_backend
    from numbanet.nn import functional as F
    backend, shape, count = get_backend("cuda"), (64, 256, 56, 56), 1 << 25
    if found.get("tiny"):
        shape, count = (2, 256, 8, 8), 1 << 10
    size = 4e-9 * float(np.prod(shape))
    x = numbanet.randn(shape[0], *shape[2:], shape[1], device="cuda").permute(0, 3, 1, 2)
    weight, bias = (numbanet.ones(shape[1], device="cuda") for _ in range(2))
    parameter = numbanet.nn.Parameter(numbanet.zeros(count, device="cuda"))
    parameter.grad = numbanet.ones(count, device="cuda")
    sgd = numbanet.optim.SGD([parameter], lr=0.1, momentum=0.9)
    cases = {"copy": (lambda: x.clone(), lambda torch, t: t.clone(), 2 * size),
             "relu": (lambda: F.relu(x), lambda torch, t: torch.relu(t), 2 * size),
             "add": (lambda: x + x, lambda torch, t: t + t, 2 * size),
             "batch norm, training": (lambda: F.batch_norm(x, None, None, weight, bias, training=True),
                                      lambda torch, t: torch.nn.functional.batch_norm(t, None, None, training=True), 3 * size),
             "max pool 3x3/2": (lambda: F.max_pool2d(x, 3, 2, 1), lambda torch, t: torch.nn.functional.max_pool2d(t, 3, 2, 1), 1.25 * size),
             "dropout": (lambda: F.dropout(x, 0.5), lambda torch, t: torch.nn.functional.dropout(t, 0.5), 2 * size),
             "local response norm": (lambda: F.local_response_norm(x, 5), lambda torch, t: torch.nn.functional.local_response_norm(t, 5),
                                     2 * size),
             "softmax of 1000": (lambda: F.softmax(rows, 1), None, 8e-9 * (count // 512) * 1000),
             "SGD with momentum": (sgd.step, None, 5 * 4e-9 * count)}
    rows = numbanet.randn(count // 512, 1000, device="cuda")
    with numbanet.no_grad():
        for name, (ours, theirs, amount) in cases.items():
            def peers(torch, theirs=theirs):
                t = torch.randn(shape, device="cuda").contiguous(memory_format=torch.channels_last)
                return lambda: theirs(torch, t)
            yield _case(name, "GB/s", lambda ours=ours, amount=amount: amount / _seconds(ours, backend.synchronize, 0.2),
                        (lambda peers=peers, amount=amount: _rate(1e3 * amount, peers)) if theirs else None)


@phase("speed")
def speed_launches(found: dict) -> Iterator[dict]:
    """Microseconds of a launch: eager, from a plan, in a CUDA graph; a chain of small kernels, over their number."""
    import numbanet
    from numbanet.backends import get_backend
    backend, layers = get_backend("cuda"), 200
    small = numbanet.ones(16, 16, device="cuda")
    with numbanet.no_grad():
        yield _case("eager", "us", lambda: 1e6 * _seconds(lambda: small + small, backend.synchronize, 0.2))

    class Chain(numbanet.nn.Module):
        def forward(self, x):
            for _ in range(layers):
                x = numbanet.sigmoid(x)
            return x

    def replays():
        compiled = numbanet.compile(Chain(), small)
        return 1e6 * _seconds(lambda: compiled(small), backend.synchronize, 0.2) / layers
    for name, graphs in (("from a plan", "0"), ("in a graph", "1")):
        os.environ["NUMBANET_CUDA_GRAPHS"] = graphs
        yield _case(name, "us", replays)


MODELS = (("lenet5", 64, (1, 32, 32)), ("alexnet", 64, (3, 224, 224)), ("googlenet", 32, (3, 224, 224)), ("resnet50", 32, (3, 224, 224)),
          ("vgg16", 16, (3, 224, 224)))


@phase("speed")
def speed_models(found: dict) -> Iterator[dict]:
    """Images a second of inference and training, compiled: plain kernels, tiles in TF32 and BF16, beside torchvision's on PyTorch."""
    import numbanet
    from numbanet.backends import get_backend
    from numbanet.nn import functional as F
    backend = get_backend("cuda")
    for kind, tiles, precision in (("TF32", True, None), *([("BF16", True, "bf16")] if "bf16" in DTYPES else []), ("plain", False, None)):
        for name, batch, size in MODELS[:1] if found.get("tiny") else MODELS if tiles else (MODELS[0], MODELS[3]):
            numbanet.cuda.set_tiles(tiles)

            def ours(is_training, name=name, batch=batch, size=size, precision=precision):
                model, images = numbanet.create_model(name).to("cuda"), numbanet.randn(batch, *size, device="cuda")
                if is_training:
                    labels = numbanet.tensor([i % 10 for i in range(batch)], device="cuda")
                    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
                    step = numbanet.compile(model.train(), (images, labels), loss=getattr(model, "loss_function", F.cross_entropy),
                                            optimizer=optimizer, precision=precision)
                    return batch / _seconds(lambda: step(images, labels), backend.synchronize, 0.3)
                infer = numbanet.compile(model.eval(), images, precision=precision)
                return batch / _seconds(lambda: infer(images), backend.synchronize, 0.3)
            for run in ("inference", "training"):
                def theirs(name=name, batch=batch, size=size, kind=kind, run=run):
                    return _torch_rate(name, batch, size, kind, run == "training")
                yield _case(f"{name}, {run}, {kind}", "images/s", lambda ours=ours, run=run: ours(run == "training"),
                            theirs if tiles else None)
                numbanet.cuda.empty_cache()
    numbanet.cuda.set_tiles(None)


def _torch_lenet(torch):
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))


def _torch_rate(name: str, batch: int, size, kind: str, is_training: bool) -> float | None:
    """Images a second of PyTorch, in eager mode with cuDNN's own choice, channels last; None where it cannot run."""
    torch = _torch()
    if torch is None:
        return None
    try:
        if name == "lenet5":
            model = _torch_lenet(torch)
        else:
            import torchvision
            options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
            model = getattr(torchvision.models, name)(weights=None, **options)
    except (ImportError, RuntimeError, AttributeError):  # RuntimeError: a torchvision that does not fit torch
        return None
    _torch_settings(torch, "tf32")
    model = model.cuda().to(memory_format=torch.channels_last).train(is_training)
    images = torch.randn(batch, *size, device="cuda").contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device="cuda") % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step():
        with torch.autocast("cuda", torch.bfloat16, enabled=kind == "BF16"):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def infer():
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=kind == "BF16"):
            model(images)
    rate = batch / _seconds(step if is_training else infer, torch.cuda.synchronize, 0.3)
    torch.cuda.empty_cache()
    return rate


@phase("speed")
def speed_start(found: dict) -> Iterator[dict]:
    """Seconds from nothing to the first result of ResNet-50, with an empty and with a filled cache of machine code."""
    program = ("import sys; sys.path.insert(0, sys.argv[1]); import numbanet; from benchmarks import gpu_phases as g\n"
               "if sys.argv[2]: g.install_dry(sys.argv[2])\n"
               "m = numbanet.create_model('resnet50').to('cuda'); x = numbanet.randn(8, 3, 224, 224, device='cuda')\n"
               "import time; t = time.perf_counter(); m.eval()\n"
               "with numbanet.no_grad(): m(x).numpy()\n"
               "print(time.perf_counter() - t)")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("empty", "filled"):
            done = subprocess.run([sys.executable, "-c", program, str(ROOT), found["arch"] if found.get("dry") else ""], cwd=ROOT,
                                  capture_output=True, text=True, timeout=150, env=os.environ | {"NUMBANET_CACHE_DIR": folder})
            if done.returncode:
                raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
            yield {"name": f"first result of ResNet-50, {name} cache", "value": float(done.stdout.split()[-1]), "unit": "s", "peer": None}
