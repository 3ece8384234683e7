"""Arrays in one array: a pass over each, as its memory lies. See `contract/buckets.py`."""

from __future__ import annotations

from numbanet.backends.cpu.elementwise import copy, multiply
from numbanet.backends.cpu.registry import implements
from numbanet.backends.interface import order_of


def _parts(bucket, arrays, begins):
    """(each array with its axes as they lie in memory, its elements of the bucket)."""
    for x, begin in zip(arrays, begins):
        x = x.transpose(order_of(x) or tuple(range(x.ndim)))
        yield x, bucket[begin:begin + x.size].reshape(x.shape)


@implements
def bucket_pack(bucket, arrays, begins, scale):
    for x, place in _parts(bucket, arrays, begins):
        multiply(x, scale, place)


@implements
def bucket_unpack(bucket, arrays, begins):
    for x, place in _parts(bucket, arrays, begins):
        copy(place, x)
