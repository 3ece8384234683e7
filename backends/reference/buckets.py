"""Arrays in one array. See `contract/buckets.py`."""

from __future__ import annotations

from numbanet.backends.interface import order_of
from numbanet.backends.reference.registry import implements


def _in_memory_order(x):
    """A dense array with its axes as they lie in memory."""
    return x.transpose(order_of(x) or tuple(range(x.ndim)))


@implements
def bucket_pack(bucket, arrays, begins, scale):
    for x, begin in zip(arrays, begins):
        bucket[begin:begin + x.size] = (_in_memory_order(x) * x.dtype.type(scale)).reshape(-1)


@implements
def bucket_unpack(bucket, arrays, begins):
    for x, begin in zip(arrays, begins):
        place = _in_memory_order(x)
        place[...] = bucket[begin:begin + x.size].reshape(place.shape)
