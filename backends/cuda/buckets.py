"""Arrays in one array, a launch or two for all of them (`lists.py`); see `contract/buckets.py`."""

from __future__ import annotations

from numbanet.backends.cuda.compile import kernel
from numbanet.backends.cuda.index import grid_stride
from numbanet.backends.cuda.launch import launch, number
from numbanet.backends.cuda.lists import element_of, table, together
from numbanet.backends.cuda.registry import implements
from numbanet.backends.cuda.wide import Wide, is_aligned


@kernel
def bucket_pack_kernel(bucket, arrays, starts, begins, count, step, scale, total):
    for i in grid_stride(total):
        k, e = element_of(i, starts, count, step)
        bucket[begins[k] + e] = scale * arrays[k][e]


@kernel
def bucket_unpack_kernel(bucket, arrays, starts, begins, count, step, total):
    for i in grid_stride(total):
        k, e = element_of(i, starts, count, step)
        arrays[k][e] = bucket[begins[k] + e]


def _launch(kernel_of, bucket, arrays, begins, *scalars) -> None:
    chosen = [k for k, x in enumerate(arrays) if x.size]
    if not chosen:
        return
    own, begins = [arrays[k] for k in chosen], [begins[k] for k in chosen]
    for members, step, (given,), starts, total in together([own], lambda k, width: begins[k] % width == 0 and is_aligned(bucket, width)):
        places = table(bucket, [begins[k] for k in members], bucket.size)
        launch(kernel_of, total, Wide(bucket, step) if step > 1 else bucket, given, starts, places, len(members), step, *scalars, total)


@implements
def bucket_pack(bucket, arrays, begins, scale):
    _launch(bucket_pack_kernel, bucket, arrays, begins, number(scale, bucket.dtype))


@implements
def bucket_unpack(bucket, arrays, begins):
    _launch(bucket_unpack_kernel, bucket, arrays, begins)
