"""numbanet summary"""

from __future__ import annotations

import json

EXAMPLE = "  numbanet summary lenet5\n  numbanet summary lenet5 --input 1,3,32,32 --in-chans 3"


def configure(parser) -> None:
    parser.add_argument("model", help="a name from 'numbanet models'")
    parser.add_argument("--input", metavar="N,C,H,W", help="shape of the input (default: one image of the model's own size)")
    parser.add_argument("--num-classes", type=int, help="number of classes")
    parser.add_argument("--in-chans", type=int, help="number of image channels")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    import numbanet
    from numbanet.errors import UsageError
    from numbanet.graph import summarize
    from numbanet.zoo import create_model, model_info
    for name, value in (("num-classes", arguments.num_classes), ("in-chans", arguments.in_chans)):
        if value is not None and value < 1:
            raise UsageError(f"--{name}: expected at least 1, received {value}")
    options = {k: v for k, v in (("num_classes", arguments.num_classes), ("in_chans", arguments.in_chans)) if v is not None}
    model = create_model(arguments.model, **options)
    info = model_info(arguments.model)
    shape = _shape(arguments.input) if arguments.input else (1, arguments.in_chans or info.input_size[0], *info.input_size[1:])
    summary = summarize(model, numbanet.zeros(shape))
    print(json.dumps(summary.as_dict(), indent=2) if arguments.json else summary)
    return 0


def _shape(text: str) -> tuple[int, ...]:
    from numbanet.errors import UsageError
    try:
        shape = tuple(int(n) for n in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(f"--input: expected sizes such as 1,1,32,32, received {text!r}")
    return shape
