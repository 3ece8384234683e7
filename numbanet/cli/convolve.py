"""numbanet convolve"""

from __future__ import annotations

import textwrap

EXAMPLE = ("  numbanet convolve photo.jpg --filter sobel\n  numbanet convolve photo.jpg --filter \"1 0 -1; 0 0 0; -1 0 1\" --grey\n"
           "  numbanet convolve --list")


def configure(parser) -> None:
    from numbanet.cli.network import configure_output
    parser.add_argument("image", metavar="IMAGE", nargs="?", help="an image file, or - for standard input")
    parser.add_argument("--filter", metavar="NAME|ROWS", help="a name from --list, or a matrix such as \"1 0 -1; 0 0 0; -1 0 1\"")
    parser.add_argument("--list", action="store_true", help="the filters that have names")
    parser.add_argument("--grey", action="store_true", help="of the picture's brightness (default: of each of its colours)")
    parser.add_argument("--stride", type=int, default=1, help="pixels from window to window (default 1)")
    parser.add_argument("--padding", type=int, metavar="P", help="zeros around the picture (default: as many as keep its size)")
    parser.add_argument("--dilation", type=int, default=1, help="pixels from tap to tap (default 1)")
    parser.add_argument("--size", type=int, default=384, help="longer side in pixels that larger pictures are scaled to (default 384)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or reference")
    configure_output(parser)


def run(arguments) -> int:
    from numbanet.cli.network import check_output, finish, output_path
    from numbanet.errors import UsageError
    from numbanet.vision.classical import FILTERS, convolution_sheet, parse_filter
    if arguments.list:
        for known in FILTERS.values():
            print(f"{known.name:<10} {_matrix(known.array)}")
            print(textwrap.fill(known.note, 80, initial_indent=" " * 11, subsequent_indent=" " * 11))
        return 0
    if arguments.image is None or arguments.filter is None:
        raise UsageError("expected an image and a filter: numbanet convolve IMAGE --filter sobel")
    for name, least in (("stride", 1), ("padding", 0), ("dilation", 1), ("size", 16)):
        value = getattr(arguments, name)
        if value is not None and not least <= value <= 2048:
            raise UsageError(f"--{name}: expected {least} to 2048, received {value}")
    check_output(arguments)
    chosen = parse_filter(arguments.filter)
    pixels, name = _picture(arguments)
    sheet, facts = convolution_sheet(pixels, chosen, arguments.stride, "same" if arguments.padding is None else arguments.padding,
                                     arguments.dilation, arguments.device, name)
    path = output_path(arguments, name, chosen.name)
    return finish(arguments, path, sheet, facts, [f"{chosen.name}  {_matrix(chosen.array)}", *(
        f"  {r['mode']:<12} {' x '.join(map(str, r['shape'][1:]))}, {r['minimum']:.4g} to {r['maximum']:.4g}" for r in facts["results"])])


def _picture(arguments):
    """(uint8 pixels, the picture's name)"""
    import sys
    from pathlib import Path

    import numpy as np
    from PIL import Image

    from numbanet.data.images import load_image
    source, name = arguments.image, Path(arguments.image).stem
    if source == "-":
        import io
        source, name = io.BytesIO(sys.stdin.buffer.read()), "picture"
        source.name = "standard input"
    picture = load_image(source, "L" if arguments.grey else "RGB")
    scale = arguments.size / max(picture.size)
    if scale < 1:
        picture = picture.resize([max(1, round(n * scale)) for n in picture.size], Image.Resampling.BILINEAR, reducing_gap=3)
    pixels = np.array(picture)
    if pixels.ndim == 3 and (pixels[..., :1] == pixels).all():
        pixels = pixels[..., 0]
    return pixels, name


def _matrix(kernel) -> str:
    """Of whole numbers where the kernel is such a matrix divided by 9 or 16."""
    for divisor in (1, 9, 16):
        if abs(kernel * divisor - (kernel * divisor).round()).max() < 1e-9:
            rows = "; ".join(" ".join(f"{v:.0f}" for v in row) for row in kernel * divisor + 0.0)
            return rows if divisor == 1 else f"1/{divisor} [{rows}]"
    return "; ".join(" ".join(f"{v:g}" for v in row) for row in kernel)
