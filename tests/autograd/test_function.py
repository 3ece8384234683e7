"""Own autograd functions."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import numbanet
from numbanet.autograd import Function, gradient_check
from numbanet.errors import AutogradError, ShapeError


class Scale(Function):
    """factor * x * y, and x itself as a second output."""

    @staticmethod
    def forward(ctx, x, factor, y):
        ctx.save_for_backward(x, y)
        ctx.factor = factor
        return x * y * factor, x

    @staticmethod
    def backward(ctx, grad_z, grad_x):
        x, y = ctx.saved_tensors
        return grad_z * y * ctx.factor + grad_x, None, grad_z * x * ctx.factor if ctx.needs_input_grad[2] else None


class Exp(Function):
    @staticmethod
    def forward(x):
        return x.exp()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad_y):
        y, = ctx.saved_tensors
        return grad_y * y


def _leaf(rng, *shape, device="cpu"):
    return numbanet.tensor(rng.standard_normal(shape), device=device, requires_grad=True)


def test_gradients(backend, rng):
    x, y = _leaf(rng, 2, 3, device=backend), _leaf(rng, 2, 3, device=backend)
    assert gradient_check(lambda x, y: Scale.apply(x, 3.0, y), x, y)
    assert gradient_check(lambda x: Exp.apply(x * 0.5), _leaf(rng, 4, device=backend))


def test_needs_input_grad_follows_the_arguments(rng):
    seen = []

    class Spy(Scale):
        @staticmethod
        def forward(ctx, x, factor, y):
            seen.append(ctx.needs_input_grad)
            return Scale.forward(ctx, x, factor, y)

    x, y = _leaf(rng, 3), _leaf(rng, 3).detach()
    z, _ = Spy.apply(x, 2.0, y)
    z.sum().backward()
    assert seen == [(True, False, False)]
    np.testing.assert_allclose(x.grad.numpy(), 2 * y.numpy())


def test_nothing_is_recorded_where_no_gradient_is_wanted(rng):
    x = _leaf(rng, 3)
    assert not Exp.apply(x.detach()).requires_grad
    with numbanet.no_grad():
        assert not Exp.apply(x).requires_grad


def test_forward_runs_outside_of_the_tape(rng):
    class Detour(Function):
        @staticmethod
        def forward(ctx, x):
            assert not numbanet.is_grad_enabled()
            return x + 1

        @staticmethod
        def backward(ctx, grad):
            assert not numbanet.is_grad_enabled()
            return grad * 7        # not the derivative, on purpose

    x = _leaf(rng, 2)
    Detour.apply(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [7, 7])


def test_non_differentiable_output(rng):
    class WithMask(Function):
        @staticmethod
        def forward(ctx, x):
            mask = (x > 0).double()
            ctx.mark_non_differentiable(mask)
            ctx.save_for_backward(mask)
            return x * mask, mask

        @staticmethod
        def backward(ctx, grad_y, grad_mask):
            assert (grad_mask.numpy() == 0).all()
            mask, = ctx.saved_tensors
            return grad_y * mask

    x = _leaf(rng, 5)
    y, mask = WithMask.apply(x)
    assert y.requires_grad and not mask.requires_grad
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), mask.numpy())


def test_in_place_forward(rng):
    class Double(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mark_dirty(x)
            x.mul_(2)
            return x

        @staticmethod
        def backward(ctx, grad):
            return grad * 2

    leaf = _leaf(rng, 3)
    x = leaf * 1
    y = Double.apply(x)
    assert y is x
    y.sum().backward()
    np.testing.assert_array_equal(leaf.grad.numpy(), [2, 2, 2])
    with pytest.raises(AutogradError, match="Double: a leaf"):
        Double.apply(_leaf(rng, 2))


def test_an_argument_that_is_returned_stays_as_it_was(rng):
    x = _leaf(rng, 2)
    _, same = Scale.apply(x, 1.0, x)
    assert same is not x and same.array is x.array and x.is_leaf and not same.is_leaf


@pytest.mark.parametrize("returned, error, message", [
    (lambda g: (g, g), AutogradError, "returned 2 gradients, expected 1"),
    (lambda g: 3.0, AutogradError, "gradient 0 is float"),
    (lambda g: g.sum(), ShapeError, r"expects a gradient of shape \(3,\) for argument 0, received \(\)"),
])
def test_wrong_gradients(rng, returned, error, message):
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            return returned(grad)

    with pytest.raises(error, match=message):
        Wrong.apply(_leaf(rng, 3)).sum().backward()


def test_more_gradients_are_allowed_where_they_are_none(rng):
    class Spare(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            return grad, None, None

    x = _leaf(rng, 2)
    Spare.apply(x).sum().backward()
    assert x.grad is not None


def test_second_backward_and_change_in_place(rng):
    y = Exp.apply(_leaf(rng, 3))
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    with pytest.raises(AutogradError, match="Exp: a second backward"):
        y.sum().backward()
    x = _leaf(rng, 3)
    y = Exp.apply(x)
    with numbanet.no_grad():
        y.mul_(2)
    with pytest.raises(AutogradError, match="Exp: saved tensor 0 .* changed in place"):
        y.sum().backward()


def test_save_for_backward_takes_tensors_only(rng):
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x, 3)
            return x * 1

    with pytest.raises(AutogradError, match="argument 1 is int"):
        Wrong.apply(_leaf(rng, 2))


def test_dropped_outputs_free_what_was_saved(rng):
    gc.disable()        # reference counts alone must do it
    try:
        y = Exp.apply(_leaf(rng, 3))
        storage = weakref.ref(y.storage)
        del y
        assert storage() is None
    finally:
        gc.enable()
