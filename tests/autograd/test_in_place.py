"""In-place changes: PyTorch's rules, values and gradients, and errors where the tape could not follow."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet
from numbanet.errors import AutogradError, DTypeError, ShapeError
from numbanet.ops.activation import relu, silu

torch = pytest.importorskip("torch")


def _leaf(backend, shape=(3, 4), dtype=np.float32):
    return numbanet.tensor(np.random.default_rng(3).uniform(0.5, 2, shape).astype(dtype), device=backend, requires_grad=True)


CHANGES = {
    "add": lambda h, w: h.add_(w, alpha=2), "sub": lambda h, w: h.sub_(w), "mul": lambda h, w: h.mul_(w), "div": lambda h, w: h.div_(w),
    "scalar": lambda h, w: h.mul_(3).add_(1).div_(2).sub_(w), "operators": lambda h, w: _operators(h, w),
    "itself": lambda h, w: h.add_(h) * w, "exp": lambda h, w: h.exp_() * w, "sqrt": lambda h, w: h.sqrt_() * w,
    "square": lambda h, w: h.square_() * w, "log": lambda h, w: h.log_() * w, "abs": lambda h, w: h.abs_() * w,
    "pow": lambda h, w: h.pow_(3) * w, "clamp": lambda h, w: h.clamp_(0.8, 1.6) * w, "neg": lambda h, w: h.neg_() * w,
    "masked_fill": lambda h, w: h.masked_fill_(h.detach() > 1, 5.0) * w, "sigmoid": lambda h, w: h.sigmoid_() * w,
    "relu": lambda h, w: h.sub_(1).relu_() * w, "fill": lambda h, w: h.fill_(2) * w, "zero": lambda h, w: h.zero_() + w,
    "copy": lambda h, w: h.copy_(w) * w, "reciprocal": lambda h, w: h.reciprocal_() * w, "rsqrt": lambda h, w: h.rsqrt_() * w,
    "tanh": lambda h, w: h.tanh_() * w, "floor": lambda h, w: h.floor_() * w, "overlap": lambda h, w: _overlap(h) * w,
}


def _operators(h, w):
    h += w
    h *= 2
    h -= 1
    h /= w
    h **= 2
    return h


def _overlap(h):
    with_shift = h.detach()
    with_shift[1:].add_(with_shift[:-1].clone())
    return h


@pytest.mark.parametrize("name", CHANGES)
def test_values_and_gradients_are_those_of_torch(name, backend):
    x, w = _leaf(backend), _leaf(backend, (4,))
    tx, tw = (torch.tensor(t.detach().numpy(), requires_grad=True) for t in (x, w))
    h, th = x * 2, tx * 2
    y, ty = CHANGES[name](h, w), CHANGES[name](th, tw)
    weights = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    y.backward(numbanet.tensor(weights, device=backend))
    ty.backward(torch.tensor(weights))
    np.testing.assert_allclose(y.detach().numpy(), ty.detach().numpy(), rtol=2e-6, atol=1e-6)
    for mine, theirs in ((x, tx), (w, tw)):
        expected = np.zeros(mine.shape) if theirs.grad is None else theirs.grad.numpy()
        received = np.zeros(mine.shape) if mine.grad is None else mine.grad.numpy()
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


def test_memory_and_version(backend):
    x = numbanet.tensor(np.ones((2, 3), np.float32), device=backend)
    array, version = x.array, x._version
    assert x.add_(1) is x
    assert x.array is array and x._version == version + 1
    view = x[0]
    view.mul_(5)
    assert x._version == version + 2
    np.testing.assert_array_equal(x.numpy(), [[10, 10, 10], [2, 2, 2]])


def test_overlapping_operands(backend):
    values = np.arange(40000, dtype=np.float32)
    x = numbanet.tensor(values, device=backend)
    x[1:].add_(x[:-1])
    np.testing.assert_array_equal(x.numpy()[1:], values[1:] + values[:-1])


def test_leaf_that_requires_a_gradient(backend):
    w = _leaf(backend)
    with pytest.raises(AutogradError, match="add_.*leaf.*no_grad"):
        w.add_(1)
    with numbanet.no_grad():
        w.sub_(w)
    assert w.requires_grad and w.is_leaf and not w.detach().numpy().any()


def test_view_of_a_leaf_that_requires_a_gradient(backend):
    with pytest.raises(AutogradError, match="mul_: a view of a leaf.*no_grad"):
        _leaf(backend).reshape(4, 3)[0].mul_(2)


def test_view_of_a_computed_tensor(backend):
    x = _leaf(backend)
    h = x * 2
    flat = h.reshape(12)
    flat.mul_(flat)
    with pytest.raises(AutogradError, match="sum.*shares memory"):
        h.sum()
    flat.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 8 * x.detach().numpy(), rtol=1e-6)


def test_saved_tensor_changed_later(backend):
    x = _leaf(backend)
    h = x * 2
    y = h * x
    h.add_(1)
    with pytest.raises(AutogradError, match="mul: input 0.*changed in place.*clone"):
        y.backward(numbanet.tensor(np.ones((3, 4), np.float32), device=backend))


def test_saved_output_changed_later(backend):
    y = (_leaf(backend) * 2).exp()
    y.add_(1)
    with pytest.raises(AutogradError, match="exp: output 0.*changed in place"):
        y.sum().backward()


def test_what_backward_does_not_read_may_change(backend):
    x = _leaf(backend)
    h = x + 1
    y = h * 3
    h.zero_()
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 3)


def test_view_taken_before_the_change_is_stale(backend):
    h = _leaf(backend) * 2
    view = h[0]
    h.mul_(3)
    with pytest.raises(AutogradError, match="sum.*shares memory.*changed in place"):
        view.sum()
    assert h[0].sum().requires_grad


def test_base_of_a_view_that_took_a_gradient_is_stale(backend):
    base = numbanet.tensor(np.zeros((2, 4), np.float32), device=backend)
    base[0].add_(_leaf(backend, (4,)))
    with pytest.raises(AutogradError, match="shares memory"):
        base.sum()
    with numbanet.no_grad():
        assert base.sum().item() != 0


def test_assignment_through_an_index_and_addition(backend):
    w = _leaf(backend, (4,))
    base = numbanet.tensor(np.zeros((2, 4), np.float32), device=backend)
    base[0] += w
    base[0] += w * w
    base[:, 1] *= 3
    base.sum().backward()
    expected = (1 + 2 * w.detach().numpy()) * [1, 3, 1, 1]
    np.testing.assert_allclose(w.grad.numpy(), expected, rtol=1e-6)


def test_change_of_a_fresh_base_keeps_old_pieces_apart(backend):
    w = _leaf(backend, (4,))
    base = numbanet.tensor(np.zeros((2, 4), np.float32), device=backend)
    row = base[0]
    row += w
    with pytest.raises(AutogradError, match="shares memory"):
        base[1] = row                       # base[0] holds w too, but base does not know


@pytest.mark.parametrize("function", [relu, silu])
def test_inplace_flag(function, backend):
    x = _leaf(backend)
    h, g = x - 1, x - 1
    assert function(h, inplace=True) is h
    function(g).sum().backward()
    expected, x.grad = x.grad.numpy(), None
    h.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_results_that_do_not_fit(backend):
    x = numbanet.tensor(np.arange(3), device=backend)
    with pytest.raises(DTypeError, match="add_: x of int64"):
        x.add_(0.5)
    with pytest.raises(DTypeError, match="div_: x of int64"):
        x.div_(2)
    with pytest.raises(ShapeError, match="mul_: x of shape"):
        x.mul_(numbanet.tensor(np.ones((2, 3), np.int64), device=backend))
    x.add_(2.0 > 1)
    np.testing.assert_array_equal(x.numpy(), [1, 2, 3])
    narrow = numbanet.tensor(np.ones(2, np.float32), device=backend).mul_(numbanet.tensor(np.full(2, 3.0), device=backend))
    assert narrow.dtype == np.float32


def test_backward_twice_with_retained_graph(backend):
    x = _leaf(backend)
    y = ((x * 2).exp_() * x).sum()
    y.backward(retain_graph=True)
    first = x.grad.numpy().copy()
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * first, rtol=1e-6)
