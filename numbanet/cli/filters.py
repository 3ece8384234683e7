"""numbanet filters"""

from __future__ import annotations

EXAMPLE = "  numbanet filters runs/lenet5-1\n  numbanet filters runs/lenet5-1 --layer features.c3 --out c3.png"


def configure(parser) -> None:
    from numbanet.cli.network import configure_network
    configure_network(parser, image=False)
    parser.add_argument("--layer", metavar="L", help="path of a convolution (default: the first)")


def run(arguments) -> int:
    from numbanet.cli.network import finish, open_network, output_path
    from numbanet.vision.filters import filter_sheet
    classifier, name = open_network(arguments)
    sheet, facts = filter_sheet(classifier.model, arguments.layer, name, classifier.preprocessing.channel_order == "bgr")
    K, C, R, S = facts["shape"]
    path = output_path(arguments, name, "filters", facts["layer"])
    channels = f"{C} channel{'s' * (C > 1)}"
    return finish(arguments, path, sheet, facts, [
        f"{facts['layer']}: {K} filters of {channels}, {R} x {S}, weights from {facts['minimum']:.3g} to {facts['maximum']:.3g}"])
