"""numbanet explain"""

from __future__ import annotations

EXAMPLE = ("  numbanet explain runs/lenet5-1 digit.png\n  numbanet explain lite0.safetensors photo.jpg --method occlusion \\\n"
           "      --class dalmatian\n  numbanet explain runs/lenet5-1 --method maximise --class 3")
METHODS = ("gradcam", "gradcam++", "saliency", "smoothgrad", "integrated-gradients", "guided", "occlusion", "maximise")


def configure(parser) -> None:
    from numbanet.cli.network import configure_network
    configure_network(parser, required=False)
    parser.add_argument("--method", default="gradcam", help=f"{', '.join(METHODS)} (default gradcam)")
    parser.add_argument("--class", dest="category", metavar="C", help="number or name of a class (default: the most probable)")
    parser.add_argument("--layer", metavar="L", help="gradcam: the maps used (default: the end of the trunk); maximise: where the unit is")
    parser.add_argument("--unit", type=int, metavar="K", help="maximise: a channel of --layer, in place of a class")


def run(arguments) -> int:
    import difflib

    from numbanet.cli.network import open_network
    from numbanet.errors import UsageError
    if arguments.method not in METHODS:
        close = difflib.get_close_matches(arguments.method, METHODS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(f"--method: expected one of {', '.join(METHODS)}, received {arguments.method!r}{hint}")
    maximising = arguments.method == "maximise"
    if maximising and arguments.image is not None:
        raise UsageError("--method maximise: makes a picture of its own; leave IMAGE out")
    if not maximising and arguments.image is None:
        raise UsageError("expected an image: numbanet explain MODEL IMAGE")
    if arguments.unit is not None and not (maximising and arguments.layer):
        raise UsageError("--unit: goes with --method maximise and --layer")
    if maximising and (arguments.category is None) == (arguments.unit is None):
        raise UsageError("--method maximise: expected either --class C, or --layer L and --unit K")
    classifier, name = open_network(arguments)
    return (_maximise if maximising else _explain)(arguments, classifier, name)


def _explain(arguments, classifier, name: str) -> int:
    import numbanet
    from numbanet.cli.network import class_name, class_number, finish, output_path, read_input
    from numbanet.vision.explaining import explain, explanation_sheet
    from numbanet.vision.layers import find_layer
    if arguments.layer is not None:
        find_layer(classifier.model, arguments.layer)
    x, picture = read_input(classifier, arguments)
    probabilities = classifier.probabilities_of(x)
    chosen = class_number(classifier, arguments.category, len(probabilities))
    category = int(probabilities.argmax()) if chosen is None else chosen
    found = explain(classifier.model, x, arguments.method, category, arguments.layer,
                    baseline=numbanet.tensor(_nothing(classifier.preprocessing), device=classifier.device))
    label = f"{class_name(classifier, category)}, {100 * probabilities[category]:.1f}%"
    best = int(probabilities.argmax())
    lines = [f"{label}: where the network saw it"]
    if best != category:
        lines[0] += f" (its answer is {class_name(classifier, best)}, {100 * probabilities[best]:.1f}%)"
    sheet = explanation_sheet(found, picture, label, f"{name}: {arguments.method}", lines)
    y, x_ = divmod(int(found.map.argmax()), found.map.shape[1])
    facts = {"method": found.method, "layer": found.layer, "class": class_name(classifier, category), "number": category,
             "probability": float(probabilities[category]), "peak": [y, x_], "remarks": found.remarks}
    path = output_path(arguments, name, arguments.method, str(category) if chosen is not None else "")
    return finish(arguments, path, sheet, facts, [f"{arguments.method}: {label}", *(f"  {remark}" for remark in found.remarks)])


def _nothing(preprocessing):
    """The pixels where there is no picture: black paper behind digits, mid-grey elsewhere, since black is a colour of photographs."""
    black, white = preprocessing.black_and_white()
    return black if preprocessing.digits else (black + white) / 2


def _maximise(arguments, classifier, name: str) -> int:
    import numbanet
    from numbanet.cli.network import class_name, class_number, finish, output_path
    from numbanet.vision.composition import Cell, Section, compose
    from numbanet.vision.maximisation import maximise
    preprocessing = classifier.preprocessing
    low, high = (numbanet.tensor(v, device=classifier.device) for v in preprocessing.black_and_white())
    probe = numbanet.zeros(1, *preprocessing.input_size, device=classifier.device)
    category = class_number(classifier, arguments.category, len(classifier.probabilities_of(probe)))
    unit = category if arguments.unit is None else arguments.unit
    x, values = maximise(classifier.model, preprocessing.input_size, unit, arguments.layer, low, high, device=classifier.device)
    what = f"channel {unit} of {arguments.layer}" if category is None else class_name(classifier, category)
    answer = [f"activation {values[0]:.3g} at first, {values[-1]:.3g} at last"]
    if category is not None:
        answer.append(f"the network is {100 * classifier.probabilities_of(x)[category]:.1f}% sure")
    sheet = compose(f"{name}: what excites {what}", [f"A picture that climbs the gradient; {', '.join(answer)}."],
                    [Section([Cell(preprocessing.picture(x.numpy()[0]), (what, *answer), min(x.shape[2:]) > 64)], "", 2, longest=560)])
    facts = {"method": "maximise", "layer": arguments.layer, "unit": unit, "first": values[0], "last": values[-1]}
    path = output_path(arguments, name, "maximise", arguments.layer or "", str(unit))
    return finish(arguments, path, sheet, facts, [f"{what}: {answer[0]}", *answer[1:]])
