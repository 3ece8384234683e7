"""numbanet heatmap"""

from __future__ import annotations

EXAMPLE = ("  numbanet heatmap lite0.safetensors street.jpg --class taxi -o taxi.png\n"
           "  numbanet heatmap runs/lenet5-1 digits.png --class 3 --side 64")
LARGEST = 4096          # longer side of a scaled picture
TIMES = 2               # a window's size: the shorter side of pictures, where --side does not say it


def configure(parser) -> None:
    from numbanet.cli.network import configure_network
    configure_network(parser)
    parser.add_argument("--class", dest="category", metavar="C", help="number or name of a class (default: the surest of any window)")
    parser.add_argument("--side", type=int, metavar="N", help="shorter side that the picture is scaled to, in pixels (default: twice the "
                                                              "network's input); smaller objects need more")


def run(arguments) -> int:
    import numpy as np

    import numbanet
    from numbanet.cli.network import class_name, class_number, finish, open_network, output_path
    from numbanet.cli.pictures import source_of
    from numbanet.errors import CheckpointError, UsageError
    from numbanet.train.prediction import OF_SEGMENTERS
    from numbanet.vision.heatmaps import heatmap_sheet, sliding_windows
    from numbanet.zoo.fully_convolutional import fully_convolutional
    if arguments.side is not None and arguments.side < 1:
        raise UsageError(f"--side: expected at least 1 pixel, received {arguments.side}")
    classifier, name = open_network(arguments)
    if classifier.labels_pixels():
        raise CheckpointError(OF_SEGMENTERS)
    preprocessing = classifier.preprocessing
    model = fully_convolutional(classifier.model, preprocessing.input_size[1:])
    picture = _scaled(source_of(arguments.image), preprocessing, arguments, model.windows.size)
    pixels, shown = preprocessing.of_any_size(picture)
    scores = sliding_windows(model, numbanet.tensor(pixels[None], device=classifier.device))
    count = len(scores.probabilities)
    chosen = class_number(classifier, arguments.category, count)
    category = int(scores.probabilities.max((1, 2)).argmax()) if chosen is None else chosen
    best = scores.best(category)
    label = class_name(classifier, category)
    scale = [n / m for n, m in zip(picture.original, shown.shape[1::-1])]
    found = [{"box": [round(edge * scale[i % 2], 1) for i, edge in enumerate(box)], "probability": probability}
             for box, probability in best]
    height, width = scores.probabilities.shape[1:]
    lines = [f"{label}: at most {100 * best[0][1]:.1f}%, on {height} x {width} windows of {scores.size[1]} x {scores.size[0]} pixels, "
             f"{scores.stride} apart, of the picture scaled to {shown.shape[1]} x {shown.shape[0]}."]
    sheet = heatmap_sheet(scores, category, shown, label, f"{name}: where is {label}?", lines)
    facts = {"class": label, "number": category, "size": [shown.shape[0], shown.shape[1]], "window": list(scores.size),
             "stride": scores.stride, "found": found, "map": np.round(scores.probabilities[category], 6).tolist()}
    told = [f"{label}, {height} x {width} windows"]
    told += [f"  {100 * one['probability']:5.1f}%  at {','.join(f'{edge:.0f}' for edge in one['box'])}" for one in found]
    return finish(arguments, output_path(arguments, name, "heatmap", label if chosen is not None else ""), sheet, facts, told)


def _scaled(source, preprocessing, arguments, window):
    """The picture at the size that is asked for, which has to hold a window; `original` is its own size."""
    from PIL import Image, ImageOps, ImageStat

    from numbanet.data import load_image
    from numbanet.errors import UsageError
    picture = load_image(source, preprocessing.mode)
    original = picture.size
    if preprocessing.digits and not arguments.raw and ImageStat.Stat(picture).mean[0] > 127:
        picture = ImageOps.invert(picture)          # ink is white on black, as in MNIST
    side = arguments.side or TIMES * max(window)
    factor = side / min(original)
    size = [max(1, round(n * factor)) for n in original]
    if size[1] < window[0] or size[0] < window[1]:
        raise UsageError(f"--side: expected at least {max(window)}, so that a window of {window[1]} x {window[0]} finds room, "
                         f"received {side}")
    if max(size) > LARGEST:
        raise UsageError(f"--side: a picture of {original[0]} x {original[1]} would become {size[0]} x {size[1]}; expected at most "
                         f"{LARGEST} pixels on the longer side")
    picture = picture.resize(size, Image.Resampling[preprocessing.interpolation.upper()])
    picture.original = original
    return picture
