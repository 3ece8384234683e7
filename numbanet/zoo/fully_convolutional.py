"""A classifier as a fully convolutional network: full connections become convolutions, and larger pictures give maps of logits.

Sermanet et al.: OverFeat, ICLR 2014, arXiv:1312.6229, section 3.5; Long et al. 2015, section 3.1. What a full connection reads of C maps of
h x w is a convolution with kernels of C x h x w; what a global pooling averages at the original size becomes a window of that size, at
stride 1. Each position of the maps is the classifier on one window of the picture: exactly so where the trunk pads nothing, and up
to what the padding adds at a window's edges otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import numbanet
from numbanet import nn
from numbanet.autograd.grad_mode import no_grad
from numbanet.errors import ShapeError, UnsupportedOperationError, UsageError
from numbanet.nn import init

ELEMENTWISE = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU, nn.ELU, nn.SELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh,
               nn.Dropout, nn.Identity)
TOLERANCE = 1e-3        # of the largest logit: what sums in another order may differ by


class Windows(NamedTuple):
    """Where the classifier looks: position (i, j) of the maps sees rows `stride` i to `stride` i + `size[0]`, and so on."""

    size: tuple[int, int]
    stride: int


class FullyConvolutional(nn.Module):
    """(N, C, H, W) to logits (N, num_classes, OH, OW), of which (1, 1) at the classifier's own size; made by :func:`fully_convolutional`.

    Attributes
    ----------
    windows : Windows
    num_classes, in_chans : int
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, windows: Windows, num_classes: int, in_chans: int):
        super().__init__()
        self.trunk, self.head, self.windows = trunk, head, windows
        self.num_classes, self.in_chans = num_classes, in_chans

    def forward(self, x):
        if x.ndim != 4 or any(have < least for have, least in zip(x.shape[2:], self.windows.size)):
            height, width = self.windows.size
            raise ShapeError(f"FullyConvolutional: x expects (N, {self.in_chans}, H, W) of at least {height} x {width}, received "
                             f"{tuple(x.shape)}; enlarge the pictures")
        return self.head(self.trunk(x))


