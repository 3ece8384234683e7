"""numbanet receptive-field"""

from __future__ import annotations

EXAMPLE = ("  numbanet receptive-field runs/lenet5-1 digit.png --layer features.c3\n"
           "  numbanet receptive-field resnet50.safetensors photo.jpg --layer layer3 \\\n      --unit 7,7")


def configure(parser) -> None:
    from numbanet.cli.network import configure_network
    configure_network(parser)
    parser.add_argument("--layer", metavar="L", required=True, help="path of a layer whose output is maps")
    parser.add_argument("--unit", metavar="Y,X", help="row and column in the map (default: the middle)")


def run(arguments) -> int:
    from numbanet.cli.network import finish, open_network, output_path, read_input
    from numbanet.vision.fields import field_sheet
    from numbanet.vision.layers import find_layer
    unit = _unit(arguments.unit)
    classifier, name = open_network(arguments)
    find_layer(classifier.model, arguments.layer)
    x, picture = read_input(classifier, arguments)
    sheet, facts = field_sheet(classifier.model, x, picture, arguments.layer, unit, name)
    path = output_path(arguments, name, "receptive-field", arguments.layer)
    return finish(arguments, path, sheet, facts, _report(facts))


def _unit(text: str | None) -> tuple[int, int] | None:
    from numbanet.errors import UsageError
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--unit: expected a row and a column such as 3,5, received {text!r}")
    return int(parts[0]), int(parts[1])


def _report(facts) -> list[str]:
    lines = []
    if facts["steps"]:
        lines.append(f"{'window':<28} {'taps':>4} {'stride':>6} {'dilation':>8} {'field':>6} {'jump':>5}")
        lines += [f"{s['layer'] or s['operation']:<28} {s['taps']:>4} {s['stride']:>6} {s['dilation']:>8} {s['field']:>6} {s['jump']:>5}"
                  for s in facts["steps"]]
    field = facts["field"]
    size = "the whole picture" if field is None else f"{field[0]} x {field[1]} pixels"
    lines += [f"unit {facts['unit'][0]},{facts['unit'][1]} of {facts['layer']} sees {size}",
              f"95% of its gradient lies on {facts['effective_pixels']} pixels, {100 * facts['effective_share']:.0f}% of them"]
    return lines
