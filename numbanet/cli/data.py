"""numbanet data: pack, show, scenes"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path

EXAMPLE = ("  numbanet data show photos/\n  numbanet data pack photos/ --size 256\n"
           "  numbanet data scenes scenes/ --train 5000 --test 1000\n  numbanet train resnet20_cifar --data scenes/")
ACTIONS = {
    "show": "a contact sheet of images and their classes, as PNG",
    "pack": "decode and scale all images once, into memory-mapped arrays",
    "scenes": "make up pictures of shapes on clutter, ready for training",
}
EXAMPLES = {
    "show": "  numbanet data show photos/ --out sheet.png",
    "pack": "  numbanet data pack photos/ --size 256\n  numbanet train resnet18 --data photos-packed",
    "scenes": ("  numbanet data scenes scenes/ --size 32 --train 5000 --test 1000\n"
               "  numbanet data scenes coco/ --coco digits --train 2000 --test 200"),
}


def configure(parser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    made = {name: actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False,
                                     epilog=f"example:\n{EXAMPLES[name]}", formatter_class=argparse.RawDescriptionHelpFormatter)
            for name, text in ACTIONS.items()}
    data = ("IDX, CIFAR, packed or CSV files, or class folders, as for 'numbanet train'")
    show = made["show"]
    show.add_argument("data", metavar="DIR", help=data)
    show.add_argument("--out", metavar="FILE", default="sheet.png", help="the picture (default: sheet.png)")
    show.add_argument("--columns", type=int, default=10, help="images in a row, one row a class (default 10)")
    show.add_argument("--seed", type=int, default=0, help="which images are shown (default 0)")
    pack = made["pack"]
    pack.add_argument("data", metavar="DIR", help="class folders, also in train/ and val/, or a folder with CSV lists, or a CSV file")
    pack.add_argument("--out", metavar="DIR", help="the folder to write (default: DIR-packed)")
    pack.add_argument("--size", type=int, help="height and width of the packed images (default: 256, or that of the images "
                                               "where all have the same and a smaller one)")
    pack.add_argument("--fit", choices=("crop", "stretch", "pad"), default="crop", help="what becomes of other proportions (default: crop)")
    pack.add_argument("--val-fraction", type=float, default=0.2, help="share held out where there are no val or test images; 0 for none "
                                                                      "(default 0.2)")
    pack.add_argument("--on-error", choices=("raise", "skip"), default="raise",
                      help="what to do with broken images (default: raise); those that are skipped are listed")
    pack.add_argument("--workers", type=int, help="threads that decode (default: all cores)")
    pack.add_argument("--overwrite", action="store_true", help="replace packed images that stand there")
    scenes = made["scenes"]
    scenes.add_argument("out", metavar="DIR", help="the folder to write")
    scenes.add_argument("--train", type=int, default=5000, help="training images (default 5000)")
    scenes.add_argument("--test", type=int, default=1000, help="test images (default 1000)")
    scenes.add_argument("--size", type=int, help="height and width (default 32, with --coco 128)")
    scenes.add_argument("--coco", choices=("digits", "shapes"), help="for detectors: PNGs and COCO's annotations of all objects, on scenes "
                                                                     "of MNIST's digits or of shapes")
    scenes.add_argument("--digits", metavar="DIR", help="with --coco digits: MNIST's files (default: the sample of the package)")
    scenes.add_argument("--classes", metavar="A,B,...", help="some of circle, square, triangle, star, ring, cross, crescent, heart "
                                                             "(default: all)")
    scenes.add_argument("--seed", type=int, default=0, help="of everything on the pictures (default 0)")
    scenes.add_argument("--overwrite", action="store_true", help="replace packed images that stand there")


def run(arguments) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    return {"pack": _pack, "show": _show, "scenes": _scenes}[arguments.action](arguments)


def _pack(arguments) -> int:
    from numbanet.data.datasets import image_splits
    from numbanet.data.datasets.folder_layout import hold_out
    from numbanet.data.packing import pack
    from numbanet.errors import UsageError
    if arguments.workers is not None and arguments.workers < 1:
        raise UsageError(f"--workers: expected at least 1, received {arguments.workers}")
    if not 0 <= arguments.val_fraction < 1:
        raise UsageError(f"--val-fraction: expected a number from 0 to below 1, received {arguments.val_fraction}")
    if arguments.size is not None and arguments.size < 1:
        raise UsageError(f"--size: expected at least 1, received {arguments.size}")
    source = Path(arguments.data)
    out = Path(arguments.out or f"{source.absolute().with_suffix('') if source.is_file() else source.absolute()}-packed")
    if out.exists() and not arguments.overwrite:        # before an hour of looking at images
        raise UsageError(f"{out}: exists already; choose another folder with --out, or give --overwrite")
    splits, layout = image_splits(source)
    if set(splits) == {"train"} and arguments.val_fraction:
        splits = dict(zip(("train", "val"), hold_out(splits["train"], arguments.val_fraction)))
        layout += f", {arguments.val_fraction:.0%} of each class held out"
    counts = ", ".join(f"{len(images):,} {name}" for name, images in splits.items())
    print(f"{source} ({layout}): {counts} images, {len(splits['train'].classes)} classes")
    done = pack(splits, out, arguments.size, fit=arguments.fit, on_error=arguments.on_error, num_workers=arguments.workers, watch=_watch,
                overwrite=arguments.overwrite)
    if done.skipped:
        print(f"skipped {len(done.skipped)} images:", file=sys.stderr)
        for problem in done.skipped:
            print(f"  {problem}", file=sys.stderr)
    _tell(done, sum(f.stat().st_size for f in done.path.iterdir()))
    return 0


def _scenes(arguments) -> int:
    from numbanet.data.datasets import SyntheticScenes
    from numbanet.data.datasets.shapes import SHAPES
    from numbanet.data.packing import write_packed
    from numbanet.errors import UsageError
    for name in ("train", "test"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name}: expected at least 1, received {getattr(arguments, name)}")
    if arguments.digits is not None and arguments.coco != "digits":
        raise UsageError("--digits: belongs to --coco digits; leave it out")
    if arguments.coco is not None:
        return _coco(arguments)
    arguments.size = 32 if arguments.size is None else arguments.size
    classes = tuple(SHAPES) if arguments.classes is None else tuple(c.strip() for c in arguments.classes.split(","))
    splits = {name: SyntheticScenes(getattr(arguments, name), arguments.size, name == "train", seed=arguments.seed, classes=classes)
              for name in ("train", "test")}

    def drawn():
        for name, scenes in splits.items():
            for i in range(len(scenes)):
                scene = scenes.scene(i)
                yield name, f"scene {i} of seed {arguments.seed}", scene.image, scene.label

    counts = {name: len(scenes) for name, scenes in splits.items()}
    done = write_packed(arguments.out, _watch(drawn(), total=sum(counts.values()), title="drawing"), counts,
                        (arguments.size, arguments.size, 3), classes, overwrite=arguments.overwrite)
    _tell(done, sum(f.stat().st_size for f in done.path.iterdir()), "resnet20_cifar")
    return 0


def _coco(arguments) -> int:
    from numbanet.data.datasets import DigitScenes, SyntheticScenes
    from numbanet.detection import write_coco
    from numbanet.errors import UsageError
    out = Path(arguments.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not arguments.overwrite:
        raise UsageError(f"{out}: exists already; choose another folder, or give --overwrite")
    options = {"size": 128 if arguments.size is None else arguments.size, "seed": arguments.seed, "target": "detection"}
    if arguments.coco == "shapes":
        kind = SyntheticScenes
        options |= {} if arguments.classes is None else {"classes": tuple(c.strip() for c in arguments.classes.split(","))}
    elif arguments.classes is not None:
        raise UsageError("--classes: are those of shapes; leave it out")
    else:
        kind = DigitScenes
        options["root"] = arguments.digits
    splits = {name: kind(count, train=name == "train", **options) for name, count in (("train", arguments.train), ("val", arguments.test))}
    for name, scenes in splits.items():
        write_coco(out, name, _watch((scenes[i] for i in range(len(scenes))), len(scenes), "drawing"), scenes.classes)
    print(f"wrote {out}: {arguments.train:,} training and {arguments.test:,} test pictures, train.json, val.json\ntrain with it:\n"
          f"  numbanet train detector --data {shlex.quote(str(out))}")
    return 0


def _show(arguments) -> int:
    from numbanet.data.datasets import open_image_data
    from numbanet.errors import UsageError
    from numbanet.vision.sheet import draw_sheet
    if arguments.columns < 1:
        raise UsageError(f"--columns: expected at least 1, received {arguments.columns}")
    data = open_image_data(arguments.data)
    kind = "grey" if data.channels == 1 else "colour"
    print(f"{arguments.data} ({data.layout}): {len(data.train):,} training and {len(data.test):,} test images,\n"
          f"  {len(data.classes)} classes, most are {'x'.join(map(str, data.image_size))} {kind}")
    shown = draw_sheet(arguments.out, data.train, data.classes, arguments.columns, arguments.seed)
    part = f", the first {shown} classes" if shown < len(data.classes) else ""
    print(f"wrote {arguments.out}: {arguments.columns} training images a class{part}")
    return 0


def _tell(done, size: int, model: str = "resnet18") -> None:
    counts = ", ".join(f"{count:,} {name}" for name, count in done.counts.items())
    print(f"wrote {done.path}: {counts} images of {'x'.join(map(str, done.shape))}, {size / 1e6:,.1f} MB\ntrain with it:\n"
          f"  numbanet train {model} --data {shlex.quote(str(done.path))}")


def _watch(iterator, total: int, title: str = "packing"):
    """Show how many pictures are done."""
    from tqdm import tqdm
    return tqdm(iterator, title, total, leave=False, disable=None, dynamic_ncols=True, unit="image")
