"""Finding faces with MTCNN's three networks: proposals at many scales, refined twice.

Zhang, Zhang, Li and Qiao (2016), see `zoo/mtcnn.py`. Windows whose overlap (intersection by union) with a better one is above a limit go; a
window is moved by what the network says of its edges, in its widths and heights, and made square for the next network. The networks were
trained where pixels are counted from 1 and the last one belongs to a box: so do windows here, and pictures are scaled by means of
areas, so that faces are found where the published weights' own code finds them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import numbanet
from numbanet.data.images import load_image
from numbanet.errors import CheckpointError, DataError, UsageError
from numbanet.nn import functional as F
from numbanet.ops import boxes as boxes_of
from numbanet.ops.rearrange import cat
from numbanet.vision.composition import Cell
from numbanet.vision.draw import text_font
from numbanet.weights import load_weights
from numbanet.zoo import ONet, PNet, RNet

THRESHOLDS = (0.6, 0.7, 0.7)        # of the probability of a face, of each network; the paper's authors' values
FACTOR = 0.709                      # from scale to scale: half of the area
STRIDE, CELL = 2, 12                # pixels between P-Net's windows, and their size
BATCH = 256                         # windows at once
MARGIN = 0.2                        # of a face's size, added on each side of what is cut out
INK_OF_BOXES, INK_OF_POINTS = (214, 39, 40), (31, 119, 180)
ENLARGED_TO = 480                   # pixels of the longer side that small pictures are drawn at
SMALLEST = 0.05                     # of the picture's shorter side: faces that are looked for


@dataclass
class Face:
    """A face on a picture.

    Attributes
    ----------
    box : (left, top, right, bottom) in pixels
    probability : float
    landmarks : float (5, 2)
        x and y of the eyes, the nose and the corners of the mouth.
    """

    box: tuple[float, float, float, float]
    probability: float
    landmarks: np.ndarray

    @property
    def area(self) -> float:
        return max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1])


class FaceDetector:
    """MTCNN with trained weights.

    Parameters
    ----------
    folder : path
        With ``pnet``, ``rnet`` and ``onet``, each as .pt, .pth, .safetensors or .npz; the package facenet-pytorch has them in its
        folder ``data``.
    device : str

    Raises
    ------
    CheckpointError
        A file is missing, or holds other weights.
    """

    def __init__(self, folder, device: str = "cpu"):
        self.device, self.networks = device, []
        for make in (PNet, RNet, ONet):
            name = make.__name__.lower()
            files = [f for suffix in (".pt", ".pth", ".safetensors", ".npz") if (f := Path(folder) / f"{name}{suffix}").is_file()]
            if not files:
                raise CheckpointError(f"{folder}: expected MTCNN's weights pnet.pt, rnet.pt and onet.pt, {name}.pt is missing; the package "
                                      "facenet-pytorch holds them in its folder data")
            network = make()
            network.load_state_dict(load_weights(files[0])[0])
            self.networks.append(network.to(device).eval())

    def detect(self, picture: Image.Image, min_size: float | None = None) -> list[Face]:
        """The faces on a picture (Pillow, RGB), the largest first.

        Parameters
        ----------
        min_size : float, optional
            Height of the smallest faces to look for, in pixels; by default 5% of the picture's shorter side, and 20 at least.
        """
        picture = picture.convert("RGB")
        if min_size is None:
            min_size = max(20.0, SMALLEST * min(picture.size))
        if not 0 < min_size < math.inf:
            raise UsageError(f"detect: min_size expects a positive number of pixels, received {min_size}")
        pixels = np.asarray(picture, np.float32).transpose(2, 0, 1)
        x = numbanet.tensor(np.ascontiguousarray(pixels[None]), device=self.device)         # (1, 3, H, W)
        with numbanet.no_grad():
            windows = square(self._proposals(x, min_size))
            windows, scores, offsets, _ = self._looked_at(x, windows, 1)
            kept = suppress(windows, scores, 0.7)
            windows = square(moved(windows[kept], offsets[kept], 1))
            windows, scores, offsets, points = self._looked_at(x, windows, 2)
        boxes = moved(windows, offsets, 1)
        sizes = windows[:, None, 2:] - windows[:, None, :2] + 1
        points = windows[:, None, :2] + points * sizes - 1
        kept = suppress(boxes + np.array([0, 0, 1, 1], np.float32), scores, 0.7, smaller=True)
        faces = [Face(tuple(map(float, boxes[i])), float(scores[i]), points[i]) for i in kept]
        return sorted(faces, key=lambda face: -face.area)

    def _proposals(self, x, min_size: float) -> np.ndarray:
        """Windows (M, 4) that may hold a face, moved as P-Net says."""
        (height, width), found, scale = x.shape[2:], [], CELL / min_size
        smaller = min(height, width) * scale
        while smaller >= CELL:
            small = F.interpolate(x, (int(height * scale + 1), int(width * scale + 1)), mode="area")
            offsets, probabilities = (part.numpy()[0] for part in self.networks[0](_scaled(small)))
            row, column = np.nonzero(probabilities[1] >= THRESHOLDS[0])
            corners = STRIDE * np.stack([column, row], 1).astype(np.float32)
            windows = np.concatenate([np.floor((corners + 1) / scale), np.floor((corners + CELL) / scale)], 1)
            scores = probabilities[1][row, column]
            kept = suppress(windows, scores, 0.5)
            found.append((windows[kept], scores[kept], offsets[:, row, column].T[kept]))
            scale, smaller = scale * FACTOR, smaller * FACTOR
        if not found:
            return np.empty((0, 4), np.float32)
        windows, scores, offsets = (np.concatenate(parts) for parts in zip(*found))
        kept = suppress(windows, scores, 0.7)
        return moved(windows[kept], offsets[kept], 0)

    def _looked_at(self, x, windows: np.ndarray, stage: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of the windows that R-Net (stage 1) or O-Net (stage 2) takes for faces: windows, probabilities, offsets, and landmarks in their
        sizes."""
        network, size = self.networks[stage], self.networks[stage].minimum_size
        parts = [visible(window, x.shape[2:]) for window in windows]
        there = [i for i, (left, top, right, bottom) in enumerate(parts) if left < right and top < bottom]
        found = []
        for first in range(0, len(there), BATCH):
            crops = [F.interpolate(x[:, :, top:bottom, left:right], (size, size), mode="area")
                     for left, top, right, bottom in (parts[i] for i in there[first:first + BATCH])]
            found.append(network(_scaled(cat(crops, 0))))
        if not found:
            return np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32)
        offsets, scores = (np.concatenate([getattr(part, name).numpy() for part in found]) for name in ("boxes", "probabilities"))
        good = scores[:, 1] > THRESHOLDS[stage]
        points = np.empty((len(good), 5, 2), np.float32)
        if stage == 2:
            points = np.concatenate([part.landmarks.numpy() for part in found]).reshape(-1, 2, 5).transpose(0, 2, 1)
        return windows[there][good], scores[good, 1], offsets[good], points[good]

    def largest(self, source) -> Image.Image:
        """The largest face of an image (path or open binary file), cut out.

        Raises
        ------
        DataError
            It is no image, or shows no face.
        """
        picture = load_image(source)
        faces = self.detect(picture)
        if not faces:
            raise DataError(f"{getattr(source, 'name', source)}: no face was found")
        return cut_face(picture, faces[0].box)


