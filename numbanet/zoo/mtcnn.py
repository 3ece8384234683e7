"""MTCNN: three small networks that find faces, each looking closer at what the one before proposed.

Zhang, Zhang, Li and Qiao (2016), Joint Face Detection and Alignment using Multitask Cascaded Convolutional Networks, IEEE Signal
Processing Letters 23(10), figure 2, with parametric ReLUs. Names of parameters are those of the PyTorch port whose weights circulate;
as those weights come from MATLAB, the full connections read a map column by column.
"""

from __future__ import annotations

from typing import NamedTuple

from numbanet import nn
from numbanet._tensor import Tensor
from numbanet.errors import ShapeError
from numbanet.nn import functional as F


class Proposals(NamedTuple):
    """What P-Net and R-Net find."""

    boxes: Tensor           # offsets of the left, top, right and bottom edge, in widths and heights of the window
    probabilities: Tensor   # no face, face


class Faces(NamedTuple):
    """What O-Net finds."""

    boxes: Tensor
    landmarks: Tensor       # x of both eyes, nose and both corners of the mouth, then their y
    probabilities: Tensor


class _Stage(nn.Module):
    """The convolutions that all three have: after each a PReLU, after some a max pooling that rounds sizes up."""

    minimum_size: int

    def __init__(self, convolutions: tuple[tuple[int, int], ...], pools: tuple[int, ...]):
        super().__init__()
        channels, self._depth = 3, len(convolutions)
        for number, (filters, kernel) in enumerate(convolutions, 1):
            self.register_module(f"conv{number}", nn.Conv2d(channels, filters, kernel))
            self.register_module(f"prelu{number}", nn.PReLU(filters))
            if number <= len(pools):
                self.register_module(f"pool{number}", nn.MaxPool2d(pools[number - 1], 2, ceil_mode=True))
            channels = filters

    def maps(self, x):
        for number in range(1, self._depth + 1):
            x = getattr(self, f"prelu{number}")(getattr(self, f"conv{number}")(x))
            pool = getattr(self, f"pool{number}", None)
            x = x if pool is None else pool(x)
        return x

    def check(self, x, any_size: bool = False) -> None:
        least, name = self.minimum_size, type(self).__name__
        fits = x.ndim == 4 and x.shape[1] == 3
        if any_size and not (fits and min(x.shape[2:]) >= least):
            raise ShapeError(f"{name}: x expects (N, 3, H, W) of at least {least} x {least}, received {tuple(x.shape)}; "
                             "scale the picture up")
        if not any_size and not (fits and tuple(x.shape[2:]) == (least, least)):
            raise ShapeError(f"{name}: x expects (N, 3, {least}, {least}), received {tuple(x.shape)}; scale each window to that size")


def _columns(x):
    """(N, C, H, W) to (N, W * H * C)."""
    return x.permute(0, 3, 2, 1).flatten(1)


class PNet(_Stage):
    """Proposals: a face or none in each 12 x 12 window of a picture, at steps of 2 pixels.

    Pixels are (value - 127.5) / 128, values 0 to 255, RGB.
    """

    minimum_size = 12

    def __init__(self):
        super().__init__(((10, 3), (16, 3), (32, 3)), pools=(2,))
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, x) -> Proposals:
        """(N, 3, H, W) to maps (N, 4, OH, OW) and (N, 2, OH, OW), OH = ceil((H - 2) / 2) - 4.

        Raises
        ------
        ShapeError
            The picture has not three channels, or is smaller than 12 x 12.
        """
        self.check(x, any_size=True)
        x = self.maps(x)                                            # (N, 32, OH, OW)
        return Proposals(self.conv4_2(x), F.softmax(self.conv4_1(x), 1))


class RNet(_Stage):
    """Refinement: a face or none in windows scaled to 24 x 24, and better edges."""

    minimum_size = 24

    def __init__(self):
        super().__init__(((28, 3), (48, 3), (64, 2)), pools=(3, 3))
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, x) -> Proposals:
        """(N, 3, 24, 24) to (N, 4) and (N, 2).

        Raises
        ------
        ShapeError
            Another size.
        """
        self.check(x)
        x = self.prelu4(self.dense4(_columns(self.maps(x))))        # (N, 64, 3, 3), (N, 128)
        return Proposals(self.dense5_2(x), F.softmax(self.dense5_1(x), 1))


class ONet(_Stage):
    """Output: a face or none in windows scaled to 48 x 48, its edges and five landmarks."""

    minimum_size = 48

    def __init__(self):
        super().__init__(((32, 3), (64, 3), (64, 3), (128, 2)), pools=(3, 3, 2))
        self.dense5 = nn.Linear(1152, 256)
        self.prelu5 = nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x) -> Faces:
        """(N, 3, 48, 48) to (N, 4), (N, 10) and (N, 2).

        Raises
        ------
        ShapeError
            Another size.
        """
        self.check(x)
        x = self.prelu5(self.dense5(_columns(self.maps(x))))        # (N, 128, 3, 3), (N, 256)
        return Faces(self.dense6_2(x), self.dense6_3(x), F.softmax(self.dense6_1(x), 1))
