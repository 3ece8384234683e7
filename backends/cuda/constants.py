"""Small tables that kernels read: NumPy arrays computed on the host, uploaded once and kept."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import numpy as np

from numbanet.backends.cuda.memory import Allocator, DeviceArray

REMEMBERED = 1024

_uploaded: OrderedDict[tuple, DeviceArray] = OrderedDict()
_lock = Lock()


def on_device(allocator: Allocator, values: np.ndarray) -> DeviceArray:
    """A copy of `values` on the device that nobody may write to; the same one for the same values while it is remembered."""
    values = np.ascontiguousarray(values)
    key = allocator, values.shape, values.dtype, values.tobytes()
    device = allocator.device
    recording, device.recording = device.recording, None            # a table does not change: it is uploaded now
    try:
        made = _known(allocator, key, values)
    finally:
        device.recording = recording
    if recording is not None:
        recording.keep(made)
    return made


def _known(allocator: Allocator, key: tuple, values: np.ndarray) -> DeviceArray:
    with _lock:
        if key in _uploaded:
            _uploaded.move_to_end(key)
            return _uploaded[key]
    made = allocator.from_numpy(values)
    with _lock:
        _uploaded[key] = made
        while len(_uploaded) > REMEMBERED:
            _uploaded.popitem(last=False)
    return made


def forget() -> None:
    """Give up the tables that nobody uses."""
    with _lock:
        _uploaded.clear()
