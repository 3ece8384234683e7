"""The tape: sweep, accumulation, freeing, versions, hooks."""

import gc
import threading
import weakref

import numpy as np
import pytest

import numbanet
from numbanet.autograd import Operation, backward, grad, gradient_check
from numbanet.autograd.operation import Record
from numbanet.backends import get_backend
from numbanet.errors import AutogradError, BackendError, ShapeError, UnsupportedOperationError
from numbanet.ops.activation import relu
from numbanet.ops.elementwise import add
from numbanet.ops.shape import reshape


def leaf(values, backend="reference"):
    return numbanet.tensor(np.asarray(values, np.float64), device=backend, requires_grad=True)


class Multiply(Operation):
    """A product whose backward needs both operands."""

    def forward(self, backend, a, b):
        self.save(a, b)
        return backend.multiply(a, b)

    def backward(self, backend, grad_y, needs):
        a, b = self.saved
        return backend.multiply(grad_y, b), backend.multiply(grad_y, a)


mul = Multiply.apply


def test_gradients_of_shared_inputs_add_up(backend):
    x = leaf([1.0, -2.0, 3.0], backend)
    y = mul(x, x)
    z = add(y, mul(y, x))                       # x^2 + x^3
    z.backward(numbanet.tensor(np.ones(3), device=backend))
    np.testing.assert_allclose(x.grad.numpy(), [2 + 3, -4 + 12, 6 + 27])


def test_deep_chains_need_no_recursion():
    x = leaf([1.0])
    y = x
    for _ in range(20_000):
        y = add(y, x)
    y.backward()
    assert x.grad.item() == 20_001
    del y                                       # and neither does freeing them


def test_a_leaf_used_twice_by_one_operation():
    x = leaf([3.0])
    mul(x, x).backward()
    assert x.grad.item() == 6.0


def test_gradients_accumulate_over_passes_and_do_not_alias():
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    seed = numbanet.tensor(np.array([1.0, 1.0]), device="reference")
    add(a, b).backward(seed)
    assert not np.may_share_memory(a.grad.array, b.grad.array)
    assert not np.may_share_memory(a.grad.array, seed.array)
    add(a, b).backward(seed)
    np.testing.assert_array_equal(a.grad.numpy(), [2, 2])
    np.testing.assert_array_equal(seed.numpy(), [1, 1])


def test_a_gradient_that_two_users_share_is_not_summed_in_place():
    x, y = leaf([1.0]), leaf([1.0])
    s = add(x, y)                               # both get the same array back
    add(add(s, x), y).backward()
    assert (x.grad.item(), y.grad.item()) == (2.0, 2.0)


