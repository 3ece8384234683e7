"""Dropout: masks, scales, gradients, the same mask everywhere."""

import numpy as np
import pytest

import numbanet
from numbanet.errors import AutogradError, ShapeError, UsageError
from numbanet.ops import dropout as ops
from numbanet.random import Generator
from tests.cases.case import channels_last


def _tensor(values, backend, **options):
    return numbanet.tensor(np.asarray(values, np.float32), device=backend, **options)


def test_the_mask_is_the_same_on_every_backend_and_in_every_memory_order(rng):
    values = rng.standard_normal((4, 18, 7, 5)).astype(np.float32)
    masks = [ops.dropout(numbanet.from_numpy(layout(values), device=device), 0.3, generator=Generator(9)).numpy()
             for device in ("cpu", "reference") for layout in (np.asarray, channels_last)]
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


def test_dropped_and_scaled(backend):
    y = ops.dropout(_tensor(np.ones(100_000), backend), 0.3, generator=Generator(1)).numpy()
    assert set(np.unique(y)) == {0, np.float32(1 / 0.7)}
    assert abs((y == 0).mean() - 0.3) < 0.008


def test_each_call_drops_others(backend):
    x = _tensor(np.ones(64), backend)
    assert ops.dropout(x).tolist() != ops.dropout(x).tolist()
    numbanet.random.manual_seed(4)
    first = ops.dropout(x).tolist()
    numbanet.random.manual_seed(4)
    assert ops.dropout(x).tolist() == first


@pytest.mark.parametrize("function", [ops.dropout, ops.dropout2d, ops.alpha_dropout])
def test_nothing_happens_outside_of_training_or_with_p_0(function, backend):
    x = _tensor(np.ones((2, 3, 2, 2)), backend)
    assert function(x, 0.5, training=False) is x and function(x, 0.0, training=True) is x


def test_p_1_drops_all(backend):
    x = _tensor([[1.0, -2.0]], backend, requires_grad=True)
    y = ops.dropout(x, 1.0)
    y.backward(_tensor([[3.0, 4.0]], backend))
    assert y.tolist() == [[0, 0]] and x.grad.tolist() == [[0, 0]]


def test_a_nan_is_never_hidden(backend):
    y = ops.dropout(_tensor(np.full(64, np.nan), backend), 0.5).numpy()
    assert np.isnan(y).all()


def test_the_gradient_has_the_mask_of_the_forward_pass(backend):
    x = _tensor(np.ones((8, 9)), backend, requires_grad=True)
    y = ops.dropout(x, 0.4)
    y.backward(_tensor(np.full((8, 9), 2.0), backend))
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy() * 2)


@pytest.mark.parametrize("function, shape", [
    (ops.dropout1d, (20, 30, 4)), (ops.dropout2d, (20, 30, 3, 2)), (ops.dropout3d, (20, 30, 2, 2, 2)),
    (ops.dropout1d, (600, 4)), (ops.dropout2d, (600, 3, 2)), (ops.dropout3d, (600, 2, 2, 2))])
def test_whole_channels_are_dropped(function, shape, backend):
    y = function(_tensor(np.ones(shape), backend), 0.25).numpy()
    channels = y.reshape(600, -1)
    assert (channels == channels[:, :1]).all() and set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert abs((channels[:, 0] == 0).mean() - 0.25) < 0.09


def test_in_place(backend):
    x = _tensor(np.ones(32), backend)
    assert ops.dropout(x, 0.5, inplace=True) is x and set(x.tolist()) == {0, 2}
    leaf = _tensor(np.ones(32), backend, requires_grad=True)
    with pytest.raises(AutogradError, match="leaf"):
        ops.dropout(leaf, 0.5, inplace=True)
    y = leaf.clone()
    ops.dropout(y, 0.5, inplace=True).backward(_tensor(np.ones(32), backend))
    np.testing.assert_array_equal(leaf.grad.numpy(), y.detach().numpy())


@pytest.mark.parametrize("function", [ops.alpha_dropout, ops.feature_alpha_dropout])
def test_alpha_dropout_keeps_mean_and_deviation(function, backend, rng):
    x = _tensor(rng.standard_normal((40, 2500)), backend)
    y = function(x, 0.2, training=True).numpy()
    assert abs(y.mean()) < 0.03 and abs(y.std() - 1) < 0.03
    dropped = np.isclose(y, np.float32(-1.7580993 * (0.8 * (1 + 0.2 * 1.7580993 ** 2)) ** -0.5 * 0.8), atol=1e-5)
    assert abs(dropped.mean() - 0.2) < 0.01
    assert function(x, 1.0, training=True).numpy().max() == 0


@pytest.mark.parametrize("call, error, words", [
    (lambda x: ops.dropout(x, 1.5), UsageError, "0 to 1"),
    (lambda x: ops.dropout(x, -0.1, training=False), UsageError, "0 to 1"),
    (lambda x: ops.dropout2d(x, 0.5), ShapeError, "3 or 4 dimensions"),
])
def test_errors(call, error, words, backend):
    with pytest.raises(error, match=words):
        call(_tensor(np.ones((2, 3)), backend))
