"""numbanet summary"""

from __future__ import annotations

import json
from pathlib import Path

EXAMPLE = "  numbanet summary lenet5\n  numbanet summary lenet5 --input 1,3,32,32 --in-chans 3\n  numbanet summary model.onnx"


def configure(parser) -> None:
    parser.add_argument("model", help="a name from 'numbanet models', or a .onnx file")
    parser.add_argument("--input", metavar="N,C,H,W", help="shape of the input (default: one image of the model's own size)")
    parser.add_argument("--num-classes", type=int, help="number of classes")
    parser.add_argument("--in-chans", type=int, help="number of image channels")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    from numbanet.errors import UsageError
    from numbanet.graph import summarize
    for name, value in (("num-classes", arguments.num_classes), ("in-chans", arguments.in_chans)):
        if value is not None and value < 1:
            raise UsageError(f"--{name}: expected at least 1, received {value}")
    model, examples = _onnx(arguments) if Path(arguments.model).suffix.lower() == ".onnx" else _of_zoo(arguments)
    summary = summarize(model, examples)
    print(json.dumps(summary.as_dict(), indent=2) if arguments.json else summary)
    return 0


def _of_zoo(arguments):
    """A model by name, and an example of its input."""
    import numbanet
    from numbanet.errors import UsageError
    from numbanet.zoo import create_model, model_info
    options = {k: v for k, v in (("num_classes", arguments.num_classes), ("in_chans", arguments.in_chans)) if v is not None}
    model = create_model(arguments.model, **options)
    info = model_info(arguments.model)
    channels = arguments.in_chans or info.input_size[0]
    shape = _shape(arguments.input) if arguments.input else (1, channels, *info.input_size[1:])
    if shape[1:2] != (channels,):
        raise UsageError(f"--input: {arguments.model} expects (N, {channels}, height, width), received {shape}"
                         + (f"; --in-chans {shape[1]} makes it for that" if len(shape) == 4 else ""))
    return model, numbanet.zeros(shape)


def _onnx(arguments):
    """A model from a file, and examples of its inputs; sizes that the file leaves open are 1."""
    import numbanet
    from numbanet.errors import UsageError
    from numbanet.onnx import load
    if arguments.num_classes is not None or arguments.in_chans is not None:
        raise UsageError("--num-classes and --in-chans change models of the zoo; an ONNX model is as it is")
    model = load(arguments.model)
    shapes = [tuple(n if isinstance(n, int) else 1 for n in declared.shape or ()) for declared in model.inputs]
    if arguments.input:
        shapes[:1] = [_shape(arguments.input)]
    open_sizes = [d.name for d in model.inputs if d.shape is None or any(not isinstance(n, int) for n in d.shape[1:])]
    if open_sizes and not arguments.input:
        raise UsageError(f"{arguments.model} leaves the size of {', '.join(open_sizes)} open; give it with --input N,C,H,W")
    return model, tuple(numbanet.zeros(shape, dtype=declared.dtype) for shape, declared in zip(shapes, model.inputs))


def _shape(text: str) -> tuple[int, ...]:
    from numbanet.errors import UsageError
    try:
        shape = tuple(int(n) for n in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(f"--input: expected sizes such as 1,1,32,32, received {text!r}")
    return shape
