"""Matrix products and the linear layer: errors and edges."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet.backends import get_backend
from numbanet.errors import DTypeError, ShapeError
from numbanet.ops import linear as ops


def _t(*shape, dtype="float32", device="cpu"):
    return numbanet.tensor(np.ones(shape), dtype=dtype, device=device)


@pytest.mark.parametrize("call, message", [
    (lambda: ops.linear(_t(2, 3), _t(4, 5)), r"\(\.\.\., 5\), received \(2, 3\)"),
    (lambda: ops.linear(_t(2, 5), _t(5)), r"weight \(O, I\)"),
    (lambda: ops.linear(_t(), _t(4, 5)), "linear"),
    (lambda: ops.linear(_t(2, 5), _t(4, 5), _t(5)), r"bias expects shape \(4,\)"),
    (lambda: _t(2, 3) @ _t(4, 3), r"\(2, 3\) and \(4, 3\)"),
    (lambda: _t(3) @ _t(4, 3), r"\(3,\) and \(4, 3\)"),
    (lambda: _t() @ _t(3), "at least one dimension"),
    (lambda: _t(2, 3, 4) @ _t(3, 4, 5), "broadcast"),
    (lambda: ops.mm(_t(2, 3, 4), _t(4, 5)), "2 and 2 dimensions"),
    (lambda: ops.bmm(_t(2, 3, 4), _t(1, 4, 5)), "equal batch sizes"),
    (lambda: ops.mv(_t(2, 3), _t(3, 1)), "2 and 1 dimensions"),
    (lambda: ops.dot(_t(3), _t(4)), r"\(3,\) and \(4,\)"),
    (lambda: ops.inner(_t(2, 3), _t(2, 4)), "last axes"),
])
def test_shapes_that_do_not_fit(call, message):
    with pytest.raises(ShapeError, match=message):
        call()


def test_dtypes_that_do_not_fit():
    with pytest.raises(DTypeError, match="float32"):
        ops.linear(_t(2, 5), _t(4, 5, dtype="float64"))
    with pytest.raises(DTypeError, match="int64"):
        _t(2, 3, dtype="int64") @ _t(3, 2, dtype="int64")


@pytest.mark.parametrize("shapes", [((0, 5), (4, 5)), ((2, 0, 5), (4, 5)), ((3, 0), (4, 0)), ((3, 5), (0, 5))])
def test_empty_operands_have_empty_or_zero_gradients(shapes, backend):
    x, weight = (_t(*s, device=backend).requires_grad_() for s in shapes)
    y = ops.linear(x, weight)
    assert y.shape == (*shapes[0][:-1], shapes[1][0])
    y.backward(numbanet.tensor(np.ones(y.shape), dtype="float32", device=backend))
    assert x.grad.shape == x.shape and weight.grad.shape == weight.shape
    np.testing.assert_array_equal(weight.grad.numpy(), np.zeros(shapes[1]))


def test_nan_and_infinity_stay_in_their_row(backend):
    x = np.ones((40, 33), np.float32)
    x[3, 5], x[7, 2] = np.nan, np.inf
    y = ops.linear(numbanet.tensor(x, device=backend), _t(50, 33, device=backend)).numpy()
    assert np.isnan(y[3]).all() and np.isposinf(y[7]).all()
    assert (np.delete(y, [3, 7], axis=0) == 33).all()


def test_frozen_operands_get_no_gradient(backend):
    x, weight = _t(2, 5, device=backend), _t(4, 5, device=backend).requires_grad_()
    ops.linear(x, weight, _t(4, device=backend)).backward(_t(2, 4, device=backend))
    assert x.grad is None
    np.testing.assert_array_equal(weight.grad.numpy(), np.full((4, 5), 2))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_out_of_any_strides_is_filled(order, dtype):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-4, 5, s).astype(dtype) for s in ((2, 1, 19, 23), (3, 23, 35)))
    for x, y in ((a, b), (a, b[0]), (a[0, 0], b[0])):
        expected = x @ y
        out = np.full(expected.shape, np.nan, dtype, order)
        get_backend("cpu").matmul(x, y, out=out)
        np.testing.assert_array_equal(out, expected)
        gaps = np.full([2 * n for n in expected.shape], np.nan, dtype)[tuple(slice(None, None,
                                                                                   2) for _ in expected.shape)]
        get_backend("cpu").matmul(x, y, out=gaps)
        np.testing.assert_array_equal(gaps, expected)


def test_products_agree_with_torch_in_float32():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    x, weight, bias = (rng.standard_normal(s).astype(np.float32) for s in ((64, 400), (120, 400), (120,)))
    y = ops.linear(*(numbanet.tensor(a) for a in (x, weight, bias))).numpy()
    expected = torch.nn.functional.linear(*(torch.tensor(a.astype(np.float64)) for a in (x, weight, bias))).numpy()
    np.testing.assert_allclose(y, expected, atol=2e-4)
