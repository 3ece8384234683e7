"""numbanet warmup"""

from __future__ import annotations

import logging
import sys
import time

EXAMPLE = "  numbanet warmup lenet5\n  numbanet warmup resnet50 --device cuda --arch sm_90      # no GPU is needed"


def configure(parser) -> None:
    parser.add_argument("models", nargs="*",
                        help="models whose kernels are compiled (default: lenet5; with --device cuda: what all models may need)")
    parser.add_argument("--all", action="store_true", help="compile every kernel of the backend, on the CPU also in float64")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="for which backend (default: cpu)")
    parser.add_argument("--arch", action="append", metavar="sm_NN",
                        help="with --device cuda: an architecture, such as sm_80 (A100) or sm_90 (H100); may be repeated")
    parser.add_argument("--math", action="append", choices=("tf32", "bf16", "fp16", "float32"),
                        help="with --device cuda: an arithmetic; may be repeated (default: tf32 and float32; --all: every one)")


def run(arguments) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("numbanet.compile").setLevel(logging.INFO)
    return _cuda(arguments) if arguments.device == "cuda" else _cpu(arguments)


def _cpu(arguments) -> int:
    import numbanet
    from numbanet import optim
    from numbanet.backends.cpu import compile
    from numbanet.errors import UsageError
    from numbanet.nn import functional as F
    from numbanet.zoo import create_model, model_info
    if arguments.arch or arguments.math:
        raise UsageError("--arch and --math are for --device cuda; on the CPU kernels are compiled for this processor")
    started = time.perf_counter()
    if arguments.all:
        numbanet.backends.get_backend("cpu")
        compile.warmup()
    for name in arguments.models or ([] if arguments.all else ["lenet5"]):
        info, model = model_info(name), create_model(name)
        images = numbanet.randn(4, *info.input_size)
        optimizer = optim.AdamW(model.parameters())
        loss = getattr(model, "loss_function", F.cross_entropy)
        loss(model(images), numbanet.tensor([0, 1, 2, 3])).backward()
        optimizer.step()
        model.eval()
        with numbanet.no_grad():
            model(images)
    statistics = compile.statistics
    print(f"{statistics.misses} kernels compiled, {statistics.hits} were in the cache; {time.perf_counter() - started:.1f} s")
    return 0


def _cuda(arguments) -> int:
    """Fill the cache of cubins: the kernels that models launch, or those that every model may; their numbers as a table."""
    import os

    from tqdm import tqdm

    from numbanet.backends.cuda import cubin
    from numbanet.backends.cuda.dry import compile_all
    from numbanet.errors import BackendError, UsageError
    from numbanet.zoo import model_info
    if not arguments.arch:
        raise UsageError("--device cuda: expected --arch, such as --arch sm_80 (A100) or --arch sm_90 (H100)")
    if arguments.models and (arguments.all or arguments.math):
        raise UsageError("--device cuda: expected models, whose kernels are compiled, or --all or --math, received both")
    for arch in arguments.arch:
        cubin.architecture(arch)
    for name in arguments.models:
        model_info(name)
    if reason := cubin.can_compile():
        raise BackendError(reason)
    started, compiled = time.perf_counter(), []
    for arch in dict.fromkeys(arguments.arch):
        wanted = _of_models(arguments.models, arch) if arguments.models else _of_all(arguments)
        done = compile_all(wanted, arch, os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count())
        compiled += tqdm(done, arch, len(wanted), unit="kernel", disable=None)
    print(f"{'kernel':<50} {'arch':<6} {'registers':>9} {'spills':>6} {'KB':>5}")
    for one, made in compiled:
        name = one.name if len(one.name) <= 50 else f"{one.name[:49]}\u2026"
        print(f"{name:<50} {made.arch:<6} {made.registers:>9} {made.spills + made.stack:>6} {len(made.code) / 1024:>5.0f}")
    print(f"{len(compiled)} kernels in {cubin.cache_folder()}; {time.perf_counter() - started:.1f} s")
    return 0


def _of_models(names: list[str], arch: str) -> list:
    """What inference and training of models launch, eager and compiled, by a device that computes nothing."""
    import numbanet
    from numbanet.backends import get_backend, register_backend
    from numbanet.backends.cuda import create_dry
    from numbanet.errors import BackendError
    from numbanet.nn import functional as F
    from numbanet.zoo import create_model, model_info
    device, infos = f"dry-{arch}", [model_info(name) for name in names]
    try:
        get_backend(device).device.wanted.clear()
    except BackendError:
        register_backend(device, lambda: create_dry(arch))
    for name, info in zip(names, infos):
        model = create_model(name).to(device)
        loss = getattr(model, "loss_function", F.cross_entropy)
        images = numbanet.randn(4, *info.input_size).to(device)
        labels = numbanet.tensor([0, 1, 2, 3], device=device)
        for optimizer in (numbanet.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), numbanet.optim.AdamW(model.parameters())):
            loss(model.train()(images), labels).backward()
            optimizer.step()
            numbanet.compile(model, (images, labels), loss=loss, optimizer=optimizer)(images, labels)
        model.eval()
        for batch in (images, images[:1]):
            with numbanet.no_grad():
                model(batch)
            numbanet.compile(model, batch)(batch)
    return list(get_backend(device).device.wanted)


def _of_all(arguments) -> list:
    """Tile programs of the arithmetic that is asked for, and the plain kernels in float32."""
    from numbanet.backends.cuda.dry import Wanted, plain_launches
    from numbanet.backends.cuda.tiles.catalog import catalog
    maths = ("tf32", "bf16", "fp16", "float32") if arguments.all else tuple(dict.fromkeys(arguments.math or ("tf32", "float32")))
    return [Wanted(program) for program in dict.fromkeys(catalog(maths).values())] + plain_launches()
