"""What verbs that open a network share: its arguments, the network with what belongs to it, its input, and the file that is written."""

from __future__ import annotations

import sys
from pathlib import Path


def configure_network(parser, image: bool = True, required: bool = True) -> None:
    """MODEL, IMAGE and the options that go with them."""
    parser.add_argument("network", metavar="MODEL", help="a run folder, weights (.safetensors, .npz, .pt, .pth), a .onnx file, or a name "
                                                         "from 'numbanet models', which has new random weights")
    if image:
        parser.add_argument("image", metavar="IMAGE", nargs=None if required else "?", help="an image file, or - for standard input")
        parser.add_argument("--raw", action="store_true", help="digits: use the picture as it is, without making it look as MNIST's do")
    parser.add_argument("--model", metavar="NAME", help="the network, where the weights do not say it (see 'numbanet models')")
    parser.add_argument("--metadata", metavar="FILE", help="JSON with the 'classes' and 'preprocessing' that the weights lack")
    parser.add_argument("--device", default="cpu", help="cpu (default) or reference")
    configure_output(parser)


def configure_output(parser) -> None:
    parser.add_argument("-o", "--out", metavar="FILE", help="the PNG to write (default: a new file in this folder)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def open_classifier(source, arguments):
    """The classifier of a run folder, of weights or of a .onnx file; `arguments` are --model, --metadata and --device."""
    from numbanet.errors import UsageError
    if Path(source).suffix.lower() != ".onnx":
        from numbanet.train.prediction import load_classifier
        return load_classifier(source, arguments.device, arguments.model, arguments.metadata)
    if arguments.model is not None:
        raise UsageError("--model: a .onnx file holds its network; leave it out")
    from numbanet.train.onnx_prediction import load_onnx_classifier
    return load_onnx_classifier(source, arguments.device, arguments.metadata)


def open_network(arguments):
    """(classifier, its name): as :func:`open_classifier`, or a model of the zoo with random weights, which standard error tells."""
    from numbanet.backends import get_backend
    from numbanet.errors import UsageError
    from numbanet.zoo import list_models
    check_output(arguments)
    get_backend(arguments.device)
    source = arguments.network
    if Path(source).exists() or source not in list_models():
        if not Path(source).exists() and not Path(source).suffix and "/" not in source and "\\" not in source:
            from numbanet.zoo import model_info
            try:
                model_info(source)
            except UsageError as error:             # says which name is near
                near = next((f"{hint} " for hint in [str(error).partition("; ")[2]] if hint.startswith("did you mean")), "")
                raise UsageError(f"MODEL: {source!r} is no file and no name of a model; {near}'numbanet models' lists the names") from None
        classifier = open_classifier(source, arguments)
        kind = type(classifier.model)._get_name(classifier.model)
        return classifier, Path(source).stem if kind in ("OnnxModel", "ChannelsFirst") else kind
    from numbanet.random import seed_everything
    from numbanet.train.prediction import Classifier
    from numbanet.train.preprocessing import Preprocessing
    from numbanet.zoo import create_model, model_info
    seed_everything(0)
    print(f"numbanet: {source} has new random weights; give a run folder or weights to see what it learned", file=sys.stderr)
    return Classifier(create_model(source), None, Preprocessing.for_model(model_info(source)), arguments.device), source


def read_input(classifier, arguments):
    """(network input (1, C, H, W), the Cell that shows it) of the image asked for."""
    import numbanet
    from numbanet.vision.composition import Cell
    source = arguments.image
    if source == "-":
        import io
        source = io.BytesIO(sys.stdin.buffer.read())
        source.name = "standard input"
    preprocessing = classifier.preprocessing
    values = preprocessing.batch_transform()(preprocessing.read(source, arguments.raw)[None])
    return numbanet.tensor(values, device=classifier.device), Cell(preprocessing.picture(values[0]), ("what the network sees",),
                                                                   smooth=min(values.shape[2:]) > 64)


def class_name(classifier, number: int) -> str:
    return classifier.classes[number] if classifier.classes and number < len(classifier.classes) else f"class {number}"


def class_number(classifier, text: str | None, count: int) -> int | None:
    """A class by number, or by name, of which the beginning is enough where it is the only one."""
    import difflib

    from numbanet.errors import UsageError
    if text is None:
        return None
    names = classifier.classes or []
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < count:
        return int(text)
    begins = [i for i, name in enumerate(names) if name.lower().startswith(text.lower())]
    if len(begins) == 1:
        return begins[0]
    near = [names[i] for i in begins[:4]] or difflib.get_close_matches(text, names, 3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise UsageError(f"--class: expected a number from 0 to {count - 1}{' or a name' if names else ''}, received {text!r}{hint}")


def check_output(arguments) -> None:
    from numbanet.errors import UsageError
    if arguments.out is not None and Path(arguments.out).suffix.lower() != ".png":
        raise UsageError(f"--out: expected a name that ends in .png, received {arguments.out}")
    if arguments.out is not None and Path(arguments.out).is_dir():
        raise UsageError(f"--out: {arguments.out} is a folder")
    for read in (getattr(arguments, "image", None), getattr(arguments, "network", None)):
        if arguments.out and read and Path(arguments.out).exists() and Path(read).exists() and Path(read).samefile(arguments.out):
            raise UsageError(f"--out: {arguments.out} is what this command reads; choose another name")


def output_path(arguments, *words: str) -> Path:
    """What --out says, or a name made of the words that nothing in this folder has yet."""
    if arguments.out is not None:
        return Path(arguments.out)
    stem = "-".join("".join(c if c.isalnum() or c in "._+" else "-" for c in word) for word in words if word)
    path, count = Path(f"{stem}.png"), 2
    while path.exists():
        path, count = Path(f"{stem}-{count}.png"), count + 1
    return path


def finish(arguments, path: Path, sheet, facts: dict, lines) -> int:
    """Write the picture, then say what is on it."""
    import json

    from numbanet.vision.composition import save_sheet
    save_sheet(path, sheet)
    if arguments.json:
        print(json.dumps({"path": str(path), **facts}, indent=2))
    else:
        print("\n".join([*lines, f"wrote {path}"]))
    return 0
