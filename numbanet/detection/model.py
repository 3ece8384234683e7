"""A single-stage detector without anchors on the trunk of any classifier.

Tian, Shen, Chen and He (2019), FCOS: Fully Convolutional One-Stage Object Detection, arXiv:1904.01355: each position of some maps says of
what class the object around it is, and how far the object's edges are. Maps of several resolutions come from a feature pyramid (Lin et
al. 2017, arXiv:1612.03144); one head serves them all. Instead of the distance from an object's middle, the head also says how well its
box will fit (section 4 of Wu et al. 2020, IoU-aware single-stage object detector, arXiv:1912.05992).

Other than in the paper, layers are normalised over the batch, with statistics of each level of its own, and not over groups of
channels: in inference such layers vanish in the convolutions before them.
"""

from __future__ import annotations

import math

import numbanet
from numbanet import nn
from numbanet.errors import ShapeError, UsageError
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.ops.rearrange import cat
from numbanet.zoo import create_model
from numbanet.zoo.network import FeatureExtractor, Network

STRIDES = (8, 16, 32)
PRIOR = 0.01                # probability of each class everywhere, at the beginning (Lin et al. 2017, arXiv:1708.02002, section 3.3)
LARGEST = math.log(64.0)    # of a distance, in units of what a level is for: exp of more is of no use


class FeaturePyramid(nn.Module):
    """Maps of one width at each stride: a trunk's, with those of coarser ones added; the coarsest beyond the trunk by strided convolutions.

    Parameters
    ----------
    channels_in : sequence of int
        Of the trunk's maps, from fine to coarse, each of half the resolution of the one before.
    channels : int
    further : int
        Levels beyond the trunk's.
    """

    def __init__(self, channels_in, channels: int, further: int = 0):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(n, channels, 1) for n in channels_in)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in channels_in)
        self.further = nn.ModuleList(nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(further))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                init.kaiming_uniform_(layer.weight, a=1)
                init.zeros_(layer.bias)

    def forward(self, maps):
        """Maps (N, C_i, H_i, W_i) to maps (N, channels, H_i, W_i), and those of the further levels."""
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps)]
        for i in range(len(merged) - 2, -1, -1):
            merged[i] = merged[i] + F.interpolate(merged[i + 1], tuple(merged[i].shape[2:]), mode="nearest")
        made = [smooth(x) for smooth, x in zip(self.smooth, merged)]
        for i, layer in enumerate(self.further):
            made.append(layer(F.relu(made[-1]) if i else made[-1]))
        return made


class SharedConvolution(nn.Module):
    """A 3x3 convolution of the maps of all levels, normalised by each level's own statistics, and ReLU."""

    def __init__(self, channels: int, levels: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(levels))
        init.kaiming_normal_(self.convolution.weight, mode="fan_out")

    def forward(self, maps):
        return [F.relu(norm(self.convolution(x))) for norm, x in zip(self.norms, maps)]


class Head(nn.Module):
    """Maps (N, channels, H, W) of each level to (N, H * W, num_classes + 5): logits of the classes, logarithms of the distances to the left,
    upper, right and lower edge in units of the level, and the logit of how well the box fits."""

    def __init__(self, channels: int, num_classes: int, levels: int, convolutions: int):
        super().__init__()
        self.classes = nn.Sequential(*(SharedConvolution(channels, levels) for _ in range(convolutions)))
        self.boxes = nn.Sequential(*(SharedConvolution(channels, levels) for _ in range(convolutions)))
        self.logits = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.edges = nn.Conv2d(channels, 5, 3, padding=1)
        for layer in (self.logits, self.edges):
            init.normal_(layer.weight, 0.0, 0.01)
            init.zeros_(layer.bias)
        init.constant_(self.logits.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, maps):
        return [cat([_rows(self.logits(a)), _rows(self.edges(b))], 2) for a, b in zip(self.classes(maps), self.boxes(maps))]


def _rows(x):
    """(N, K, H, W) to (N, H * W, K)."""
    n, k, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n, h * w, k)


