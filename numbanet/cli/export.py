"""numbanet export"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

EXAMPLE = ("  numbanet export runs/lenet5-1 digits.onnx\n  numbanet export runs/lenet5-1 --safetensors digits.safetensors\n"
           "  numbanet export resnet50.pth resnet50.onnx --model resnet50\n"
           "  numbanet export efficientnet_b0 new.onnx --input-size 3,256,256")
WIDTH = 80
ONNX_METADATA = ("preprocessing", "classes")
FORMATS = {"onnx": ".onnx", "safetensors": ".safetensors"}


def configure(parser) -> None:
    parser.add_argument("source", metavar="MODEL", help="a run folder (its best weights), weights (.safetensors, .npz, .pt, .pth), or a "
                                                        "name from 'numbanet models', which is exported with new random weights")
    parser.add_argument("target", metavar="OUT", nargs="?", help="the file to write, .onnx or .safetensors; or one of each by")
    parser.add_argument("--onnx", metavar="FILE", help="the network and its weights, for other programs")
    parser.add_argument("--safetensors", metavar="FILE", help="the weights, with what 'numbanet predict' and create_model need to know")
    parser.add_argument("--model", metavar="NAME", help="the network, where the weights do not say it (see 'numbanet models')")
    parser.add_argument("--metadata", metavar="FILE", help="JSON with the 'classes' and 'preprocessing' that the weights lack")
    parser.add_argument("--input-size", metavar="C,H,W", help="of one image in ONNX (default: what the network was made for)")
    parser.add_argument("--fixed-batch", type=int, metavar="N", help="ONNX for batches of N only, instead of any")
    parser.add_argument("--nms", action="store_true", help="of detectors: ONNX with the operator that keeps the best of overlapping boxes")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def run(arguments) -> int:
    import numbanet
    from numbanet.errors import UsageError
    targets = _targets(arguments)
    if arguments.fixed_batch is not None and arguments.fixed_batch < 1:
        raise UsageError(f"--fixed-batch: expected at least 1, received {arguments.fixed_batch}")
    if "onnx" not in targets and (arguments.fixed_batch or arguments.input_size):
        raise UsageError(f"{'--fixed-batch' if arguments.fixed_batch else '--input-size'}: weights are of any size; leave it out, or "
                         "write --onnx too")
    if _is_detector(arguments.source):
        return _detector(arguments, targets)
    if arguments.nms:
        raise UsageError("--nms: is for detectors, whose boxes overlap; leave it out")
    model, size, metadata, origin = _source(arguments)
    facts, rows = {}, [("weights", origin)]
    if "onnx" in targets:
        from numbanet.onnx import save
        size = _size(arguments.input_size) if arguments.input_size else size
        stored = {name: metadata[name] for name in ONNX_METADATA if metadata.get(name) is not None}
        exported = save(model, targets["onnx"], numbanet.empty(arguments.fixed_batch or 1, *size), metadata=stored,
                        dynamic_batch=arguments.fixed_batch is None)
        facts |= _facts(exported)
        rows += _report(exported, stored)
    if "safetensors" in targets:
        from numbanet.weights import save_weights
        target = targets["safetensors"]
        save_weights(target, model.state_dict(), metadata)
        _tell_weights(target, model, metadata, facts, rows)
    print(json.dumps(facts, indent=2) if arguments.json else "\n".join(_wrapped(*row) for row in rows))
    return 0


def _tell_weights(target: Path, model, metadata: dict, facts: dict, rows: list) -> None:
    state = model.state_dict()
    numbers = sum(tensor.numel() for tensor in state.values())
    facts["safetensors"] = {"path": str(target), "arrays": len(state), "numbers": numbers, "bytes": target.stat().st_size}
    rows += [("arrays", f"{len(state)}, {numbers:,} numbers"), ("stored too", ", ".join(metadata)),
             ("written", f"{target} ({target.stat().st_size / 1e6:.1f} MB)")]


def _is_detector(source: str) -> bool:
    from numbanet.detection.prediction import is_detector
    return Path(source).exists() and is_detector(source)


def _detector(arguments, targets: dict[str, Path]) -> int:
    """As :func:`run`, of a detector."""
    from numbanet.detection import load_detector
    from numbanet.detection.export import STORED, export_detector
    from numbanet.errors import UsageError
    for name in ("model", "metadata", "input_size"):
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: a detector's weights say it themselves; leave it out")
    if arguments.nms and "onnx" not in targets:
        raise UsageError("--nms: is for ONNX; leave it out, or write --onnx too")
    detector = load_detector(arguments.source)
    facts, rows = {}, [("weights", arguments.source)]
    if "onnx" in targets:
        exported = export_detector(detector, targets["onnx"], nms=arguments.nms, batch=arguments.fixed_batch)
        facts |= _facts(exported)
        rows += _report(exported, dict.fromkeys(STORED))
    if "safetensors" in targets:
        from numbanet.weights import save_weights
        save_weights(targets["safetensors"], detector.model.state_dict(), detector.metadata)
        _tell_weights(targets["safetensors"], detector.model, detector.metadata, facts, rows)
    print(json.dumps(facts, indent=2) if arguments.json else "\n".join(_wrapped(*row) for row in rows))
    return 0


def _targets(arguments) -> dict[str, Path]:
    """Format -> file, of OUT and the options."""
    from numbanet.errors import UsageError
    given = {name: Path(path) for name in FORMATS if (path := getattr(arguments, name)) is not None}
    for name, path in given.items():
        if path.suffix.lower() != FORMATS[name]:
            raise UsageError(f"--{name}: expected a name that ends in {FORMATS[name]}, received {path.name}")
    if arguments.target is not None:
        path = Path(arguments.target)
        name = next((name for name, suffix in FORMATS.items() if path.suffix.lower() == suffix), None)
        if name is None:
            raise UsageError(f"OUT: expected a name that ends in {' or '.join(FORMATS.values())}, received {path.name}")
        if name in given:
            raise UsageError(f"OUT: expected one file of {name}, received {path} and --{name} {given[name]}")
        given[name] = path
    if not given:
        raise UsageError("expected a file to write: --onnx FILE or --safetensors FILE")
    return given


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
    return classifier.model, classifier.preprocessing.input_size, classifier.metadata, name


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


def _report(exported, metadata: dict) -> list[tuple[str, str]]:
    def described(shapes: dict) -> str:
        return ", ".join(f"{name} ({' x '.join(map(str, shape))})" for name, shape in shapes.items())
    nodes = sorted(exported.nodes.items(), key=lambda item: (-item[1], item[0]))
    written = f"{exported.path} ({exported.path.stat().st_size / 1e6:.1f} MB)"
    if exported.data_path is not None:
        written += f" and {exported.data_path} ({exported.data_path.stat().st_size / 1e6:.1f} MB), which belong together"
    return [("input", described(exported.inputs)), ("output", described(exported.outputs)),
            ("nodes", f"{sum(exported.nodes.values())} of opset {exported.opset}: " + ", ".join(
                f"{n}\N{NO-BREAK SPACE}{op}" for op, n in nodes)),
            ("constants", f"{exported.parameters:,} numbers"), ("stored too", ", ".join(metadata)), ("written", written)]


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=f"{label:<12}", subsequent_indent=" " * 12, break_long_words=False,
                         break_on_hyphens=False).replace("\N{NO-BREAK SPACE}", " ")
