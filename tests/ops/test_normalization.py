"""Normalization: running statistics, large means, errors, NaN, empty batches, equal bits at every thread count."""

import numpy as np
import pytest

import numbanet
from numbanet.backends import get_backend
from numbanet.errors import DTypeError, ShapeError, UsageError
from numbanet.ops import normalization
from tests.cases.case import channels_last, floats


def _tensor(values, device, **options):
    return numbanet.tensor(np.asarray(values), device=device, **options)


@pytest.mark.parametrize("name, options", [("batch_norm", {"training": True}), ("instance_norm", {})])
def test_running_statistics_are_those_of_torch(backend, rng, name, options):
    torch = pytest.importorskip("torch")
    mine = [_tensor(v, backend) for v in (np.zeros(5), np.ones(5))]
    theirs = [torch.zeros(5).double(), torch.ones(5).double()]
    for momentum in (0.1, 0.3, 1.0):
        x = rng.standard_normal((4, 5, 3, 2)) * 2 + 1
        y = getattr(normalization, name)(_tensor(x, backend), *mine, momentum=momentum, **options)
        expected = getattr(torch.nn.functional, name)(torch.tensor(x), *theirs, momentum=momentum, **options)
        np.testing.assert_allclose(y.numpy(), expected.numpy(), atol=1e-12)
        for received, running in zip(mine, theirs):
            np.testing.assert_allclose(received.numpy(), running.numpy(), rtol=1e-12)
    evaluate = {"training": False} if name == "batch_norm" else {"use_input_stats": False}
    y = getattr(normalization, name)(_tensor(x, backend), *mine, **evaluate)
    expected = getattr(torch.nn.functional, name)(torch.tensor(x), *theirs, **evaluate)
    np.testing.assert_allclose(y.numpy(), expected.numpy(), atol=1e-12)


def test_an_update_of_running_statistics_raises_their_version(backend):
    mean, variance = _tensor(np.zeros(2, np.float32), backend), _tensor(np.ones(2, np.float32), backend)
    versions = mean._version, variance._version
    normalization.batch_norm(_tensor(np.ones((3, 2), np.float32), backend), mean, variance, training=True)
    assert mean._version > versions[0] and variance._version > versions[1]


@pytest.mark.parametrize("shape", [(8, 6, 24, 24), (16, 64, 28, 28), (4001, 3)])
def test_statistics_survive_a_mean_of_ten_thousand_deviations(rng, shape):
    x = floats(rng, *shape) + np.float32(1e4)
    x = channels_last(x) if len(shape) == 4 else x
    axes = (0, *range(2, len(shape)))
    _, mean, variance = get_backend("cpu").batch_norm_forward(x, None, None, 1e-5)
    np.testing.assert_allclose(mean, x.astype(float).mean(axes), rtol=1e-7)
    np.testing.assert_allclose(variance, x.astype(float).var(axes), rtol=1e-5)
    _, mean, variance = get_backend("cpu").group_norm_forward(x, 1, None, None, 1e-5)
    np.testing.assert_allclose(variance[:, 0], x.reshape(shape[0], -1).astype(float).var(1), rtol=2e-5, atol=1e-6)


def test_layer_norm_survives_a_large_mean(rng):
    x = floats(rng, 7, 1000) + np.float32(1e4)
    _, mean, variance = get_backend("cpu").layer_norm_forward(x, 1, None, None, 1e-5)
    np.testing.assert_allclose(mean, x.astype(float).mean(1), rtol=2e-7)
    np.testing.assert_allclose(variance, x.astype(float).var(1), rtol=1e-5)


def test_an_outlier_in_front_does_not_spoil_the_variance(rng):
    x = floats(rng, 4096, 2)
    x[0] = 1e4
    _, _, variance = get_backend("cpu").batch_norm_forward(x, None, None, 1e-5)
    np.testing.assert_allclose(variance, x.astype(float).var(0), rtol=1e-5)


