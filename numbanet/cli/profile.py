"""numbanet profile"""

from __future__ import annotations

import json
import os

EXAMPLE = "  numbanet profile resnet18\n  numbanet profile lenet5 --train --batch-size 64 --trace steps.json"
WIDTH = 80


def configure(parser) -> None:
    parser.add_argument("model", help="a name from 'numbanet models'")
    parser.add_argument("--train", action="store_true", help="forward and backward pass instead of inference")
    parser.add_argument("--batch-size", type=int, default=1, help="images (default 1)")
    parser.add_argument("--repetitions", type=int, default=10, help="how often it is measured (default 10)")
    parser.add_argument("--threads", type=int, help="threads of the kernels (default: all cores)")
    parser.add_argument("--all", action="store_true", help="every layer, in order, instead of the slowest")
    parser.add_argument("--trace", metavar="FILE", help="also write one replay for chrome://tracing or ui.perfetto.dev")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    from numbanet.errors import UsageError
    for name in ("batch_size", "repetitions", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')}: expected at least 1, received {value}")
    if arguments.threads is not None:
        os.environ["NUMBANET_NUM_THREADS"] = str(arguments.threads)
    import numbanet
    from numbanet.files import write_text
    from numbanet.graph.profile import profile
    from numbanet.nn import functional as F
    from numbanet.zoo import create_model, model_info
    info = model_info(arguments.model)
    model = create_model(arguments.model)
    numbanet.manual_seed(0)
    x = numbanet.randn(arguments.batch_size, *info.input_size)
    if arguments.train:
        y = numbanet.zeros(arguments.batch_size, dtype=numbanet.int64)
        measured = profile(model, x, getattr(model, "loss_function", F.cross_entropy), y, arguments.repetitions)
    else:
        measured = profile(model, x, repetitions=arguments.repetitions)
    if arguments.trace:
        write_text(arguments.trace, json.dumps(measured.chrome_trace()))
    print(json.dumps(_facts(measured), indent=2) if arguments.json else _table(arguments, measured))
    return 0


def _facts(measured) -> dict:
    return {"seconds": measured.seconds, "arena_bytes": measured.arena, "parameter_bytes": measured.parameters,
            "layers": [vars(layer) for layer in measured.layers]}


def _table(arguments, measured) -> str:
    counted = sum(layer.seconds for layer in measured.layers)
    rows = measured.layers if arguments.all else sorted(measured.layers, key=lambda layer: -layer.seconds)[:20]
    what = "training step (without update)" if arguments.train else "inference"
    lines = [f"{arguments.model}: {what} of {arguments.batch_size} in {1e3 * measured.seconds:.3f} ms, median of {arguments.repetitions}",
             f"memory: {measured.arena / 1e6:.1f} MB for results, {measured.parameters / 1e6:.1f} MB of parameters", "",
             f"{'layer':<30} {'phase':<8} {'ms':>9} {'share':>6} {'MB':>7}  primitives"]
    for layer in rows:
        names = [name.removesuffix("_forward") for name in layer.primitives]
        path = layer.path or "(no layer)"
        path = path if len(path) <= 30 else "..." + path[-27:]
        line = (f"{path:<30} {layer.phase:<8} {1e3 * layer.seconds:>9.3f} {100 * layer.seconds / max(counted, 1e-12):>5.1f}% "
                f"{layer.nbytes / 1e6:>7.2f}  ")
        room = WIDTH - len(line)
        text = ", ".join(names)
        lines.append(line + (text if len(text) <= room else text[:room - 3] + "..."))
    if len(rows) < len(measured.layers):
        rest = counted - sum(layer.seconds for layer in rows)
        lines.append(f"{len(measured.layers) - len(rows)} more layers take {100 * rest / max(counted, 1e-12):.1f}%; --all shows them")
    between = measured.seconds - counted
    lines.append(f"between the calls: {1e3 * max(between, 0):.3f} ms")
    if arguments.trace:
        lines.append(f"trace: {arguments.trace} (open it in chrome://tracing or https://ui.perfetto.dev)")
    return "\n".join(lines)
