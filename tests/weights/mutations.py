"""Seeded mutations of files, and what to expect of a reader that is given them."""

import random
import time
from collections.abc import Callable, Iterator

from numbanet.errors import CheckpointError
from numbanet.weights import load_weights

INTERESTING = (0, 1, 2, 4, 8, 127, 128, 255)
SECONDS = 2.0


def mutations(originals: list[bytes], count: int, seed: int, hot: Callable[[bytes], list[range]]) -> Iterator[bytes]:
    """`count` files, each an original with one to four changes; most of them where `hot` says that the structure lies."""
    draw = random.Random(seed)
    places = [[i for part in hot(original) for i in part] for original in originals]
    for _ in range(count):
        which = draw.randrange(len(originals))
        data = bytearray(originals[which])
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            if data:
                _mutate(data, draw, min(len(data) - 1, draw.choice(places[which])) if draw.random() < 0.9 else draw.randrange(len(data)))
        yield bytes(data)


def _mutate(data: bytearray, draw: random.Random, at: int) -> None:
    kind, length = draw.randrange(8), draw.choice((1, 2, 4, 8, 30))
    if kind <= 1:
        data[at] ^= 1 << draw.randrange(8)
    elif kind == 2:
        data[at] = draw.choice(INTERESTING)
    elif kind == 3:
        data[at] = draw.randrange(256)
    elif kind == 4:
        del data[at:at + length]
    elif kind == 5:
        data[at:at] = data[at:at + length]
    elif kind == 6:
        begin = draw.randrange(len(data))
        data[at:at + length] = data[begin:begin + length]
    else:
        del data[at:]


def survivors(path, files: Iterator[bytes]) -> Iterator[tuple[bytes, dict]]:
    """Those files that are read, and what was read; any other end than a CheckpointError, or a long wait, is a failure."""
    for data in files:
        path.write_bytes(data)
        begin = time.process_time()
        try:
            arrays, _ = load_weights(path)
        except CheckpointError:
            arrays = None
        assert time.process_time() - begin < SECONDS, data
        if arrays is not None:
            for array in arrays.values():
                array.tobytes()                 # touches every page: none lies beyond the file
            yield data, arrays
