"""Who or what is on a picture: its faces, boxes or the whole of it, by the nearest entry of a gallery."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from numbanet.data.images import load_image
from numbanet.detection.faces import FaceDetector, cut_face
from numbanet.errors import UsageError
from numbanet.search.embedding import Embedder
from numbanet.search.index import ImageIndex

THRESHOLD = 0.6
UNKNOWN = "unknown"


class Identified(NamedTuple):
    """What a part of a picture was named.

    Attributes
    ----------
    name : of the gallery's nearest entry, or "unknown" below the threshold
    score : the cosine with that entry
    path : of that entry; "" where the gallery is empty
    box : (left, top, right, bottom), or None for the whole picture
    """

    name: str
    score: float
    path: str
    box: tuple | None


def entry_name(path, folders: Sequence[str]) -> str:
    """The name of a gallery's entry: of the folder it is in, or, of files beside each other, of the file without what numbers it.

    ``gallery/Ada/1.jpg`` and ``gallery/Ada-2.jpg`` are Ada.
    """
    path = Path(path)
    if str(path.parent) not in folders:
        return path.parent.name
    return re.sub(r"[\s._-]*\(?\d+\)?$", "", path.stem) or path.stem


def face_reader(embedder: Embedder, detector: FaceDetector):
    """What makes pixels of a file's largest face, for :func:`~numbanet.search.update_index`."""
    return lambda source: embedder.preprocessing.pixels(detector.largest(source), embedder.raw)


def identify(index: ImageIndex, embedder: Embedder, source, threshold: float = THRESHOLD, detector: FaceDetector | None = None,
             boxes: Sequence[tuple] | None = None) -> list[Identified]:
    """Name what is on an image (path or open binary file).

    Parameters
    ----------
    index : ImageIndex
        The gallery.
    threshold : float
        Cosine below which nothing is named.
    detector : FaceDetector, optional
        Each face is named then; none on a picture without faces.
    boxes : sequence of (left, top, right, bottom), optional
        The parts to name, instead.

    Raises
    ------
    DataError
        It is no image.
    UsageError
        A box outside of the picture, or a threshold that no cosine can be.
    """
    if not -1 <= threshold <= 1:
        raise UsageError(f"identify: threshold expects a cosine from -1 to 1, received {threshold}")
    picture = load_image(source)
    if boxes is not None:
        parts = [(tuple(box), cut_face(picture, box, 0.0)) for box in boxes]
    elif detector is not None:
        parts = [(face.box, cut_face(picture, face.box)) for face in detector.detect(picture)]
    else:
        parts = [(None, picture)]
    if not parts:
        return []
    made = []
    for (box, _), hits in zip(parts, index.search(embedder([part for _, part in parts]), 1)):
        score, path = (hits[0].score, hits[0].path) if hits else (-1.0, "")
        known = path and score >= threshold
        made.append(Identified(entry_name(path, index.description.folders) if known else UNKNOWN, score, path, box))
    return made
