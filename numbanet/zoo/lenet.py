"""LeNet-5, as it is taught today and as it was published.

LeCun, Bottou, Bengio and Haffner: Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 86(11), 1998.
Layers keep the paper's names: C a convolution, S a subsampling, F a full connection. Digits are 32 x 32, the ink large.
"""

from __future__ import annotations

from numbanet import nn
from numbanet._tensor import tensor
from numbanet.errors import ShapeError, UsageError
from numbanet.nn import functional as F
from numbanet.nn import init
from numbanet.ops.factories import empty, full
from numbanet.ops.rearrange import cat
from numbanet.optim.levenberg_marquardt import probe_units
from numbanet.zoo.digit_bitmaps import digit_codes
from numbanet.zoo.fully_convolutional import fully_convolutional
from numbanet.zoo.registry import register_model

PAPER = "LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition"
INPUT_SIZE = 32
# What the paper feeds, so that the mean is about 0: ink 1.175, blank paper -0.1.
_INK, _BLANK = 1.175, -0.1

# Table I: the maps of S2 that each of the 16 maps of C3 reads.
C3_CONNECTIONS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


def _check_input(model: str, x, channels: int) -> None:
    if x.ndim != 4 or tuple(x.shape[1:]) != (channels, INPUT_SIZE, INPUT_SIZE):
        raise ShapeError(f"{model}: x expects (N, {channels}, {INPUT_SIZE}, {INPUT_SIZE}), received {tuple(x.shape)}; "
                         "pad 28 x 28 digits by 2 on each side")


class LeNet(nn.Module):
    """What both have in common: maps of 1/4 of the resolution that a full connection reads whole."""

    map_stride = 4
    flat_maps = True

    def to_fully_convolutional(self, input_size=None):
        """This classifier on every window of larger pictures: see :meth:`~numbanet.zoo.network.Network.to_fully_convolutional`."""
        return fully_convolutional(self, input_size)


class LeNet5(LeNet):
    """LeNet-5 with ReLU, max pooling, full connections and a linear output: 61,706 parameters for ten classes.

    Parameters
    ----------
    num_classes : int
        0 leaves the output out: the network then gives the 84 features.
    in_chans : int
    """

    def __init__(self, num_classes: int = 10, in_chans: int = 1):
        super().__init__()
        self.in_chans, self.num_features = in_chans, 84
        self.features = nn.Sequential({
            "c1": nn.Conv2d(in_chans, 6, 5),        # (N, C, 32, 32) -> (N, 6, 28, 28)
            "relu1": nn.ReLU(),
            "s2": nn.MaxPool2d(2),                  # (N, 6, 14, 14)
            "c3": nn.Conv2d(6, 16, 5),              # (N, 16, 10, 10)
            "relu3": nn.ReLU(),
            "s4": nn.MaxPool2d(2),                  # (N, 16, 5, 5)
        })
        self.classifier = nn.Sequential({
            "flatten": nn.Flatten(),                # (N, 400)
            "c5": nn.Linear(400, 120),
            "relu5": nn.ReLU(),
            "f6": nn.Linear(120, 84),
            "relu6": nn.ReLU(),
            "output": nn.Identity(),
        })
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """A new output for another number of classes; 0 takes it away."""
        self.num_classes = num_classes
        self.classifier.output = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x):
        """(N, C, 32, 32) to the maps of S4, (N, 16, 5, 5)."""
        _check_input("lenet5", x, self.in_chans)
        return self.features(x)

    def forward_head(self, x):
        """The maps of S4 to logits (N, num_classes)."""
        return self.classifier(x)

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


class ScaledTanh(nn.Module):
    """1.7159 tanh(2 x / 3): f(1) = 1 and f(-1) = -1, where the curvature is largest (the paper's appendix A)."""

    def forward(self, x):
        return F.tanh(x * (2 / 3)) * 1.7159


class Subsampling(nn.Module):
    """The sum of 2 x 2 elements of each map, times the map's coefficient, plus the map's bias."""

    inputs_per_unit = 4

    def __init__(self, maps: int):
        super().__init__()
        self.maps = maps
        self.weight = nn.Parameter(empty((maps, 1, 1)))
        self.bias = nn.Parameter(empty((maps, 1, 1)))

    def forward(self, x):
        return F.avg_pool2d(x, 2) * (self.weight * 4.0) + self.bias        # 4 times the mean is the sum

    def extra_repr(self) -> str:
        return f"{self.maps}"


