"""numbanet export"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

EXAMPLE = ("  numbanet export runs/lenet5-1 digits.onnx\n  numbanet export resnet50.pth resnet50.onnx --model resnet50\n"
           "  numbanet export efficientnet_b0 new.onnx --input-size 3,256,256")
WIDTH = 80


def configure(parser) -> None:
    parser.add_argument("source", metavar="MODEL", help="a run folder, weights (.safetensors, .npz, .pt, .pth), or a name from "
                                                        "'numbanet models', which is exported with new random weights")
    parser.add_argument("target", metavar="OUT", help="the .onnx file to write")
    parser.add_argument("--model", metavar="NAME", help="the network, where the weights do not say it (see 'numbanet models')")
    parser.add_argument("--metadata", metavar="FILE", help="JSON with the 'classes' and 'preprocessing' that the weights lack")
    parser.add_argument("--input-size", metavar="C,H,W", help="of one image (default: what the network was made for)")
    parser.add_argument("--fixed-batch", type=int, metavar="N", help="batches of N only, instead of any")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    import numbanet
    from numbanet.errors import UsageError
    from numbanet.onnx import save
    target = Path(arguments.target)
    if target.suffix.lower() != ".onnx":
        raise UsageError(f"OUT: expected a name that ends in .onnx, received {target.name}")
    if arguments.fixed_batch is not None and arguments.fixed_batch < 1:
        raise UsageError(f"--fixed-batch: expected at least 1, received {arguments.fixed_batch}")
    model, size, metadata, origin = _source(arguments)
    size = _size(arguments.input_size) if arguments.input_size else size
    exported = save(model, target, numbanet.empty(arguments.fixed_batch or 1, *size), metadata=metadata,
                    dynamic_batch=arguments.fixed_batch is None)
    print(json.dumps(_facts(exported), indent=2) if arguments.json else _report(exported, origin, metadata))
    return 0


def _source(arguments) -> tuple:
    """(model, size of its input, metadata to store, where the weights are from)."""
    from numbanet.errors import UsageError
    from numbanet.train.preprocessing import Preprocessing
    from numbanet.zoo import create_model, list_models, model_info
    name = arguments.source
    if not Path(name).exists() and (name in list_models() or Path(name).suffix == "" and Path(name).name == name):
        info = model_info(name)             # tells the nearest name where there is none
        if arguments.model is not None or arguments.metadata is not None:
            raise UsageError(f"--model and --metadata belong to weights; {name} is a network without any")
        metadata = {"model": name, "num_classes": info.num_classes, "in_chans": info.input_size[0],
                    "preprocessing": Preprocessing.for_model(info).as_metadata()}
        return create_model(name), info.input_size, metadata, f"{name}, new and random"
    from numbanet.train.prediction import load_classifier
    classifier = load_classifier(name, model=arguments.model, metadata=arguments.metadata)
    metadata = {"preprocessing": classifier.preprocessing.as_metadata()}
    if classifier.classes is not None:
        metadata["classes"] = list(classifier.classes)
    return classifier.model, classifier.preprocessing.input_size, metadata, name


def _size(text: str) -> tuple[int, ...]:
    from numbanet.errors import UsageError
    try:
        size = tuple(int(n) for n in text.replace("x", ",").split(","))
    except ValueError:
        size = ()
    if len(size) != 3 or min(size) < 1:
        raise UsageError(f"--input-size: expected channels, height and width such as 3,224,224, received {text!r}")
    return size


def _facts(exported) -> dict:
    return {"path": str(exported.path), "data_path": None if exported.data_path is None else str(exported.data_path),
            "opset": exported.opset, "inputs": exported.inputs, "outputs": exported.outputs, "nodes": exported.nodes,
            "constants": exported.parameters, "bytes": exported.nbytes}


def _report(exported, origin: str, metadata: dict) -> str:
    def described(shapes: dict) -> str:
        return ", ".join(f"{name} ({' x '.join(map(str, shape))})" for name, shape in shapes.items())
    nodes = sorted(exported.nodes.items(), key=lambda item: (-item[1], item[0]))
    written = f"{exported.path} ({exported.path.stat().st_size / 1e6:.1f} MB)"
    if exported.data_path is not None:
        written += f" and {exported.data_path} ({exported.data_path.stat().st_size / 1e6:.1f} MB), which belong together"
    rows = [("weights", origin), ("input", described(exported.inputs)), ("output", described(exported.outputs)),
            ("nodes", f"{sum(exported.nodes.values())} of opset {exported.opset}: " + ", ".join(
                f"{n}\N{NO-BREAK SPACE}{op}" for op, n in nodes)),
            ("constants", f"{exported.parameters:,} numbers"), ("stored too", ", ".join(metadata)), ("written", written)]
    return "\n".join(line.replace("\N{NO-BREAK SPACE}", " ") for label, text in rows for line in textwrap.wrap(
        text, WIDTH, initial_indent=f"{label:<12}", subsequent_indent=" " * 12, break_long_words=False, break_on_hyphens=False))
