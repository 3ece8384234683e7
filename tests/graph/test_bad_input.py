"""What a plan cannot do, and what changes behind its back: each noticed, or an error that says what to do."""

import threading

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import ShapeError, UnsupportedOperationError, UsageError
from numbanet.nn import functional as F


def _tensor(rng, *shape):
    return numbanet.tensor(rng.standard_normal(shape).astype(np.float32))


def _net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30, 5))


def _step(model, x, loss=F.cross_entropy, y=None):
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.1)
    return numbanet.compile(model, x if y is None else (x, y), loss=loss, optimizer=optimizer)


@pytest.mark.parametrize("forward", [lambda x: x[x > 0], numbanet.nonzero, numbanet.argwhere, lambda x: numbanet.masked_select(x, x > 0),
                                     lambda x: x if x.sum() > 0 else -x, lambda x: x * float(x.max()), lambda x: x * x.tolist()[0][0]],
                         ids=["mask", "nonzero", "argwhere", "masked_select", "if", "float", "tolist"])
def test_shapes_and_branches_that_depend_on_data(forward, rng):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()
            self.inner.forward = forward

        def forward(self, x):
            return self.inner(x)
    with pytest.raises(UnsupportedOperationError, match=r"^inner trace: the program reads the values .* depends on them.* numbanet.where"):
        numbanet.compile(Model(), _tensor(rng, 2, 3))


def test_shapes_that_depend_on_shapes_are_fine(rng):
    class Halves(nn.Module):
        def forward(self, x):
            return x.reshape(2 * x.shape[0], -1)
    compiled = numbanet.compile(Halves(), _tensor(rng, 2, 4))
    assert [compiled(_tensor(rng, n, 4)).shape for n in (2, 3)] == [(4, 2), (6, 2)]
    assert compiled(_tensor(rng, 5, 4)).shape == (10, 2)


def test_out_is_checked_before_anything_runs(rng):
    compiled, x = numbanet.compile(_net(), _tensor(rng, 2, 3, 6, 5)), _tensor(rng, 2, 3, 6, 5)
    for out, message in ((numbanet.zeros(2, 4), r"out expects float32\[2, 5\] on 'cpu', received float32\[2, 4\]"),
                         (numbanet.zeros(2, 5, dtype=numbanet.float64), "received float64"),
                         (numbanet.zeros(2, 5, device="reference"), "on 'reference'"),
                         ((numbanet.zeros(2, 5), numbanet.zeros(2, 5)), "out expects 1 tensors, received 2")):
        with pytest.raises(ShapeError, match=message):
            compiled(x, out=out)
    with pytest.raises(UsageError, match="out expects tensors, received int"):
        compiled(x, out=3)


def test_parameters_that_are_no_longer_what_was_compiled(rng):
    x = _tensor(rng, 2, 3, 6, 5)
    for change, message in ((lambda m: m.double(), "is float64"), (lambda m: m.to("reference"), "on 'reference' now"),
                            (lambda m: setattr(m[0], "bias", None), "0.bias was .* is none now"),
                            (lambda m: setattr(m[3], "weight", nn.Parameter(numbanet.zeros(7, 120))),
                             r"3.weight was float32\[5, 120\] .* is float32\[7, 120\]")):
        model = _net()
        compiled, step = numbanet.compile(model, x), _step(model, x)
        change(model)
        with pytest.raises(UsageError, match=f"plan: .*{message}.*compile again"):
            compiled(x)
        with pytest.raises(UsageError, match=f"plan: .*{message}.*compile again"):
            step.forward_backward(x, numbanet.tensor([1, 2]))


