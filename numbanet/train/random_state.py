"""The states of all generators that training may draw from: numbanet's, Python's and NumPy's global ones."""

from __future__ import annotations

import random

import numpy as np

from numbanet.errors import CheckpointError
from numbanet.random import get_rng_state, set_rng_state


def get_random_state() -> dict:
    """Of this thread, as plain values and arrays."""
    version, words, gauss = random.getstate()
    numpy_name, numpy_words, position, has_gauss, cached = np.random.get_state()
    return {"numbanet": list(get_rng_state()), "python": {"version": version, "words": np.array(words, np.uint32), "gauss": gauss},
            "numpy": {"name": numpy_name, "words": numpy_words, "position": position, "has_gauss": has_gauss, "cached": cached}}


def set_random_state(state: dict) -> None:
    """Go on where :func:`get_random_state` was called."""
    try:
        python, numpy = state["python"], state["numpy"]
        random.setstate((python["version"], tuple(map(int, np.asarray(python["words"]))), python["gauss"]))
        np.random.set_state((numpy["name"], np.asarray(numpy["words"]), numpy["position"], numpy["has_gauss"], numpy["cached"]))
        set_rng_state(state["numbanet"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the states of the random generators cannot be read ({error})") from error
