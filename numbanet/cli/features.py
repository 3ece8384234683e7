"""numbanet features"""

from __future__ import annotations

EXAMPLE = ("  numbanet features runs/lenet5-1 digit.png\n"
           "  numbanet features resnet50.safetensors photo.jpg --layer layer2.3")


def configure(parser) -> None:
    from numbanet.cli.network import configure_network
    configure_network(parser)
    parser.add_argument("--layer", metavar="L", help="path of a layer (default: the strongest maps of all layers)")


def run(arguments) -> int:
    from numbanet.cli.network import class_name, finish, open_network, output_path, read_input
    from numbanet.vision.composition import number
    from numbanet.vision.features import feature_sheet
    from numbanet.vision.layers import find_layer
    classifier, name = open_network(arguments)
    if arguments.layer is not None:
        find_layer(classifier.model, arguments.layer)           # told before the picture is read
    x, picture = read_input(classifier, arguments)
    probabilities = classifier.probabilities_of(x)
    best = int(probabilities.argmax())
    answer = f"{class_name(classifier, best)}, {100 * probabilities[best]:.1f}%"
    sheet, facts = feature_sheet(classifier.model, x, picture, arguments.layer, name, [f"The network answers: {answer}"])
    lines = []
    for layer in facts if isinstance(facts, list) else [facts]:
        shape = " x ".join(map(str, layer["shape"]))
        strongest = "  ".join(f"{m['index']} ({number(m['minimum'])} to {number(m['maximum'])})" if "maximum" in m
                              else f"{m['index']} ({number(m['value'])})" for m in (layer.get("maps") or layer["units"])[:3])
        lines += [f"{layer['layer']}  {layer['kind']}, {shape}", f"    {strongest}"]
    path = output_path(arguments, name, "features", arguments.layer or "")
    return finish(arguments, path, sheet, {"layers": facts if isinstance(facts, list) else [facts]}, lines)
