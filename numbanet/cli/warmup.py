"""numbanet warmup"""

from __future__ import annotations

import logging
import sys
import time

EXAMPLE = "  numbanet warmup lenet5\n  numbanet warmup --device cuda --arch sm_90      # no GPU is needed"


def configure(parser) -> None:
    parser.add_argument("models", nargs="*", help="models whose training step is compiled (default: lenet5)")
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
    """Fill the cache of cubins with the tile programs; the kernels' numbers as a table."""
    from tqdm import tqdm

    from numbanet.backends.cuda import cubin
    from numbanet.backends.cuda.tiles.catalog import catalog, cubin_of
    from numbanet.errors import UsageError
    if arguments.models:
        raise UsageError(f"--device cuda: tile programs serve all models; expected no model, received {' '.join(arguments.models)}")
    if not arguments.arch:
        raise UsageError("--device cuda: expected --arch, such as --arch sm_80 (A100) or --arch sm_90 (H100)")
    for arch in arguments.arch:
        cubin.architecture(arch)
    started = time.perf_counter()
    maths = ("tf32", "bf16", "fp16", "float32") if arguments.all else tuple(dict.fromkeys(arguments.math or ("tf32", "float32")))
    kernels = catalog(maths)
    compiled = [(name, cubin_of(program, arch)) for name, program in tqdm(kernels.items(), unit="kernel", disable=None)
                for arch in dict.fromkeys(arguments.arch)]
    print(f"{'kernel':<50} {'arch':<6} {'registers':>9} {'spills':>6} {'KB':>5}")
    for name, made in compiled:
        print(f"{name:<50} {made.arch:<6} {made.registers:>9} {made.spills + made.stack:>6} {len(made.code) / 1024:>5.0f}")
    print(f"{len(compiled)} kernels in {cubin.cache_folder()}; {time.perf_counter() - started:.1f} s")
    return 0
