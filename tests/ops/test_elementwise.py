"""Elementwise operations beyond the gradient cases: promotion, operators, corner cases, errors."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest

import numbanet
from numbanet.errors import BackendError, DTypeError, ShapeError, UsageError
from numbanet.ops import elementwise, functions

torch = pytest.importorskip("torch")
DTYPES = ("float32", "float64", "float16", "int64", "int32", "uint8", "bool")
OPERATORS = (operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow, operator.lt,
             operator.eq, operator.ge)


def _both(values, backend):
    return numbanet.tensor(values, device=backend), torch.tensor(values)


def _assert_same(received, expected):
    assert str(received.dtype) == str(expected.dtype).removeprefix("torch.")
    assert received.shape == tuple(expected.shape)
    np.testing.assert_allclose(received.numpy().astype(np.float64), expected.numpy().astype(np.float64), rtol=1e-3 if
                               received.dtype == np.float16 else 1e-6)


@pytest.mark.parametrize("function", OPERATORS, ids=lambda f: f.__name__)
def test_promotion_is_that_of_torch(function, backend):
    rng = np.random.default_rng(0)
    for first, second in itertools.product(DTYPES, DTYPES):
        a, ta = _both(rng.integers(1, 4, (2, 3)).astype(first), backend)
        b, tb = _both(rng.integers(1, 4, 3).astype(second), backend)
        zero, tzero = _both(np.array(2).astype(second), backend)
        try:
            expected = function(ta, tb), function(ta, tzero)
        except (RuntimeError, NotImplementedError):
            continue                        # booleans, which torch does not subtract, divide with remainder or raise
        _assert_same(function(a, b), expected[0])
        _assert_same(function(a, zero), expected[1])


@pytest.mark.parametrize("function", OPERATORS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("scalar", [2, 2.5, True])
def test_scalars_are_weak_on_both_sides(function, scalar, backend):
    for dtype in ("float32", "float64", "int64", "uint8"):
        x, tx = _both(np.array([1, 2, 3]).astype(dtype), backend)
        if scalar is True and function is operator.sub:
            continue                        # torch does not subtract booleans, not even from numbers
        _assert_same(function(x, scalar), function(tx, scalar))
        _assert_same(function(scalar, x), function(scalar, tx))


def test_numpy_operands(backend):
    x = numbanet.tensor([1.0, 2.0], device=backend)
    for y in (x + np.float64(2), np.float64(2) + x, x + np.array([2, 2], np.float32), np.array([2, 2], np.float32) + x):
        assert isinstance(y, numbanet.Tensor) and y.dtype == np.float32
        np.testing.assert_array_equal(y.numpy(), [3, 4])
    with pytest.raises(TypeError):
        x + "2"


def test_division_follows_ieee_and_python(backend):
    x, tx = _both(np.array([-7.5, 7.5, 0.0, -0.0, np.inf, np.nan], np.float32), backend)
    for divisor in (2.0, -2.0, 0.0):
        for name in ("true_divide", "floor_divide", "remainder", "fmod"):
            np.testing.assert_array_equal(getattr(elementwise, name)(x, divisor).numpy(), getattr(torch, name)(tx, divisor).numpy())
    i, ti = _both(np.array([-7, 7]), backend)
    for mode in ("floor", "trunc"):
        np.testing.assert_array_equal(elementwise.div(i, 2, rounding_mode=mode).numpy(), torch.div(ti, 2, rounding_mode=mode).numpy())
    with pytest.raises(UsageError, match="divided by zero"):
        i // 0
    with pytest.raises(UsageError, match="power"):
        i ** -1
    with pytest.raises(UsageError, match="rounding_mode"):
        elementwise.div(i, 2, rounding_mode="up")


def test_nan_propagates_through_extrema(backend):
    a = numbanet.tensor([np.nan, 1.0, np.nan], device=backend)
    b = numbanet.tensor([1.0, np.nan, np.nan], device=backend)
    assert elementwise.maximum(a, b).isnan().all().item() and elementwise.minimum(a, b).isnan().all().item()
    assert a.clamp(0, 1).isnan().tolist() == [True, False, True]


def test_ties_share_the_gradient(backend):
    a = numbanet.tensor([1.0, 2.0], device=backend, requires_grad=True)
    b = numbanet.tensor([1.0, 1.0], device=backend, requires_grad=True)
    elementwise.maximum(a, b).sum().backward()
    assert a.grad.tolist() == [0.5, 1.0] and b.grad.tolist() == [0.5, 0.0]


def test_power_at_zero(backend):
    x, tx = (t.requires_grad_() for t in _both(np.array([0.0, 2.0, -1.0]), backend))
    for exponent in (0, 1, 2, 3.0, 0.5):
        (x ** exponent).sum().backward()
        (tx ** exponent).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), tx.grad.numpy())
        x.grad = tx.grad = None
    base, tbase = _both(np.array([0.0, 0.0, 2.0]), backend)
    e, te = (t.requires_grad_() for t in _both(np.array([0.0, 2.0, 3.0]), backend))
    (base ** e).sum().backward()
    (tbase ** te).sum().backward()
    np.testing.assert_allclose(e.grad.numpy(), te.grad.numpy())


def test_gradient_keeps_dtype_and_shape_of_the_operand(backend):
    a = numbanet.tensor(np.ones((3, 1), np.float32), device=backend, requires_grad=True)
    b = numbanet.tensor(np.ones((2, 1, 4)), device=backend, requires_grad=True)
    (a * b).sum().backward()
    assert a.grad.dtype == np.float32 and a.grad.shape == (3, 1) and b.grad.dtype == np.float64 and b.grad.shape == (2, 1, 4)


def test_logic_and_comparison(backend):
    a, ta = _both(np.array([True, True, False]), backend)
    b, tb = _both(np.array([True, False, False]), backend)
    for function in (operator.and_, operator.or_, operator.xor):
        np.testing.assert_array_equal(function(a, b).numpy(), function(ta, tb).numpy())
    assert (~a).tolist() == [False, False, True]
    with pytest.raises(TypeError, match="booleans"):
        numbanet.tensor([1], device=backend) & a[:1]
    assert (numbanet.tensor(np.array([200], np.uint8), device=backend) == 456).tolist() == [False]
    assert (a == None) is False and (a != "x") is True      # noqa: E711  as for any object that knows nothing of the other


def test_conversion(backend):
    x = numbanet.tensor([0.0, 1.7, -1.7], device=backend)
    assert x.long().tolist() == [0, 1, -1] and x.bool().tolist() == [False, True, True]
    assert x.to(numbanet.float32) is x and x.to(x.device) is x and x.to(x, copy=True) is not x
    assert x.half().dtype == np.float16 and x.bfloat16().dtype.name == "bfloat16" and x.to("float64").dtype == np.float64
    other = numbanet.tensor(np.ones(1, np.int64), device="reference")
    moved = x.to(other)
    assert moved.device == "reference" and moved.dtype == np.int64
    copied = x.to("reference" if backend == "cpu" else "cpu")
    copied.add_(1)
    assert x.tolist() == pytest.approx([0.0, 1.7, -1.7])
    with pytest.raises(BackendError, match="one device"):
        x + copied


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_floats(dtype, backend):
    x = numbanet.tensor([1.0, 2.0], device=backend).to(dtype)
    y = (x * 2 + x).exp().sqrt() - x.abs()
    assert y.dtype.name == dtype
    np.testing.assert_allclose(y.to("float32").numpy(), np.exp([1.5, 3.0]) - [1, 2], rtol=2e-2)


@pytest.mark.parametrize("name", functions.__all__)
def test_functions_of_integers_and_empty_tensors(name, backend):
    theirs = getattr(torch, name)
    x, tx = _both(np.array([1, 2, 3]), backend)
    _assert_same(getattr(functions, name)(x), theirs(tx))
    empty, tempty = _both(np.zeros((0, 2), np.float32), backend)
    _assert_same(getattr(functions, name)(empty), theirs(tempty))


def test_round_to_decimals(backend):
    x, tx = _both(np.array([0.5, 1.5, 2.345, -2.5], np.float32), backend)
    _assert_same(x.round(), tx.round())
    _assert_same(x.round(decimals=2), tx.round(decimals=2))


def test_errors(backend):
    x = numbanet.tensor(np.ones((2, 3), np.float32), device=backend)
    with pytest.raises(ShapeError, match=r"add: shapes \(2, 3\) and \(2,\)"):
        elementwise.add(x, x[:, 0])
    with pytest.raises(DTypeError, match="subtract"):
        elementwise.sub(x > 0, x > 0)
    with pytest.raises(DTypeError, match="negative.*logical_not"):
        functions.neg(x > 0)
    with pytest.raises(UsageError, match="clamp"):
        x.clamp()
    with pytest.raises(DTypeError, match="where: condition"):
        elementwise.where(x, 1.0, 2.0)
    with pytest.raises(ShapeError, match="masked_fill"):
        x.masked_fill(x > 0, x)