def cut_face(picture: Image.Image, box, margin: float = MARGIN) -> Image.Image:
    """A box with a margin, as far as the picture reaches.

    Raises
    ------
    UsageError
        The box lies outside of the picture, or is empty.
    """
    left, top, right, bottom = map(float, box)
    across, down = margin * (right - left), margin * (bottom - top)
    inside = (max(0, round(left - across)), max(0, round(top - down)),
              min(picture.size[0], round(right + across)), min(picture.size[1], round(bottom + down)))
    if not (right > left and bottom > top and inside[2] > inside[0] and inside[3] > inside[1]):
        raise UsageError(f"the box {tuple(box)} lies outside of the picture of {picture.size[0]} x {picture.size[1]} pixels; expected "
                         "left, top, right, bottom")
    return picture.crop(inside)


def draw_faces(picture: Image.Image, faces, *captions: str) -> Cell:
    """A picture with the boxes, probabilities and landmarks of its faces, for a sheet."""
    enlarged = max(1, -(-ENLARGED_TO // max(picture.size)))
    made = picture.convert("RGB").resize([enlarged * n for n in picture.size], Image.Resampling.BICUBIC)
    draw, unit = ImageDraw.Draw(made), max(made.size) / 640
    thick, font = max(2, round(2 * unit)), text_font(max(11, round(14 * unit)))
    for face in faces[::-1]:
        left, top, right, bottom = (edge * enlarged for edge in face.box)
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=INK_OF_BOXES, width=thick)
        for x, y in face.landmarks * enlarged:
            radius = max(2.0, 0.02 * (bottom - top))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), INK_OF_POINTS, "white")
        text = f"{100 * face.probability:.1f}%"
        y = top - font.size - 4 if top >= font.size + 4 else bottom + 2
        draw.text((left + 1, y), text, INK_OF_BOXES, font, stroke_width=2, stroke_fill="white")
    return Cell(np.asarray(made), captions, smooth=True)


def moved(boxes: np.ndarray, offsets: np.ndarray, added: int) -> np.ndarray:
    """Boxes (M, 4) whose edges are moved by offsets (M, 4) in their widths and heights, to which `added` pixels are added: 1 where the
    last pixel is counted as a part of the box."""
    sizes = boxes[:, 2:] - boxes[:, :2] + added
    return boxes + offsets * np.concatenate([sizes, sizes], 1)


def visible(window, size) -> tuple[int, int, int, int]:
    """The pixels (left, top, right, bottom), the last two exclusive, of a window whose pixels are counted from 1, as far as a picture of
    `size` (height, width) has them."""
    left, top, right, bottom = (int(edge) for edge in window)
    return max(left, 1) - 1, max(top, 1) - 1, min(right, size[1]), min(bottom, size[0])


def _scaled(x):
    """What the networks take, of values 0 to 255."""
    return (x - 127.5) * 0.0078125


def square(boxes: np.ndarray) -> np.ndarray:
    """Squares around the same middles, as long as the longer sides."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    longer = sizes.max(1, keepdims=True, initial=0)
    corners = boxes[:, :2] + sizes * np.float32(0.5) - longer * np.float32(0.5)
    return np.concatenate([corners, corners + longer], 1)


def suppress(boxes: np.ndarray, scores: np.ndarray, limit: float, smaller: bool = False) -> np.ndarray:
    """Positions of the boxes that remain, best first: those that overlap a better one by more than `limit` go.

    Overlap is the intersection by the union, or with `smaller` by the smaller of the two.
    """
    boxes, scores = (numbanet.tensor(np.asarray(a, np.float32)) for a in (boxes, scores))
    return boxes_of.suppress(boxes.reshape(-1, 4), scores, limit, smaller=smaller).numpy()
