"""Losses: errors, ignored labels, NaN, extreme values, probabilities as targets."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet.errors import DTypeError, IndexRangeError, ShapeError, UsageError
from numbanet.ops import loss as ops

INF, NAN = np.inf, np.nan


def _t(values, device="cpu", dtype="float32"):
    return numbanet.tensor(np.asarray(values), device=device, dtype=dtype)


def _labels(values, device="cpu"):
    return _t(values, device, "int64")


@pytest.mark.parametrize("function", [ops.cross_entropy, ops.nll_loss])
@pytest.mark.parametrize("shape, target, message", [
    ((3, 4), [0, 1, 4], r"target\[2\] is 4, expected a class from 0 to 3"),
    ((3, 4), [0, -1, 2], r"target\[1\] is -1"),
    ((1, 2, 2, 3), [[[0, 1, 1], [0, 2, 9]]], r"target\[0, 1, 1\] is 2"),
])
def test_a_label_that_is_no_class_is_named(function, shape, target, message, backend):
    with pytest.raises(IndexRangeError, match=message):
        function(_t(np.zeros(shape), backend), _labels(target, backend))


@pytest.mark.parametrize("call, error, message", [
    (lambda: ops.cross_entropy(_t([[1, 2]]), _labels([[0]])), ShapeError, r"target expects shape \(1,\)"),
    (lambda: ops.cross_entropy(_t(np.zeros((2, 3))), _labels([0])), ShapeError,
     r"expects shape \(2,\), received \(1,\)"),
    (lambda: ops.cross_entropy(_t(np.zeros((2, 0))), _labels([0, 0])), ShapeError, "at least one class"),
    (lambda: ops.cross_entropy(_t(np.zeros((2, 3))), _labels([0, 1]), _t([1.0])), ShapeError,
     r"weight expects shape \(3,\)"),
    (lambda: ops.cross_entropy(_t(np.zeros((2, 3))), _t([0, 1], dtype="bool")), DTypeError, "bool"),
    (lambda: ops.cross_entropy(_labels([[0, 1]]), _labels([0])), DTypeError, "int64"),
    (lambda: ops.cross_entropy(_t(np.zeros((2, 3))), _t([0.0, 1.0])), ShapeError, "class indices are int64"),
    (lambda: ops.cross_entropy(_t([[1, 2]]), _labels([0]), reduction="average"), UsageError, "none, mean, sum"),
    (lambda: ops.cross_entropy(_t([[1, 2]]), _labels([0]), label_smoothing=1.5), UsageError, "label_smoothing"),
    (lambda: ops.mse_loss(_t([1.0]), _labels([1])), DTypeError, "int64"),
    (lambda: ops.mse_loss(_t([1.0]), _t([1.0]), reduction="total"), UsageError, "none, mean, sum"),
    (lambda: ops.binary_cross_entropy(_t([0.5, 0.5]), _t([1.0])), ShapeError, "shape of input"),
    (lambda: ops.binary_cross_entropy_with_logits(_t([0.5, 0.5]), _t([1.0, 0]), _t([1.0, 2, 3])), ShapeError,
     "broadcast"),
    (lambda: ops.binary_cross_entropy(_t([1.5]), _t([1.0])), UsageError, "1.5.*sigmoid"),
    (lambda: ops.binary_cross_entropy(_t([-0.5, 0.5]), _t([1.0, 0.0])), UsageError, "-0.5"),
    (lambda: ops.huber_loss(_t([1.0]), _t([1.0]), delta=0), UsageError, "delta"),
    (lambda: ops.smooth_l1_loss(_t([1.0]), _t([1.0]), beta=-1), UsageError, "beta"),
])
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_all_labels_ignored(backend):
    x = _t(np.ones((2, 3)), backend).requires_grad_()
    loss = ops.cross_entropy(x, _labels([-100, -100], backend))
    assert np.isnan(loss.item())                                # 0 / 0, as in PyTorch
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.zeros((2, 3)))
    assert ops.cross_entropy(x, _labels([-100, -100], backend), reduction="sum").item() == 0


def test_empty_batch(backend):
    x = _t(np.ones((0, 3)), backend)
    assert np.isnan(ops.cross_entropy(x, _labels([], backend)).item())
    assert ops.cross_entropy(x, _labels([], backend), reduction="none").shape == (0,)
    assert np.isnan(ops.mse_loss(x, x).item()) and ops.mse_loss(x, x, reduction="sum").item() == 0


def test_one_sample_without_batch(backend):
    rows = ops.cross_entropy(_t([[1, 2, 4]], backend), _labels([1], backend))
    assert ops.cross_entropy(_t([1, 2, 4], backend), _labels(1, backend)).item() == rows.item()
    assert ops.cross_entropy(_t([1, 2, 4], backend), _labels(1, backend), reduction="none").shape == ()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits(dtype, backend):
    x = _t([[1e4, -1e4, 0], [0, -INF, 0], [-200, -200.5, -300]], backend, dtype).requires_grad_()
    losses = ops.cross_entropy(x, _labels([1, 0, 0], backend), reduction="none")
    np.testing.assert_allclose(losses.detach().numpy(), [2e4, np.log(2), np.log1p(np.exp(-0.5))], rtol=1e-6)
    losses.backward(_t([1, 1, 1], backend, dtype))
    np.testing.assert_allclose(x.grad.numpy()[:2], [[1, -1, 0], [-0.5, 0, 0.5]], atol=1e-6)


def test_nan_stays_in_its_row(backend):
    x = np.zeros((3, 20), np.float32)
    x[1, 17] = NAN
    losses = ops.cross_entropy(_t(x, backend), _labels([0, 0, 0], backend), reduction="none").numpy()
    np.testing.assert_allclose(losses, [np.log(20), NAN, np.log(20)], rtol=1e-6)


def test_many_rows_of_many_classes_agree_with_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    x, target = 5 * rng.standard_normal((300, 1000)), rng.integers(0, 1000, 300)
    mine = _t(x).requires_grad_()
    ops.cross_entropy(mine, _labels(target), label_smoothing=0.1).backward()
    theirs = torch.tensor(x, requires_grad=True)
    torch.nn.functional.cross_entropy(theirs, torch.tensor(target), label_smoothing=0.1).backward()
    np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), atol=1e-8)


@pytest.mark.parametrize("options", [{}, {"reduction": "sum", "label_smoothing": 0.2}, {"reduction": "none"}])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 2)])
def test_probabilities_as_target_agree_with_torch(options, shape, backend):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    x, target, weight = rng.standard_normal(shape), rng.random(shape), rng.random(3)
    mine = [_t(a, backend, "float64") for a in (x, target, weight)]
    theirs = [torch.tensor(a) for a in (x, target, weight)]
    for t in (*mine[:2], *theirs[:2]):
        t.requires_grad_()
    received, expected = ops.cross_entropy(*mine, **options), torch.nn.functional.cross_entropy(*theirs, **options)
    np.testing.assert_allclose(received.detach().numpy(), expected.detach().numpy(), rtol=1e-12)
    received.sum().backward()
    expected.sum().backward()
    for t, u in zip(mine[:2], theirs[:2]):
        np.testing.assert_allclose(t.grad.numpy(), u.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("weight, pos_weight", [((5,), None), (None, (5,)), ((3, 1), (5,)), ((3, 5), (1,))])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_weights_of_binary_cross_entropy_broadcast(weight, pos_weight, reduction, backend):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    x, target = rng.standard_normal((3, 5)), rng.random((3, 5))
    given = [None if s is None else 0.5 + rng.random(s) for s in (weight, pos_weight)]
    mine, theirs = _t(x, backend, "float64").requires_grad_(), torch.tensor(x, requires_grad=True)
    w, v = (None if a is None else _t(a, backend, "float64") for a in given)
    received = ops.binary_cross_entropy_with_logits(mine, _t(target, backend, "float64"), w, pos_weight=v,
                                                    reduction=reduction)
    w, v = (None if a is None else torch.tensor(a) for a in given)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(theirs, torch.tensor(target), w, pos_weight=v,
                                                                    reduction=reduction)
    np.testing.assert_allclose(received.detach().numpy(), expected.detach().numpy(), rtol=1e-12)
    seed = np.asarray(rng.standard_normal(received.shape))
    received.backward(_t(seed, backend, "float64"))
    expected.backward(torch.tensor(seed))
    np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_element_weights_agree_with_torch(name, reduction, backend):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    x, target, weight = (rng.standard_normal((3, 5)) for _ in range(3))
    received = getattr(ops, name)(*(_t(a, backend, "float64") for a in (x, target)), reduction=reduction,
                                  weight=_t(weight, backend, "float64"))
    expected = getattr(torch.nn.functional, name)(torch.tensor(x), torch.tensor(target), reduction=reduction,
                                                  weight=torch.tensor(weight))
    np.testing.assert_allclose(received.numpy(), expected.numpy(), rtol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_elements(dtype, backend):
    x = _t([1000.0, -1000.0, 0.0, INF, NAN], backend, dtype).requires_grad_()
    zeros = _t([0.0] * 5, backend, dtype)
    losses = ops.binary_cross_entropy_with_logits(x, zeros, reduction="none")
    np.testing.assert_allclose(losses.detach().numpy(), [1000, 0, np.log(2), INF, NAN], rtol=1e-6)
    losses.backward(_t([1.0] * 5, backend, dtype))
    np.testing.assert_allclose(x.grad.numpy(), [1, 0, 0.5, 1, NAN], atol=1e-7)
    certain = ops.binary_cross_entropy(_t([0, 1, 0, NAN], backend, dtype), _t([1, 0, 0, 0], backend, dtype),
                                       reduction="none")
    np.testing.assert_array_equal(certain.numpy(), [100, 100, 0, NAN])
    divergence = ops.kl_div(_t([1, 1, 1], backend, dtype), _t([0, 0.5, -1], backend, dtype), reduction="none")
    np.testing.assert_allclose(divergence.numpy(), [0, 0.5 * np.log(0.5) - 0.5, NAN], rtol=1e-6)


def test_broadcasting_warns(backend):
    x, target = _t([[1.0], [2.0]], backend).requires_grad_(), _t([1.0, 3.0], backend)
    with pytest.warns(UserWarning, match="broadcast"):
        loss = ops.mse_loss(x, target, reduction="sum")
    assert loss.item() == 0 + 4 + 1 + 1
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[-4], [0]])


def test_the_number_of_threads_changes_no_bit():
    from numbanet.backends.cpu import threads
    rng = np.random.default_rng(6)
    x, target = _t(rng.standard_normal((700, 100))), _labels(rng.integers(0, 100, 700))
    other = _t(rng.random((700, 100)))
    calls = [lambda: ops.cross_entropy(x, target), lambda: ops.mse_loss(x, other, reduction="sum"),
             lambda: ops.binary_cross_entropy_with_logits(x, other)]
    count, results = threads.get_num_threads(), []
    try:
        for n in {1, threads.maximum()}:
            threads.set_num_threads(n)
            results.append([call().item() for call in calls])
    finally:
        threads.set_num_threads(count)
    assert results[0] == results[-1]