@pytest.mark.parametrize("call, message", [
    (lambda x, c: normalization.batch_norm(x[:1, :, 0, 0], None, None, training=True), "more than 1 value per channel"),
    (lambda x, c: normalization.batch_norm(x, None, None, c, training=True), "weight expects one element for each"),
    (lambda x, c: normalization.instance_norm(x[:, :, :1, :1]), "more than 1 spatial element"),
    (lambda x, c: normalization.group_norm(x, 2), "num_groups expects a divisor of 3 channels"),
    (lambda x, c: normalization.group_norm(x[:1, :, :1, :1], 3), "more than 1 value per group"),
    (lambda x, c: normalization.layer_norm(x, (5, 5)), r"expected x to end in normalized_shape \(5, 5\)"),
    (lambda x, c: normalization.layer_norm(x, 4, c), r"weight expects normalized_shape \(4,\)"),
    (lambda x, c: normalization.local_response_norm(x, 0), "size expects a positive int"),
    (lambda x, c: normalization.local_response_norm(x[0, 0], 2), "at least 3 dimensions"),
])
def test_bad_input_is_named(backend, call, message):
    with pytest.raises(ShapeError, match=message):
        call(_tensor(np.zeros((2, 3, 5, 4), np.float32), backend), _tensor(np.zeros(2, np.float32), backend))


def test_missing_running_statistics_are_named(backend):
    x, one = _tensor(np.zeros((2, 3), np.float32), backend), _tensor(np.ones(3, np.float32), backend)
    with pytest.raises(UsageError, match="running_mean and running_var are needed"):
        normalization.batch_norm(x, None, None)
    with pytest.raises(UsageError, match="both or neither"):
        normalization.batch_norm(x, one, None, training=True)


def test_mixed_dtypes_are_refused(backend):
    x, weight = _tensor(np.zeros((2, 3), np.float32), backend), _tensor(np.zeros(3), backend)
    with pytest.raises(DTypeError, match="weight expects float32 like x, received float64"):
        normalization.batch_norm(x, None, None, weight, training=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinity_stay_in_their_channel(backend, rng, dtype):
    x = floats(rng, 5, 4, 3, 3, dtype=dtype)
    x[1, 0, 1, 1], x[2, 2, 0, 0] = np.nan, np.inf
    y = normalization.batch_norm(_tensor(x, backend), None, None, training=True).numpy()
    assert np.isnan(y[:, 0]).all() and np.isnan(y[:, 2]).any()
    assert np.isfinite(y[:, [1, 3]]).all()


@pytest.mark.parametrize("call", [
    lambda x: normalization.batch_norm(x, None, None, training=True), lambda x: normalization.group_norm(x, 2),
    lambda x: normalization.layer_norm(x, x.shape[1:]), lambda x: normalization.local_response_norm(x, 3)])
def test_empty_batches(backend, call):
    x = _tensor(np.zeros((0, 4, 3, 3), np.float32), backend, requires_grad=True)
    y = call(x)
    assert y.shape == x.shape
    y.backward(_tensor(np.zeros(y.shape, np.float32), backend))
    assert x.grad.shape == x.shape


def test_constant_channels_become_the_bias(backend):
    x = _tensor(np.full((3, 4, 5, 5), 7.0, np.float32), backend)
    bias = _tensor(np.arange(4, dtype=np.float32), backend)
    y = normalization.batch_norm(x, None, None, None, bias, True).numpy()
    np.testing.assert_array_equal(y, np.broadcast_to(np.arange(4).reshape(1, 4, 1, 1), y.shape))


def test_the_same_bits_at_every_thread_count(rng):
    from numbanet.backends.cpu import threads
    cpu, x, weight = get_backend("cpu"), channels_last(floats(rng, 6, 12, 23, 19)), floats(rng, 12)
    rows, row_weight = floats(rng, 130, 37), floats(rng, 37)

    def run():
        y, mean, variance = cpu.batch_norm_forward(x, weight, None, 1e-5)
        grouped = cpu.group_norm_forward(x, 3, weight, None, 1e-5)
        layers = cpu.layer_norm_forward(rows, 1, row_weight, None, 1e-5)
        return [y, mean, variance, *grouped, *layers, *cpu.batch_norm_backward(y, x, weight, mean, variance, 1e-5),
                *cpu.group_norm_backward(y, x, weight, *grouped[1:], 3, 1e-5),
                *cpu.layer_norm_backward(rows, rows, row_weight, *layers[1:], 1, 1e-5),
                cpu.local_response_norm_backward_input(y, x, 5, 1e-2, 0.75, 1.0)]

    before = threads.get_num_threads()
    results = []
    try:
        for count in (1, threads.maximum()):
            threads.set_num_threads(count)
            results.append([r.tobytes() for r in run()])
    finally:
        threads.set_num_threads(before)
    assert results[0] == results[1]