class Trunk(nn.Module):
    """A network up to its last maps; it shares its layers with the network."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network.forward_features(x)


class AtEachPosition(nn.Module):
    """A layer of features (N, C) at each position of maps (N, C, H, W)."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        batch, channels, height, width = x.shape
        rows = self.layer(x.permute(0, 2, 3, 1).reshape(batch * height * width, channels))
        return rows.reshape(batch, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def fully_convolutional(model: nn.Module, input_size=None) -> FullyConvolutional:
    """A classifier of the zoo as a fully convolutional network.

    Its trunk is shared with the model, so that both are in one mode; the convolutions of the head have copies of the weights.

    Parameters
    ----------
    model : Module
        With ``forward_features``, ``forward_head`` and the head's layers in the module that ``classifier_path`` begins with.
    input_size : (H, W), optional
        Of the pictures that one window is; by default what the model was registered with.

    Raises
    ------
    UsageError
        The model labels pixels already, is no classifier of this form, or its size is not known.
    UnsupportedOperationError
        Its head has layers that no convolution can do, or does something else than they say.
    """
    name = type(model).__name__
    size = input_size if input_size is not None else getattr(model, "input_size", None)
    if not hasattr(model, "forward_features") or not hasattr(model, "forward_head"):
        raise UsageError(f"to_fully_convolutional: expected a classifier with forward_features and forward_head, received {name}")
    if size is None:
        raise UsageError(f"to_fully_convolutional: {name} was not made by create_model, so its size is not known; pass input_size=(H, W)")
    size = (int(size), int(size)) if isinstance(size, int) else tuple(int(n) for n in tuple(size)[-2:])
    trunk = model.features if hasattr(model, "flat_maps") else Trunk(model)         # LeNet-5 refuses other sizes than its own
    place = next(iter(model.parameters()))
    mode = model.training
    model.eval()
    try:
        with no_grad():
            features = numbanet.trace(trunk, numbanet.empty(1, model.in_chans, *size, dtype=place.dtype, device=place.device)).outputs[0]
            if len(features.shape) != 4:
                raise UsageError(f"to_fully_convolutional: {name}'s trunk expects to give maps (N, C, H, W), received {features.shape}")
            _, channels, height, width = features.shape
            head = nn.Sequential(*_head(model, channels, (height, width))).to(device=place.device, dtype=place.dtype).eval()
            _check(model, head, (1, channels, height, width), place)
    finally:
        model.train(mode)
    stages = getattr(model, "stages", ())
    stride = stages[-1].reduction if stages else max(1, round(size[0] / height))
    if hasattr(model, "map_stride"):
        stride = model.map_stride
    return FullyConvolutional(trunk, head, Windows(size, stride), model.num_classes, model.in_chans).train(mode)


def _head(model, channels: int, maps: tuple[int, int]) -> list[nn.Module]:
    """The layers after the trunk, for maps."""
    path = getattr(model, "classifier_path", "classifier").partition(".")[0]
    root = model.get_submodule(path)
    layers = list(root.children()) if isinstance(root, nn.Sequential) else [root]
    pool = getattr(model, "avgpool", None)
    pooled = pool.output_size if isinstance(pool, nn.AdaptiveAvgPool2d) else 1
    pooled = (pooled, pooled) if isinstance(pooled, int) else tuple(pooled)
    made: list[nn.Module] = []
    if hasattr(model, "flat_maps"):         # LeNet-5's: no pooling before the full connections
        pooled = maps
    elif any(isinstance(layer, nn.AdaptiveAvgPool2d) for layer in layers):
        pooled = maps                       # SqueezeNet's, after its last convolution
    waiting = pooled != (1, 1) or maps == (1, 1)            # for the first full connection, which reads whole windows
    if not waiting:
        made.append(nn.AvgPool2d(maps, 1))
        pooled = maps = (1, 1)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            made.append(_convolution(layer, channels, pooled, maps))
            channels, pooled, maps = layer.out_features, (1, 1), (1, 1)
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            made.append(nn.AvgPool2d(maps, 1))
            pooled = maps = (1, 1)
        elif isinstance(layer, nn.Conv2d):
            made.append(layer)
            channels = layer.out_channels
        elif isinstance(layer, nn.Flatten):
            continue
        elif isinstance(layer, (*ELEMENTWISE, nn.BatchNorm2d)) or getattr(layer, "works_on_maps", False):
            made.append(layer)
        elif maps == (1, 1):
            made.append(layer if _takes_maps(layer, channels) else AtEachPosition(layer))
        else:
            raise UnsupportedOperationError(f"to_fully_convolutional: {type(model).__name__}'s head has {type(layer).__name__} before its "
                                            "first full connection, which no convolution does; convert the trunk with "
                                            "features_only=True, and add convolutions")
    return made


def _takes_maps(layer, channels: int) -> bool:
    """Whether a layer gives maps for maps: a normalisation over channels."""
    try:
        return layer(numbanet.zeros(1, channels, 2, 3)).shape == (1, channels, 2, 3)
    except Exception:       # whatever a layer of features says of maps
        return False


def _convolution(layer: nn.Linear, channels: int, pooled: tuple[int, int], maps: tuple[int, int]) -> nn.Conv2d:
    """A full connection over channels x `pooled`, to which maps are averaged, as a convolution with kernels of the maps' size."""
    if layer.in_features != channels * pooled[0] * pooled[1]:
        raise UnsupportedOperationError(f"to_fully_convolutional: a full connection of {layer.in_features} inputs does not read maps of "
                                        f"{channels} x {pooled[0]} x {pooled[1]}")
    weight = layer.weight.detach().numpy().reshape(layer.out_features, channels, *pooled)
    if pooled != maps:      # averaging is linear: it goes into the kernels
        rows, columns = (_averages(n, k) for n, k in zip(maps, pooled))
        weight = np.einsum("kcij,ih,jw->kchw", weight, rows, columns, optimize=True).astype(weight.dtype)
    with init.skip():
        made = nn.Conv2d(channels, layer.out_features, maps, bias=layer.bias is not None)
    state = {"weight": numbanet.tensor(np.ascontiguousarray(weight))}
    if layer.bias is not None:
        state["bias"] = layer.bias.detach().clone()
    made.load_state_dict(state, assign=True)
    return made


def _averages(n: int, k: int) -> np.ndarray:
    """(k, n): what adaptive average pooling of n elements to k does."""
    made = np.zeros((k, n))
    for i in range(k):
        first, last = i * n // k, -(-(i + 1) * n // k)
        made[i, first:last] = 1 / (last - first)
    return made


def _check(model, head, shape, place) -> None:
    """The two heads on the same maps: what a network of another package does in its head, its layers need not say."""
    maps = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x = numbanet.tensor(maps, dtype=place.dtype, device=place.device)
    expected, received = model.forward_head(x), head(x)
    if tuple(received.shape) != (*expected.shape, 1, 1) or not np.allclose(
            received.numpy().reshape(expected.shape), expected.numpy(), rtol=0, atol=TOLERANCE * (1 + np.abs(expected.numpy()).max())):
        raise UnsupportedOperationError(f"to_fully_convolutional: the head of {type(model).__name__} does something else than its layers "
                                        "say; convert the trunk with features_only=True, and add convolutions")
