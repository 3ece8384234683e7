"""Pooling: errors, indices, NaN and infinities, empty batches, memory layouts, equal bits at every thread count."""

import numpy as np
import pytest

import numbanet
from numbanet.backends import get_backend
from numbanet.errors import DTypeError, ShapeError
from numbanet.geometry import pool_geometry
from numbanet.ops import pooling
from tests.cases.case import channels_last, floats, integers, strided


def _tensor(values, device, **options):
    return numbanet.tensor(np.asarray(values), device=device, **options)


@pytest.mark.parametrize("call, message", [
    (lambda x: pooling.max_pool2d(x.reshape(2, 45), 2), r"max_pool2d: expected x \(N, C, H, W\) or \(C, H, W\)"),
    (lambda x: pooling.max_pool2d(x, 7), "max_pool2d: the output would be of size"),
    (lambda x: pooling.max_pool2d(x, 2, padding=2), "max_pool2d: padding expects at most half"),
    (lambda x: pooling.max_pool2d(x, (2, 2, 2)), "max_pool2d: kernel_size expects an int or 2 ints"),
    (lambda x: pooling.avg_pool2d(x, 2, 0), "avg_pool2d: stride expects values of at least 1"),
    (lambda x: pooling.avg_pool2d(x, 2, divisor_override=0), "avg_pool2d: divisor_override expects an int other"),
    (lambda x: pooling.avg_pool1d(x, 2), r"avg_pool1d: expected x \(N, C, L\)"),
    (lambda x: pooling.max_pool1d(x.reshape(3, 6, 5), (2, 2)), "max_pool1d: expected one int"),
    (lambda x: pooling.adaptive_avg_pool2d(x, 0), "adaptive_avg_pool2d: output_size expects a positive int"),
    (lambda x: pooling.adaptive_max_pool2d(x, (1, 2, 3)), "adaptive_max_pool2d: output_size expects .* or 2"),
    (lambda x: pooling.max_pool3d(x.reshape(1, 3, 3, 2, 5), (2, 2)), "max_pool3d: expected an int or 3 ints"),
])
def test_bad_input_is_named(backend, call, message):
    with pytest.raises(ShapeError, match=message):
        call(_tensor(np.zeros((1, 3, 6, 5), np.float32), backend))


def test_integers_are_refused(backend):
    with pytest.raises(DTypeError, match="max_pool2d: x expects float32 or float64, received int64"):
        pooling.max_pool2d(_tensor(np.zeros((1, 1, 2, 2), np.int64), backend), 2)


@pytest.mark.parametrize("arguments", [(2,), (3, 2, 1), ((3, 2), (2, 1), 1, (2, 3), True)])
def test_indices_are_those_of_torch(backend, rng, arguments):
    torch = pytest.importorskip("torch")
    x = integers(rng, 2, 5, 9, 8)                                 # many ties
    y, indices = pooling.max_pool2d(_tensor(x, backend), *arguments, return_indices=True)
    expected, positions = torch.nn.functional.max_pool2d(torch.tensor(x), *arguments, return_indices=True)
    np.testing.assert_array_equal(y.numpy(), expected.numpy())
    np.testing.assert_array_equal(indices.numpy(), positions.numpy())
    assert indices.dtype == np.int64


@pytest.mark.parametrize("arguments", [(2,), ((3, 2, 2), (2, 1, 2), 1, (1, 2, 1), True)])
def test_indices_in_three_dimensions_are_those_of_torch(backend, rng, arguments):
    torch = pytest.importorskip("torch")
    x = integers(rng, 2, 3, 5, 6, 4)
    received = pooling.max_pool3d(_tensor(x, backend), *arguments, return_indices=True)
    for r, e in zip(received, torch.nn.functional.max_pool3d(torch.tensor(x), *arguments, return_indices=True), strict=True):
        np.testing.assert_array_equal(r.numpy(), e.numpy())


@pytest.mark.parametrize("axes, shape, size", [(1, (3, 9), 4), (2, (2, 3, 7, 5), (3, 2)), (3, (3, 4, 7, 5), (3, 1, 2))])
def test_adaptive_indices_are_those_of_torch(backend, rng, axes, shape, size):
    torch = pytest.importorskip("torch")
    x = integers(rng, *shape)
    name = f"adaptive_max_pool{axes}d"
    y, indices = getattr(pooling, name)(_tensor(x, backend), size, return_indices=True)
    expected, positions = getattr(torch.nn.functional, name)(torch.tensor(x), size, return_indices=True)
    np.testing.assert_array_equal(y.numpy(), expected.numpy())
    np.testing.assert_array_equal(indices.numpy(), positions.numpy())


