"""numbanet faces"""

from __future__ import annotations

import json
import sys
from pathlib import Path

EXAMPLE = ("  numbanet faces party.jpg --detector mtcnn/ -o faces.png\n"
           "  numbanet faces party.jpg --detector mtcnn/ --crops faces/ --json\n"
           "  numbanet identify people faces/*.png")


def configure(parser) -> None:
    from numbanet.cli.network import configure_output
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files, folders of them, or - for standard input")
    parser.add_argument("--detector", metavar="DIR", required=True, help="a folder with MTCNN's pnet.pt, rnet.pt and onet.pt; the package "
                                                                         "facenet-pytorch has them in its folder data")
    parser.add_argument("--min-size", type=float, metavar="N", help="height of the smallest faces to look for, in pixels (default: 5%% of "
                                                                    "the picture's shorter side, and 20 at least)")
    parser.add_argument("--crops", metavar="DIR", help="also write each face, with a margin, as a PNG into this folder, for 'numbanet "
                                                       "index' and 'numbanet identify'")
    parser.add_argument("--device", default="cpu", help="cpu (default) or reference")
    configure_output(parser)


def run(arguments) -> int:
    from numbanet.backends import get_backend
    from numbanet.cli.network import check_output, output_path
    from numbanet.cli.pictures import table
    from numbanet.cli.predict import sources_of
    from numbanet.data.images import load_image
    from numbanet.detection.faces import FaceDetector, cut_face, draw_faces
    from numbanet.errors import DataError, UsageError
    from numbanet.vision.composition import Section, compose, save_sheet
    check_output(arguments)
    get_backend(arguments.device)
    crops = None if arguments.crops is None else Path(arguments.crops)
    if crops is not None and crops.exists() and not crops.is_dir():
        raise UsageError(f"--crops: expected a folder, {crops} is a file")
    detector = FaceDetector(arguments.detector, arguments.device)
    results, cells, failures = [], [], 0
    for name, source in sources_of(arguments.images):
        try:
            if source is None:
                raise DataError(f"{name}: the folder has no images")
            picture = load_image(source)
            faces = detector.detect(picture, arguments.min_size)
        except DataError as error:
            print(f"numbanet faces: {error}", file=sys.stderr)
            failures += 1
            continue
        written = [] if crops is None else _write(crops, Path(name).stem if name != "-" else "picture",
                                                  [cut_face(picture, face.box) for face in faces])
        results.append((name, faces, written))
        cells.append(draw_faces(picture, faces, name, f"{len(faces)} face{'' if len(faces) == 1 else 's'}"))
    path = None
    if cells:
        path = output_path(arguments, "faces", Path(results[0][0]).stem)
        longest = 1150 if len(cells) == 1 else 560
        save_sheet(path, compose("Faces", ["Boxes with the probability of a face; eyes, nose and corners of the mouth."],
                                 [Section(cells, "", min(2, len(cells)), longest=longest)]))
    if arguments.json:
        print(json.dumps([{"image": name, "faces": [
            {"box": list(face.box), "probability": face.probability, "landmarks": face.landmarks.tolist(),
             **({"crop": crop} if crop else {})} for face, crop in zip(faces, written or [None] * len(faces))]}
            for name, faces, written in results], indent=2))
        return 1 if failures else 0
    for name, faces, written in results:
        print(name + ("" if faces else ": no face was found"))
        rows = [(f"{100 * face.probability:.2f}%", ",".join(f"{edge:.0f}" for edge in face.box), Path(crop).name)
                for face, crop in zip(faces, written or [""] * len(faces))]
        if rows:
            print("\n".join("  " + line for line in table(rows, ("face", "box", "crop" if written else ""), right=(0,))))
    if path is not None:
        print(f"wrote {path}")
    return 1 if failures else 0


def _write(folder: Path, stem: str, faces) -> list[str]:
    """Faces as PNGs under names that nothing in the folder has."""
    import numpy as np

    from numbanet.vision.draw import save_image
    folder.mkdir(parents=True, exist_ok=True)
    made, number = [], 1
    for face in faces:
        while (folder / f"{stem}-{number}.png").exists():
            number += 1
        save_image(folder / f"{stem}-{number}.png", np.asarray(face))
        made.append(str(folder / f"{stem}-{number}.png"))
    return made