def test_a_second_pass_needs_retain_graph():
    x = leaf([2.0])
    y = mul(x, x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 8.0
    with pytest.raises(AutogradError, match="second backward.*retain_graph"):
        y.backward()


def test_saved_arrays_are_freed_as_the_sweep_passes():
    x = leaf(np.ones(4))
    inner = mul(x, x)
    array = weakref.ref(inner.array)
    y = mul(inner, inner)
    del inner
    gc.disable()
    try:
        assert array() is not None
        y.backward(numbanet.tensor(np.ones(4), device="reference"))
        assert array() is None
    finally:
        gc.enable()


def test_dropped_outputs_free_the_tape_without_the_garbage_collector():
    x = leaf(np.ones(3))
    gc.collect()
    gc.disable()
    try:
        y = relu(mul(x, x))
        record = weakref.ref(y._record)
        del y
        assert record() is None
    finally:
        gc.enable()
    assert not any(type(o) is Record for o in gc.get_objects())


def test_a_saved_tensor_changed_in_place_is_noticed():
    x = leaf([2.0])
    y = mul(x, x)
    x.storage.version += 1
    with pytest.raises(AutogradError, match=r"Multiply: input 0 .*changed in place.*clone\(\)"):
        y.backward()


def test_only_wanted_gradients_are_computed():
    seen = []

    class Spy(Multiply):
        def backward(self, backend, grad_y, needs):
            seen.append(tuple(needs))
            return super().backward(backend, grad_y, needs)

    image = numbanet.tensor(np.ones(2), device="reference")
    weight = leaf([1.0, 2.0])
    Spy.apply(image, weight).backward(numbanet.tensor(np.ones(2), device="reference"))
    assert seen == [(False, True)] and image.grad is None


def test_grad_returns_gradients_and_touches_none():
    x, w, unused = leaf([2.0]), leaf([5.0]), leaf([1.0])
    h = mul(x, w)
    y = mul(h, h)
    gx, gh = grad(y, [x, h], retain_graph=True)
    assert (gx.item(), gh.item()) == (2 * 10 * 5, 20.0)
    assert x.grad is None and w.grad is None
    with pytest.raises(AutogradError, match=r"do not depend on inputs \[0\]"):
        grad(y, [unused], retain_graph=True)
    assert grad(y, [unused], allow_unused=True) == (None,)


def test_grad_does_not_walk_into_unneeded_branches():
    class Explodes(Multiply):
        def backward(self, backend, grad_y, needs):
            raise AssertionError("not needed")

    x, w = leaf([2.0]), leaf([3.0])
    y = add(mul(x, x), Explodes.apply(w, w))
    assert grad(y, [x])[0].item() == 4.0


def test_backward_to_chosen_inputs():
    x, w = leaf([2.0]), leaf([3.0])
    h = mul(x, w)
    mul(h, h).backward(inputs=[w, h])
    assert w.grad.item() == 24.0 and h.grad.item() == 12.0 and x.grad is None


@pytest.mark.parametrize("make, error, text", [
    (lambda: leaf([1.0, 2.0]).backward(), AutogradError, "scalar only"),
    (lambda: numbanet.tensor([1.0]).backward(), AutogradError, "does not require a gradient"),
    (lambda: leaf([1.0]).backward(create_graph=True), UnsupportedOperationError, "create_graph"),
    (lambda: leaf([1.0, 2.0]).backward(numbanet.tensor([1.0])), ShapeError, r"expects shape \(2,\)"),
    (lambda: leaf([1.0]).numpy(), AutogradError, "detach"),
    (lambda: mul(leaf([1.0]), leaf([1.0], "cpu")), BackendError, r"one device.*reference, cpu"),
])
def test_mistakes_are_explained(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_no_grad_is_per_thread():
    x = leaf([1.0])
    recorded = []
    with numbanet.no_grad():
        assert not relu(x).requires_grad
        thread = threading.Thread(target=lambda: recorded.append(relu(x).requires_grad))
        thread.start()
        thread.join()
        with numbanet.enable_grad():
            assert relu(x).requires_grad
        assert not numbanet.is_grad_enabled()
    assert recorded == [True] and numbanet.is_grad_enabled()


def test_hooks_see_and_replace_gradients():
    x = leaf([1.0])
    h = mul(x, x)
    seen = []
    h.register_hook(lambda g: seen.append(g.item()))
    h.register_hook(lambda g: numbanet.tensor(np.array([10.0]), device="reference"))
    handle = x.register_hook(lambda g: seen.append("removed"))
    handle.remove()
    x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    h.retain_grad()
    mul(h, h).backward()
    assert seen == [2.0, 20.0]
    assert h.grad.item() == 10.0


def test_views_share_their_version():
    x = numbanet.tensor(np.ones((2, 3)))
    view = reshape(x, 3, 2)
    x.storage.version += 1
    assert view._version == 1 and view.detach()._version == 1


def test_gradient_check_finds_a_wrong_gradient():
    class Wrong(Multiply):
        def backward(self, backend, grad_y, needs):
            return grad_y, grad_y

    with pytest.raises(AutogradError, match="gradient_check: input 0, element"):
        gradient_check(Wrong.apply, leaf([1.0, 2.0]), leaf([3.0, 4.0]))
    assert not gradient_check(Wrong.apply, leaf([1.0, 2.0]), leaf([3.0, 4.0]), raise_exception=False)
    assert gradient_check(mul, leaf([1.0, 2.0]), leaf([3.0, 4.0]))


def test_a_backward_of_the_wrong_arity_or_shape_is_named():
    class Few(Multiply):
        def backward(self, backend, grad_y, needs):
            return grad_y

    class Bent(Multiply):
        def backward(self, backend, grad_y, needs):
            return backend.reshape(grad_y, (2, 1)), None

    with pytest.raises(AutogradError, match="Few: backward returned 1 gradients, expected 2"):
        Few.apply(leaf([1.0]), leaf([1.0])).backward()
    with pytest.raises(ShapeError, match="wrong shape"):
        backward(Bent.apply(leaf([1.0, 1.0]), leaf([1.0, 1.0])), numbanet.tensor(np.ones(2), device="reference"))


def test_a_broadcast_gradient_is_accumulated(backend):
    """A mean's gradient repeats one number without memory of its own; sums must not be written into it."""
    x = numbanet.tensor(np.ones((3, 4), np.float32), device=backend, requires_grad=True)
    for _ in range(2):
        x.mean().backward()
    numbanet.autograd.backward([x.sum(0), x.mean(0)], [numbanet.ones(4, device=backend)] * 2)
    np.testing.assert_allclose(x.grad.numpy(), 2 / 12 + 1 + 1 / 3, rtol=1e-6)


def test_a_gradient_that_someone_holds_is_not_overwritten():
    """ReLU writes its gradient over the one it receives, where no one else can see it."""
    u, v = (numbanet.tensor([-1.0, 2.0, -3.0, 4.0], requires_grad=True) for _ in range(2))
    seed = numbanet.tensor([1.0, 2.0, 3.0, 4.0])
    seen = []
    hidden = numbanet.relu(u * 1.0)
    hidden.retain_grad()
    hidden.register_hook(seen.append)
    total = hidden + numbanet.relu(v * 1.0)         # the sum hands the same gradient to both
    total.backward(seed)
    np.testing.assert_array_equal(seed.numpy(), [1, 2, 3, 4])
    np.testing.assert_array_equal(seen[0].numpy(), [1, 2, 3, 4])
    np.testing.assert_array_equal(hidden.grad.numpy(), [1, 2, 3, 4])
    for leaf in (u, v):
        np.testing.assert_array_equal(leaf.grad.numpy(), [0, 2, 0, 4])


def test_a_gradient_that_was_asked_for_is_not_overwritten():
    x = numbanet.tensor([-1.0, 2.0], requires_grad=True)
    inner = x * 3.0
    hidden = numbanet.relu(inner)
    loss = (hidden * hidden).sum()
    grads = numbanet.autograd.grad(loss, [hidden, inner, x])
    for received, expected in zip(grads, ([0, 12], [0, 12], [0, 36])):
        np.testing.assert_array_equal(received.numpy(), expected)


def test_a_gradient_that_nobody_holds_is_overwritten(monkeypatch):
    backend, given = get_backend("cpu"), []
    original = backend.relu_backward_input
    monkeypatch.setitem(backend.__dict__, "relu_backward_input",
                        lambda grad, y, out=None: (given.append(out is grad), original(grad, y, out=out))[1])
    x = numbanet.tensor([-1.0, 2.0], requires_grad=True)
    (numbanet.relu(x * 3.0) * 2.0).sum().backward()
    assert given == [True]
    np.testing.assert_array_equal(x.grad.numpy(), [0, 6])