def _pooled(backend, x, geometry):
    """(y, argmax) of max pooling."""
    backend = get_backend(backend)
    return [backend.to_numpy(a) for a in backend.max_pool2d_forward(backend.from_numpy(x), geometry)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_is_the_largest_and_the_first_one_counts(backend, dtype):
    x = np.zeros((1, 1, 2, 4), dtype)
    x[0, 0, :, :2] = [[np.inf, np.nan], [np.nan, 5]]
    y, argmax = _pooled(backend, x, pool_geometry((2, 4), 2))
    assert np.isnan(y[0, 0, 0, 0]) and y[0, 0, 0, 1] == 0
    assert argmax.ravel().tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_window_of_minus_infinity_has_a_position_and_one_outside_has_none(backend, dtype):
    x = np.full((1, 17, 2, 4), -np.inf, dtype)
    y, argmax = _pooled(backend, x, pool_geometry((2, 4), 2))
    assert (y == -np.inf).all() and (argmax == [[0, 2]]).all()
    outside = pool_geometry((2, 4), (2, 1), 1, (1, 0), (3, 1))    # rows -1 and 2 of two
    y, argmax = _pooled(backend, np.zeros_like(x), outside)
    assert (y == -np.inf).all() and (argmax == -1).all()
    backend = get_backend(backend)
    grad_x = backend.max_pool2d_backward_input(backend.from_numpy(y), backend.from_numpy(argmax), outside)
    assert (backend.to_numpy(grad_x) == 0).all()


def test_infinities_in_averages(backend):
    x = np.array([[np.inf, 1, -np.inf, 2], [0, 0, np.inf, 3]], np.float32).reshape(1, 1, 2, 4)
    y = pooling.avg_pool2d(_tensor(x, backend), (2, 1)).numpy().ravel()
    assert y[0] == np.inf and y[1] == 0.5 and np.isnan(y[2]) and y[3] == 2.5


@pytest.mark.parametrize("function, argument", [
    (pooling.max_pool2d, 2), (pooling.avg_pool2d, 2), (pooling.adaptive_max_pool2d, 2),
    (pooling.adaptive_avg_pool2d, 1)])
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
def test_empty_batches(backend, function, argument, shape):
    x = _tensor(np.zeros(shape, np.float32), backend, requires_grad=True)
    y = function(x, argument)
    assert y.shape == (*shape[:2], *((1, 1) if argument == 1 else (2, 2)))
    y.backward(_tensor(np.zeros(y.shape, np.float32), backend))
    assert x.grad.shape == shape


@pytest.mark.parametrize("layout", [
    channels_last, strided, lambda x: x, lambda x: x[:, 1:4], lambda x: channels_last(x)[:, 1:4]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_strides_of_inputs_and_outputs(rng, layout, dtype):
    cpu, reference = get_backend("cpu"), get_backend("reference")
    x = layout(integers(rng, 2, 5, 7, 6, dtype=dtype))
    geometry = pool_geometry((7, 6), 3, 2, 1)
    y, argmax = reference.max_pool2d_forward(x, geometry)
    out = strided(np.full(y.shape, np.nan, dtype)), strided(np.full(y.shape, 99, np.int32))
    cpu.max_pool2d_forward(x, geometry, out=out)
    np.testing.assert_array_equal(out[0], y)
    np.testing.assert_array_equal(out[1], argmax)
    grad_x = strided(np.full(x.shape, np.nan, dtype))
    cpu.max_pool2d_backward_input(layout(y) if layout in (channels_last, strided) else y, argmax, geometry, out=grad_x)
    np.testing.assert_array_equal(grad_x, reference.max_pool2d_backward_input(y, argmax, geometry))
    mean = strided(np.full((2, x.shape[1], 2, 2), np.nan, dtype))
    cpu.adaptive_avg_pool2d_forward(x, (2, 2), out=mean)
    np.testing.assert_allclose(mean, reference.adaptive_avg_pool2d_forward(x, (2, 2)), rtol=1e-6)


def test_long_averages_keep_their_accuracy(rng):
    x = channels_last(floats(rng, 1, 3, 112, 112)) + np.float32(100)
    y = get_backend("cpu").adaptive_avg_pool2d_forward(x, (1, 1))
    np.testing.assert_allclose(y[0, :, 0, 0], x.astype(float).mean((2, 3))[0], rtol=1e-6)


def test_the_same_bits_at_every_thread_count(rng):
    from numbanet.backends.cpu import threads
    cpu, geometry = get_backend("cpu"), pool_geometry((15, 14), 3, 2, 1)
    x = channels_last(floats(rng, 3, 21, 15, 14))

    def run():
        y, argmax = cpu.max_pool2d_forward(x, geometry)
        mean = cpu.avg_pool2d_forward(x, geometry, True, None)
        return [y, argmax, mean, cpu.max_pool2d_backward_input(y, argmax, geometry),
                cpu.avg_pool2d_backward_input(y, geometry, False, None), cpu.adaptive_avg_pool2d_forward(x, (1, 1))]

    before = threads.get_num_threads()
    results = []
    try:
        for count in (1, threads.maximum()):
            threads.set_num_threads(count)
            results.append([r.tobytes() for r in run()])
    finally:
        threads.set_num_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("channels", [1, 6, 16, 20])
def test_pairs_of_pixels_with_nan_and_infinities(rng, channels):
    """The kernel for windows of 2 x 2 agrees with the reference, and writes nothing outside of its output."""
    geometry = pool_geometry((8, 14), 2)
    values = rng.choice([np.nan, np.inf, -np.inf, 1.0, 2.0], (3, 8, 14, channels), p=[0.1, 0.1, 0.1, 0.3, 0.4]).astype(np.float32)
    x = values.transpose(0, 3, 1, 2)
    cpu, reference = get_backend("cpu"), get_backend("reference")
    frame = [np.full((3, 4, 9, channels), 7, dtype) for dtype in (np.float32, np.int32)]
    out = tuple(a[:, :, 1:8].transpose(0, 3, 1, 2) for a in frame)
    cpu.max_pool2d_forward(x, geometry, out=out)
    for mine, theirs in zip(out, reference.max_pool2d_forward(x, geometry)):
        np.testing.assert_array_equal(mine, theirs)
    assert all((a[:, :, [0, 8]] == 7).all() for a in frame)
    gradient = np.full((3, 8, 16, channels), 7, np.float32)
    cpu.max_pool2d_backward_input(out[0], out[1], geometry, out=gradient[:, :, 1:15].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(gradient[:, :, 1:15].transpose(0, 3, 1, 2), reference.max_pool2d_backward_input(*out, geometry))
    assert (gradient[:, :, [0, 15]] == 7).all()
