"""Models with values, and inputs that are hardly larger than the least they take."""

from __future__ import annotations

import math

import numpy as np

from numbanet import nn, zoo
from numbanet.nn import init
from numbanet.zoo.network import Network

LARGE = 25_000_000      # parameters from which drawing all of them would take most of the time


def filled_model(name: str) -> nn.Module:
    """A model of the zoo; a large one with values in the place of initial ones."""
    if zoo.model_info(name).parameters < LARGE:
        return zoo.create_model(name)
    with init.skip():
        model = zoo.create_model(name)
    fill(model)
    return model


def fill(model) -> None:
    """A short random sequence again and again, of variance 2 / fan_in."""
    sequence = np.random.default_rng(1).standard_normal(99_991, dtype=np.float32)
    values = {}
    for name, value in model.state_dict().items():
        if value.ndim > 1:
            values[name] = np.resize(sequence, value.shape) * np.float32(math.sqrt(2 / math.prod(value.shape[1:])))
        else:
            values[name] = np.full(value.shape, name.endswith((".weight", "running_var")), value.dtype)
    model.load_state_dict(values, assign=True)


def small_size(model: nn.Module, info, training: bool = False) -> tuple[int, int]:
    """Odd, not square, and hardly more than the least that the network takes."""
    if not isinstance(model, Network):
        return info.input_size[1:]
    model.train(training)
    least = max(model.minimum_size, 32)
    return least | 1, (least + 4) | 1