class PartialConv2d(nn.Module):
    """A convolution whose maps read only some of the input's maps: one kernel for each connection, no others.

    Parameters
    ----------
    in_channels : int
    connections : tuple of tuples
        For each output map the input maps that it reads.
    kernel_size : int
    """

    def __init__(self, in_channels: int, connections: tuple[tuple[int, ...], ...], kernel_size: int):
        super().__init__()
        self.in_channels, self.connections, self.kernel_size = in_channels, connections, kernel_size
        pairs = [(filter, channel) for filter, channels in enumerate(connections) for channel in channels]
        self.weight = nn.Parameter(empty((len(pairs), kernel_size, kernel_size)))
        self.bias = nn.Parameter(empty((len(connections),)))
        # Row (filter, channel) of this 0/1 matrix picks the kernel of that connection, or none.
        placement = [[0.0] * len(pairs) for _ in range(len(connections) * in_channels)]
        for kernel, (filter, channel) in enumerate(pairs):
            placement[filter * in_channels + channel][kernel] = 1.0
        self.register_buffer("placement", tensor(placement), persistent=False)

    def forward(self, x):
        kernels = self.weight.reshape(len(self.weight), -1)                 # (connections, R * S)
        dense = (self.placement @ kernels).reshape(len(self.connections), self.in_channels, *self.weight.shape[1:])
        return F.conv2d(x, dense, self.bias)

    def extra_repr(self) -> str:
        return (f"{self.in_channels}, {len(self.connections)}, kernel_size={self.kernel_size}, "
                f"kernels={len(self.weight)}")


class RadialBasisOutput(nn.Module):
    """Minus the squared distance of F6 from each digit's fixed bitmap, so that the largest wins: -sum (x - w)^2."""

    def __init__(self):
        super().__init__()
        self.register_buffer("codes", tensor(digit_codes()))      # (10, 84), each -1 or 1

    def forward(self, x):
        # (x - w)^2 = x^2 - 2 x w + w^2, and w^2 = 1
        return F.linear(x, self.codes * 2.0) - (x * x).sum(1, keepdim=True) - float(self.codes.shape[1])


class LeNet5Of1998(LeNet):
    """LeNet-5 as published: 60,000 trainable parameters, 340,908 connections.

    Subsampling with a trainable coefficient and bias per map, scaled hyperbolic tangents, C3 partly connected by the
    paper's table I, and an output of Euclidean distances to stylised bitmaps of the digits, which are fixed. It returns
    minus those distances, so that the most likely digit has the largest output, as in every other network here; train
    with :func:`map_criterion` or any loss of logits.
    """

    num_classes = 10

    def loss_function(self, logits, target):
        """The paper's criterion, which `numbanet train` uses."""
        return map_criterion(logits, target)

    def curvature_probe(self, x, generator):
        """The right digit's distance is the squared one of F6 from its bitmap; see `optim.DiagonalLevenbergMarquardt`."""
        c = self.classifier
        return probe_units(c.tanh6(c.f6(c.flatten(self.features(x)))), generator)

    def __init__(self, in_chans: int = 1):
        super().__init__()
        self.in_chans, self.num_features = in_chans, 84
        self.features = nn.Sequential({
            "c1": nn.Conv2d(in_chans, 6, 5),                        # (N, C, 32, 32) -> (N, 6, 28, 28)
            "tanh1": ScaledTanh(),
            "s2": Subsampling(6),                                   # (N, 6, 14, 14)
            "tanh2": ScaledTanh(),
            "c3": PartialConv2d(6, C3_CONNECTIONS, 5),              # (N, 16, 10, 10)
            "tanh3": ScaledTanh(),
            "s4": Subsampling(16),                                  # (N, 16, 5, 5)
            "tanh4": ScaledTanh(),
            "c5": nn.Conv2d(16, 120, 5),                            # (N, 120, 1, 1)
            "tanh5": ScaledTanh(),
        })
        self.classifier = nn.Sequential({
            "flatten": nn.Flatten(),                                # (N, 120)
            "f6": nn.Linear(120, 84),
            "tanh6": ScaledTanh(),
            "output": RadialBasisOutput(),
        })
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """U(-2.4 / F, 2.4 / F), F the number of inputs of a unit (the paper's appendix A)."""
        for layer in self.modules():
            if isinstance(layer, PartialConv2d):
                for kernels, bias, read in zip(_by_filter(layer), layer.bias.detach(), layer.connections):
                    bound = 2.4 / (len(read) * layer.kernel_size ** 2)
                    init.uniform_(kernels, -bound, bound)
                    init.uniform_(bias, -bound, bound)
            elif isinstance(layer, (nn.Conv2d, nn.Linear, Subsampling)):
                bound = 2.4 / _inputs_per_unit(layer)
                init.uniform_(layer.weight, -bound, bound)
                init.uniform_(layer.bias, -bound, bound)

    def connections(self) -> int:
        """The connections of the paper's count: every weight or bias, once for each unit that it feeds."""
        units = {"c1": 28 * 28, "s2": 14 * 14, "c3": 10 * 10, "s4": 5 * 5, "c5": 1}       # positions of each map
        total = 0
        for name, positions in units.items():
            layer = self.features.get_submodule(name)
            kernels = layer.inputs_per_unit * layer.maps if isinstance(layer, Subsampling) else layer.weight.numel()
            total += positions * (kernels + layer.bias.numel())
        f6, output = self.classifier.f6, self.classifier.output
        return total + f6.weight.numel() + f6.bias.numel() + output.codes.numel()

    def forward_features(self, x):
        """(N, C, 32, 32) to the units of C5, (N, 120, 1, 1)."""
        _check_input("lenet5_1998", x, self.in_chans)
        return self.features(x)

    def forward_head(self, x):
        """The units of C5 to minus the distances, (N, 10)."""
        return self.classifier(x)

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def _inputs_per_unit(layer) -> int:
    return layer.inputs_per_unit if isinstance(layer, Subsampling) else init.fans(layer.weight)[0]


