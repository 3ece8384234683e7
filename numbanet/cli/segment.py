"""numbanet segment"""

from __future__ import annotations

from pathlib import Path

EXAMPLE = ("  numbanet segment runs/segmenter-1 photo.png -o overlay.png\n"
           "  numbanet segment runs/segmenter-1 photo.png --mask labels.png --json\n  numbanet segment net.onnx photo.png")
WIDTH = 80


def configure(parser) -> None:
    from numbanet.cli.network import configure_output
    parser.add_argument("network", metavar="MODEL", help="a run folder, weights (.safetensors, .npz, .pt, .pth), or a .onnx file")
    parser.add_argument("image", metavar="IMAGE", help="an image file, or - for standard input")
    parser.add_argument("--mask", metavar="FILE", help="also write the number of each pixel's class, as a grey PNG")
    parser.add_argument("--model", metavar="NAME", help="the network, where the weights do not say it (see 'numbanet models')")
    parser.add_argument("--metadata", metavar="FILE", help="JSON with the 'classes' and 'preprocessing' that the weights lack")
    parser.add_argument("--device", default="cpu", help="cpu (default) or reference")
    configure_output(parser)


def run(arguments) -> int:
    import numpy as np

    from numbanet.backends import get_backend
    from numbanet.cli.network import check_output, finish, open_classifier, output_path
    from numbanet.cli.pictures import source_of
    from numbanet.errors import CheckpointError, UsageError
    from numbanet.segmentation import Segmenter
    from numbanet.segmentation.drawing import segmentation_sheet
    from numbanet.vision.draw import save_image
    check_output(arguments)
    if arguments.mask is not None and Path(arguments.mask).suffix.lower() != ".png":
        raise UsageError(f"--mask: expected a name that ends in .png, received {arguments.mask}")
    get_backend(arguments.device)
    try:
        segmenter = Segmenter(open_classifier(arguments.network, arguments))
    except CheckpointError as error:
        raise CheckpointError(f"{arguments.network}: {error}" if arguments.network not in str(error) else str(error)) from error
    found = segmenter(source_of(arguments.image))
    counts = np.bincount(found.labels.reshape(-1), minlength=len(segmenter.classes))
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    classes = [{"class": segmenter.classes[i], "number": i, "pixels": int(counts[i]), "share": float(counts[i] / counts.sum()),
                "box": _box(found.labels == i), "confidence": float(found.confidence[found.labels == i].mean(dtype=np.float64))}
               for i in order]
    name = Path(arguments.network).stem
    lines = [f"{len(order)} classes; each pixel has the colour of the class that the network gives it."]
    sheet = segmentation_sheet(found.picture, found.labels, segmenter.classes, f"{name}: {Path(arguments.image).name}", lines)
    if arguments.mask is not None:
        save_image(arguments.mask, found.labels)
    width = max(5, *(len(row["class"]) for row in classes))
    told = [f"{'class':<{width}}  pixels   share  confidence"]
    told += [f"{row['class']:<{width}}  {row['pixels']:>6}  {100 * row['share']:>5.1f}%  {100 * row['confidence']:>9.1f}%"
             for row in classes]
    told = [line[:WIDTH] for line in told] + ([f"wrote {arguments.mask}"] if arguments.mask is not None else [])
    height, across = found.labels.shape
    facts = {"size": [height, across], "mask": arguments.mask, "classes": classes}
    return finish(arguments, output_path(arguments, name, "segment", Path(arguments.image).stem), sheet, facts, told)


def _box(mask) -> list[int]:
    """Left, top, right and bottom of the pixels, the last two exclusive."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