def test_exchanged_parameters_are_noticed(rng):
    model, x = _net(), _tensor(rng, 2, 3, 6, 5)
    compiled = numbanet.compile(model, x)
    compiled(x)
    for change in (lambda: setattr(model[0], "weight", nn.Parameter(_tensor(rng, 4, 3, 3, 3))),
                   lambda: model[3].weight.__setitem__((0, 0), 2.0), lambda: model[3].bias.copy_(_tensor(rng, 5)),
                   lambda: model.to("reference").to("cpu")):
        with numbanet.no_grad():
            change()
            expected = model(x).numpy()
        np.testing.assert_allclose(compiled(x).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_losses_and_optimizers_that_cannot_train(rng):
    model, x, y = _net(), _tensor(rng, 2, 3, 6, 5), _tensor(rng, 2, 5)
    for loss, message in ((lambda out, y: out - y, "scalar only"), (lambda out, y: y.sum(), "does not require a gradient")):
        with pytest.raises(numbanet.AutogradError, match=message):
            _step(model, x, loss, y)
    with pytest.raises(UsageError, match=r"optimizer expects parameters of the model, .* SGD\(model.parameters\(\), ...\)"):
        numbanet.compile(model, x, loss=F.cross_entropy, optimizer=numbanet.optim.SGD(_net().parameters()))
    with pytest.raises(UsageError, match=r"example expects x or \(x, y\)"):
        numbanet.compile(model, (x, y, y), loss=F.mse_loss, optimizer=numbanet.optim.SGD(model.parameters()))


def test_targets_that_do_not_fit(rng):
    step = _step(_net(), _tensor(rng, 2, 3, 6, 5))
    x = _tensor(rng, 2, 3, 6, 5)
    for y, error, message in (([1, 2, 3], ShapeError, r"target expects shape \(2,\), received \(3,\)"),
                              ([1, 9], numbanet.IndexRangeError, r"target\[1\] is 9"),
                              (np.zeros((2, 5), np.float32), ShapeError, r"input 1 expects int64\['N'\]")):
        with pytest.raises(error, match=message):
            step(x, numbanet.tensor(y))
    assert np.isfinite(step(x, numbanet.tensor([1, 2])).item())             # nothing was left behind


def test_a_step_within_its_own_callback_is_refused(rng):
    x, y = _tensor(rng, 2, 3, 6, 5), numbanet.tensor([1, 2])
    step = _step(_net(), x)
    end = step.on_gradient(lambda p: step(x, y))
    with pytest.raises(UsageError, match="called by a callback of on_gradient"):
        step(x, y)
    end()
    assert np.isfinite(step(x, y).item())


def test_steps_of_two_threads_take_turns(rng):
    """With a learning rate of 0 each call gives what it gives alone."""
    model, inputs, y = _net(), [_tensor(rng, n, 3, 6, 5) for n in (2, 3, 2)], numbanet.tensor([1, 2, 0])
    step = numbanet.compile(model, inputs[0], loss=F.cross_entropy, optimizer=numbanet.optim.SGD(model.parameters(), lr=0.0))
    expected, wrong = [step(x, y[:len(x)]).item() for x in inputs], []

    def work(i):
        for _ in range(20):
            if step(inputs[i], y[:len(inputs[i])]).item() != expected[i]:
                wrong.append(i)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_hooks_are_recorded_or_refused(rng):
    x, y = _tensor(rng, 2, 3, 6, 5), numbanet.tensor([1, 2])
    model, calls = _net(), []
    handles = [model[0].register_forward_hook(lambda module, inputs, output: (calls.append("forward"), output * 2)[1]),
               model[0].weight.register_hook(lambda gradient: (calls.append("gradient"), gradient * 0)[1]),
               model[3].register_full_backward_hook(lambda module, inputs, outputs: calls.append("backward"))]
    compiled, step = numbanet.compile(model, x), _step(model, x)
    assert calls == ["forward", "forward", "backward", "gradient"]
    step.forward_backward(x, y)
    received = compiled(x).numpy()
    assert len(calls) == 4                                                  # what they computed is part of the plans
    with numbanet.no_grad():
        np.testing.assert_allclose(received, model(x).numpy(), rtol=1e-5, atol=1e-6)
    assert not model[0].weight.grad.numpy().any() and model[3].weight.grad.numpy().any()
    for handle in handles:
        handle.remove()
    model[0].register_forward_hook(lambda module, inputs, output: print(output.mean().item()))
    with pytest.raises(UnsupportedOperationError, match="^0 trace: the program reads the values"):
        numbanet.compile(model, x)
    model = _net()
    model[3].weight.register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(UnsupportedOperationError, match="3.weight has a hook .* on_gradient"):
        _step(model, x)


class Noisy(nn.Module):
    """Noise of its own on each pass, as variational models add it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x + numbanet.randn(*x.shape))


def test_random_numbers_that_a_plan_would_repeat():
    model, x, y = Noisy(), numbanet.ones(4, 3), numbanet.tensor([0, 1, 0, 1])
    with pytest.raises(UnsupportedOperationError, match="Noisy draws random numbers in evaluation mode"):
        numbanet.compile(model, x)(x)
    with pytest.raises(UnsupportedOperationError, match="the step draws numbers by rand, randn, randint or randperm"):
        numbanet.compile(model, x, loss=F.cross_entropy, optimizer=numbanet.optim.SGD(model.parameters(), lr=0.1))(x, y)
