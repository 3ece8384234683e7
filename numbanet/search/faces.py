"""Finding faces with MTCNN's three networks: proposals at many scales, refined twice.

Zhang, Zhang, Li and Qiao (2016), see `zoo/mtcnn.py`. Windows whose overlap (intersection by union) with a better one is above a limit go; a
window is moved by what the network says of its edges, in its widths and heights, and made square for the next network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import numbanet
from numbanet.data.images import load_image
from numbanet.errors import CheckpointError, DataError, UsageError
from numbanet.ops import boxes as boxes_of
from numbanet.weights import load_weights
from numbanet.zoo import ONet, PNet, RNet

THRESHOLDS = (0.6, 0.7, 0.7)        # of the probability of a face, of each network; the paper's authors' values
FACTOR = 0.709                      # from scale to scale: half of the area
STRIDE, CELL = 2, 12                # pixels between P-Net's windows, and their size
BATCH = 256                         # windows at once
MARGIN = 0.2                        # of a face's size, added on each side of what is cut out
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
        if min_size <= 0:
            raise UsageError(f"detect: min_size expects a positive number of pixels, received {min_size}")
        with numbanet.no_grad():
            boxes = self._proposals(picture, min_size)
            boxes, _, _ = self._refined(picture, boxes, 1)
            boxes, scores, landmarks = self._refined(picture, square(boxes), 2)
        kept = suppress(boxes, scores, 0.7, smaller=True)
        faces = [Face(tuple(map(float, boxes[i])), float(scores[i]), landmarks[i]) for i in kept]
        return sorted(faces, key=lambda face: -face.area)

    def _proposals(self, picture, min_size: float) -> np.ndarray:
        """Square windows (M, 4) that may hold a face."""
        found, scale = [], CELL / min_size
        while min(picture.size) * scale >= CELL:
            size = [int(np.ceil(n * scale)) for n in picture.size]
            small = picture.resize(size, Image.Resampling.BILINEAR)
            boxes, probabilities = (a.numpy()[0] for a in self.networks[0](self._input([small])))
            y, x = np.nonzero(probabilities[1] >= THRESHOLDS[0])
            left, top = x * STRIDE / scale, y * STRIDE / scale
            windows = np.stack([left, top, left + CELL / scale, top + CELL / scale], 1)
            scores = probabilities[1][y, x]
            kept = suppress(windows, scores, 0.5)
            found.append((windows[kept], scores[kept], boxes[:, y, x].T[kept]))
            scale *= FACTOR
        if not found:
            return np.empty((0, 4))
        windows, scores, offsets = (np.concatenate(parts) for parts in zip(*found))
        kept = suppress(windows, scores, 0.7)
        return square(moved(windows[kept], offsets[kept]))

    def _refined(self, picture, windows: np.ndarray, stage: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(boxes, probabilities, landmarks) of the windows that R-Net (stage 1) or O-Net (stage 2) takes for faces."""
        network, size = self.networks[stage], self.networks[stage].minimum_size
        windows = windows[(windows[:, 2] - windows[:, 0] >= 1) & (windows[:, 3] - windows[:, 1] >= 1)]
        found = [network(self._input([cut(picture, window).resize((size, size), Image.Resampling.BILINEAR)
                                      for window in windows[first:first + BATCH]])) for first in range(0, len(windows), BATCH)]
        if not found:
            return np.empty((0, 4)), np.empty(0), np.empty((0, 5, 2))
        offsets, scores = (np.concatenate([getattr(part, name).numpy() for part in found]) for name in ("boxes", "probabilities"))
        good = scores[:, 1] >= THRESHOLDS[stage]
        windows, offsets, scores = windows[good], offsets[good], scores[good, 1]
        boxes = moved(windows, offsets)
        if stage == 1:
            kept = suppress(windows, scores, 0.7)
            return boxes[kept], scores[kept], np.empty((len(kept), 5, 2))
        points = np.concatenate([part.landmarks.numpy() for part in found])[good].reshape(-1, 2, 5).transpose(0, 2, 1)
        return boxes, scores, windows[:, None, :2] + points * (windows[:, None, 2:] - windows[:, None, :2])

    def _input(self, pictures):
        pixels = np.stack([np.asarray(p, np.float32) for p in pictures]).transpose(0, 3, 1, 2)
        return numbanet.tensor((pixels - 127.5) / 128, device=self.device)

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


def cut(picture: Image.Image, box) -> Image.Image:
    """A part of a picture, black where it reaches outside."""
    left, top = round(float(box[0])), round(float(box[1]))
    return picture.crop((left, top, max(left + 1, round(float(box[2]))), max(top + 1, round(float(box[3])))))


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


def moved(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Boxes (M, 4) whose edges are moved by offsets (M, 4) in their widths and heights."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    return boxes + offsets * np.concatenate([sizes, sizes], 1)


def square(boxes: np.ndarray) -> np.ndarray:
    """Squares around the same middles, as long as the longer sides."""
    middles, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True, initial=0) / 2
    return np.concatenate([middles - half, middles + half], 1)


def suppress(boxes: np.ndarray, scores: np.ndarray, limit: float, smaller: bool = False) -> np.ndarray:
    """Positions of the boxes that remain, best first: those that overlap a better one by more than `limit` go.

    Overlap is the intersection by the union, or with `smaller` by the smaller of the two.
    """
    boxes, scores = (numbanet.tensor(np.asarray(a, np.float32)) for a in (boxes, scores))
    return boxes_of.suppress(boxes.reshape(-1, 4), scores, limit, smaller=smaller).numpy()