def _by_filter(layer: PartialConv2d):
    """The kernels of each output map, as views of the weight."""
    start = 0
    for read in layer.connections:
        yield layer.weight.detach()[start:start + len(read)]
        start += len(read)


def map_criterion(logits, target, j: float = 0.1, reduction: str = "mean"):
    """The paper's maximum a posteriori criterion (equation 9): y_D + log(exp(-j) + sum_i exp(-y_i)).

    y_i are the distances, here ``-logits``; D is the right digit. The constant exp(-j) stands for a class of rubbish at
    the distance j: it keeps classes that are already farther than that from being pushed away further.

    Parameters
    ----------
    logits : Tensor (N, 10)
        Minus the distances: the output of :class:`LeNet5Of1998`.
    target : Tensor (N,)
        The digits, int64.
    j : float
        Positive.
    reduction : "none", "mean" or "sum"
    """
    if not j > 0:
        raise UsageError(f"map_criterion: j expects a positive number, received {j}")
    # An additional class of constant logit -j turns the criterion into a cross-entropy.
    rubbish = full((logits.shape[0], 1), -j, dtype=logits.dtype, device=logits.device)
    return F.cross_entropy(cat([logits, rubbish], 1), target, reduction=reduction)


@register_model(input_size=(1, 32, 32), num_classes=10, mean=(0.1307,), std=(0.3081,), paper=PAPER,
                parameters=61_706, multiply_adds=416_520)
def lenet5(num_classes: int = 10, in_chans: int = 1) -> LeNet5:
    """LeNet-5 in its modern form: ReLU, max pooling, a linear output; 61,706 parameters."""
    return LeNet5(num_classes, in_chans)


@register_model(input_size=(1, 32, 32), num_classes=10, mean=(-_BLANK / (_INK - _BLANK),), std=(1 / (_INK - _BLANK),),
                paper=PAPER, parameters=60_000, multiply_adds=560_520)
def lenet5_1998(num_classes: int = 10, in_chans: int = 1) -> LeNet5Of1998:
    """LeNet-5 as published in 1998: trainable subsampling, scaled tanh, partial C3, distances to bitmaps."""
    if num_classes != 10:
        raise UsageError("lenet5_1998: its output compares with bitmaps of ten digits, so num_classes expects 10, "
                         f"received {num_classes}; use lenet5")
    return LeNet5Of1998(in_chans)
