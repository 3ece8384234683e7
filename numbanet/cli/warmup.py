"""numbanet warmup"""

from __future__ import annotations

import logging
import sys
import time

EXAMPLE = "  numbanet warmup lenet5"


def configure(parser) -> None:
    parser.add_argument("models", nargs="*", help="models whose training step is compiled (default: lenet5)")
    parser.add_argument("--all", action="store_true", help="compile every kernel of the CPU backend, also in float64")


def run(arguments) -> int:
    import numbanet
    from numbanet import optim
    from numbanet.backends.cpu import compile
    from numbanet.nn import functional as F
    from numbanet.zoo import create_model, model_info
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("numbanet.compile").setLevel(logging.INFO)
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