class Detector(nn.Module):
    """A detector: pictures (N, C, H, W) to (N, P, num_classes + 5), of all P positions of its levels, from fine to coarse.

    Of each position: logits of the classes; left, top, right and bottom of its box in pixels of the input; the logit of how well the box
    fits. :meth:`decode` makes scores of them.

    Parameters
    ----------
    trunk : Network
        It becomes part of the detector, without its head.
    num_classes : int
    strides : tuple of int
        Input pixels from position to position of each level, each twice the one before. Those that are reductions of the trunk's stages
        are read there, larger ones are made by further convolutions.
    channels : int
        Of the pyramid and the head.
    convolutions : int
        Of the head, before the classes and before the boxes.

    Raises
    ------
    UsageError
        Strides that the trunk does not have, or a number out of its range.
    """

    def __init__(self, trunk: Network, num_classes: int, *, strides=STRIDES, channels: int = 64, convolutions: int = 2):
        super().__init__()
        strides = tuple(strides)
        for name, value, least in (("num_classes", num_classes, 1), ("channels", channels, 1), ("convolutions", convolutions, 0)):
            if not isinstance(value, int) or value < least:
                raise UsageError(f"Detector: {name} expects an integer of at least {least}, received {value!r}")
        reductions = [stage.reduction for stage in trunk.stages]
        own = [reductions.index(stride) for stride in strides if stride in reductions]
        if not own or any(b != 2 * a for a, b in zip(strides, strides[1:])) or strides[0] not in reductions:
            raise UsageError(f"Detector: strides expects numbers that double, from one of {reductions}, the reductions of "
                             f"{type(trunk).__name__}'s stages; received {strides}")
        self.num_classes, self.in_chans, self.strides = num_classes, trunk.in_chans, strides
        self.trunk = FeatureExtractor(trunk, own)
        self.pyramid = FeaturePyramid([stage.channels for stage in self.trunk.stages], channels, len(strides) - len(own))
        self.head = Head(channels, num_classes, len(strides), convolutions)
        self._leave_out_unused(trunk)

    def _leave_out_unused(self, trunk: Network) -> None:
        """Layers behind the last stage that is read would have parameters that nothing trains."""
        used, handles = set(), []
        for layer in trunk.modules():
            handles.append(layer.register_forward_hook(lambda module, _inputs, _output: used.add(id(module))))
        side = max(trunk.minimum_size, 2 * self.strides[-1])
        mode = trunk.training
        try:
            numbanet.trace(self.trunk.eval(), numbanet.zeros(1, trunk.in_chans, side, side))
        finally:
            self.trunk.train(mode)
            for handle in handles:
                handle.remove()
        for path, layer in list(trunk.named_modules()):
            if not any(True for _ in layer.children()) and id(layer) not in used and any(True for _ in layer.parameters()):
                parent, _, name = path.rpartition(".")
                setattr(trunk.get_submodule(parent), name, nn.Identity())

    def forward(self, x):
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise ShapeError(f"Detector: x expects (N, {self.in_chans}, H, W), received {tuple(x.shape)}")
        rows, maps = [], self.pyramid(self.trunk(x))
        for stride, level, values in zip(self.strides, maps, self.head(maps)):
            rows.append(self._placed(values, stride, *level.shape[2:]))
        return cat(rows, 1)

    def _placed(self, values, stride: int, height: int, width: int):
        """Edges in pixels in place of distances."""
        k = self.num_classes
        middles = level_points(stride, height, width, values)           # (H * W, 2)
        distances = values[:, :, k:k + 4].clamp(-LARGEST, LARGEST).exp() * (2.0 * stride)
        return cat([values[:, :, :k], middles - distances[:, :, :2], middles + distances[:, :, 2:], values[:, :, k + 4:]], 2)

    def decode(self, outputs):
        """(boxes (N, P, 4), scores (N, P, num_classes)): a score is the geometric mean of the class's probability and of the box's fit."""
        k = self.num_classes
        scores = (outputs[:, :, :k].sigmoid() * outputs[:, :, k + 4:].sigmoid()).sqrt()
        return outputs[:, :, k:k + 4], scores


def level_points(stride: int, height: int, width: int, like):
    """x and y of a level's positions (H * W, 2), in pixels of the input, on the device of `like`."""
    x = (numbanet.arange(width, dtype=like.dtype, device=like.device) + 0.5) * stride
    y = (numbanet.arange(height, dtype=like.dtype, device=like.device) + 0.5) * stride
    return numbanet.stack([x.reshape(1, width).expand(height, width), y.reshape(height, 1).expand(height, width)], 2).reshape(-1, 2)


def detector(trunk: str, num_classes: int, *, strides=STRIDES, channels: int = 64, convolutions: int = 2, in_chans: int = 3,
             weights=None, **trunk_options) -> Detector:
    """:class:`Detector` on the trunk of a model of the zoo, by its name.

    Parameters
    ----------
    trunk : str
        One of :func:`numbanet.list_models` whose networks have stages.
    num_classes, strides, channels, convolutions, in_chans
        See :class:`Detector`.
    weights : path, optional
        Trained weights of the model, with which the trunk begins.
    trunk_options
        Passed to the model's function.
    """
    network = create_model(trunk, in_chans=in_chans, **({} if weights is None else {"weights": weights}), **trunk_options)
    if not isinstance(network, Network) or not network.stages:
        raise UsageError(f"detector: trunk expects the name of a network with stages, {trunk} has none")
    return Detector(network, num_classes, strides=strides, channels=channels, convolutions=convolutions)
