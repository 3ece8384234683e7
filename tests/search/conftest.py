"""A small network, and folders of pictures for it."""

import os

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet import nn
from numbanet.search import Embedder
from numbanet.train.preprocessing import Preprocessing


def small_network(seed: int = 0) -> nn.Module:
    numbanet.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5))


PREPROCESSING = Preprocessing((3, 8, 8), (8, 8), (0.5,) * 3, (0.5,) * 3)


def small_embedder(seed: int = 0, **options) -> Embedder:
    return Embedder(small_network(seed), PREPROCESSING, batch_size=4, **options)


def picture(number: int, size=(12, 9)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8))


def write_pictures(folder, count: int, first: int = 0):
    """PNG files p000.png ... of noise, a third of them in a folder inside."""
    for i in range(first, first + count):
        place = folder / "inside" if i % 3 == 2 else folder
        place.mkdir(parents=True, exist_ok=True)
        picture(i).save(place / f"p{i:03}.png")
    return folder


@pytest.fixture
def embedder():
    return small_embedder()


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
