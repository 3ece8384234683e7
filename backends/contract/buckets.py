"""Arrays that travel together: gradients on their way to other processes lie one behind the other in one array, a bucket.

Arrays are dense; their elements lie in a bucket as they lie in memory, those of array k from begins[k] on. What is between is left as it
is. One call takes any number of arrays, since a copy of each alone would cost more than its bytes.

Source: Li et al., PyTorch Distributed: Experiences on Accelerating Data Parallel Training (VLDB 2020), section 3.2.3.
"""

from __future__ import annotations

from math import prod

from numbanet.backends.contract.checks import check_float
from numbanet.backends.interface import Array, Arrays, Backend, dense_strides, order_of, primitive
from numbanet.errors import ShapeError


def _check(operation: str, bucket: Array, arrays: Arrays, begins: tuple[int, ...]) -> None:
    if len(bucket.shape) != 1 or bucket.shape[0] > 1 and bucket.strides != (bucket.dtype.itemsize,):
        raise ShapeError(f"{operation}: bucket expects one axis without gaps, received {bucket.shape} with strides {bucket.strides}")
    if len(begins) != len(arrays):
        raise ShapeError(f"{operation}: begins expects {len(arrays)} numbers, one an array, received {len(begins)}")
    end = 0
    for k, (x, begin) in enumerate(zip(arrays, begins)):
        check_float(operation, bucket=bucket, array=x)
        dense = dense_strides(x.shape, x.dtype, order_of(x))
        if 0 not in x.shape and any(n != 1 and s != d for n, s, d in zip(x.shape, x.strides, dense)):
            raise ShapeError(f"{operation}: array {k} expects elements without gaps, received {x.shape} with strides {x.strides}")
        if begin < end or begin + prod(x.shape) > bucket.shape[0]:
            raise ShapeError(f"{operation}: array {k} of {prod(x.shape)} elements expects to begin at {end} or behind it and to end within "
                             f"{bucket.shape[0]}, received {begin}")
        end = begin + prod(x.shape)


@primitive(mutates=("bucket",))
def bucket_pack(bucket: Array, arrays: Arrays, begins: tuple[int, ...], scale: float) -> None:
    """The bucket takes the elements of all arrays, times `scale`."""
    _check("bucket_pack", bucket, arrays, begins)


@primitive(mutates=("arrays",))
def bucket_unpack(bucket: Array, arrays: Arrays, begins: tuple[int, ...]) -> None:
    """The arrays take their elements from the bucket."""
    _check("bucket_unpack", bucket, arrays, begins)


def _flat(backend: Backend, x: Array) -> Array:
    """A view of a dense array's elements in the order of its memory."""
    order = order_of(x)
    x = x if order is None else backend.transpose(x, order)
    return backend.reshape(x, (prod(x.shape),))


def _parts(backend: Backend, bucket: Array, arrays: Arrays, begins):
    """(the elements of each array, those of the bucket that are theirs), as views."""
    for x, begin in zip(arrays, begins):
        yield _flat(backend, x), backend.slice_view(bucket, ((begin, begin + prod(x.shape), 1),))


@bucket_pack.composed
def _pack(backend, bucket, arrays, begins, scale):
    for x, place in _parts(backend, bucket, arrays, begins):
        backend.multiply(x, scale, out=place)


@bucket_unpack.composed
def _unpack(backend, bucket, arrays, begins):
    for x, place in _parts(backend, bucket, arrays, begins):
        backend.copy(place, out=x)                      # a view of the array
