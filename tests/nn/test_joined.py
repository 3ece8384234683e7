"""Layers that Sequential runs as one operation: the same bits as layer by layer, and never where somebody looks between."""

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import ShapeError
from numbanet.nn.joined import layers_apart


def network(inplace=False):
    numbanet.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 6, 5, padding=1), nn.ReLU(inplace), nn.MaxPool2d(3, 2, 1, ceil_mode=True),
                         nn.Conv2d(6, 20, 3, bias=False), nn.ReLU(), nn.Conv2d(20, 4, 1), nn.MaxPool2d(2), nn.ReLU(),
                         nn.Flatten(), nn.Linear(8, 7), nn.ReLU(inplace), nn.Linear(7, 5))


def images(device, dtype, special=False):
    x = np.random.default_rng(0).standard_normal((3, 3, 11, 13)).astype(dtype)
    if special:
        x[0, 0, 4, 4], x[1, 2, 0, 0], x[2, 1, 5, 6] = np.nan, np.inf, -np.inf
    return numbanet.tensor(x, device=device, requires_grad=True)


def run(model, x):
    """(logits, names of operations, gradients)."""
    y, names, stack = model(x), [], []
    stack.append(y._record)
    while stack:
        record = stack.pop()
        names.append(record.name)
        stack.extend(edge[0] for edge in record.edges if type(edge) is tuple)
    y.backward(numbanet.tensor(np.linspace(-1, 1, y.numel()).reshape(y.shape).astype(y.detach().numpy().dtype), device=y.device))
    return y.detach().numpy(), names[::-1], [t.grad.numpy() for t in (x, *model.parameters())]


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_joined_layers_give_the_same_bits(device, dtype, special, inplace):
    joined, plain = network(inplace).to(device).to(getattr(numbanet, dtype)), network().to(device).to(getattr(numbanet, dtype))
    y, names, gradients = run(joined, images(device, dtype, special))
    with layers_apart():
        expected, plain_names, expected_gradients = run(plain, images(device, dtype, special))
    assert names == ["conv2d_relu_max_pool2d", "conv2d_relu", "conv2d", "max_pool2d", "relu", "reshape", "linear_relu", "linear"]
    assert len(plain_names) == 12 and "conv2d_relu" not in plain_names
    np.testing.assert_array_equal(y, expected)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_array_equal(gradient, wanted)


def test_what_is_between_is_seen_by_hooks_own_forwards_and_traces():
    model, x, seen = network(), images("cpu", "float32"), []
    handle = model[1].register_forward_hook(lambda module, args, y: seen.append((args[0].detach().numpy().min(), y.detach().numpy().min())))
    model(x)
    assert seen[0][0] < 0 == seen[0][1]
    handle.remove()
    model[4].forward = lambda y: y * 2                  # an object's own forward
    assert "mul" in run(model, x)[1] or "multiply" in run(model, x)[1]
    del model[4].forward
    names = numbanet.trace(network(), numbanet.zeros(3, 3, 11, 13)).primitives()
    assert names[:3] == ["conv2d_forward", "relu_forward", "max_pool2d_forward"]


def test_indices_and_subclasses_are_not_joined():
    class Own(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    x = images("cpu", "float32")
    y, indices = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2, return_indices=True))(x)
    assert y.shape == indices.shape == (3, 4, 4, 5)
    own = Own(3, 4, 3)
    np.testing.assert_array_equal(nn.Sequential(own, nn.ReLU())(x).detach().numpy(), own(x).relu().detach().numpy())


def test_samples_without_a_batch_and_matrices_of_higher_rank():
    numbanet.manual_seed(0)
    convolve, pool, linear = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Linear(5, 6)
    x = images("cpu", "float32")[0]
    np.testing.assert_array_equal(nn.Sequential(convolve, nn.ReLU(), pool)(x).detach().numpy(), pool(convolve(x).relu()).detach().numpy())
    x = numbanet.randn(2, 3, 4, 5, requires_grad=True)
    joined, plain = nn.Sequential(linear, nn.ReLU())(x), linear(x).relu()
    np.testing.assert_array_equal(joined.detach().numpy(), plain.detach().numpy())
    joined.sum().backward()
    gradient, x.grad = x.grad.numpy(), None
    plain.sum().backward()
    np.testing.assert_array_equal(gradient, x.grad.numpy())


def test_an_error_names_its_layer():
    model = nn.Sequential({"stem": nn.Conv2d(3, 4, 3), "relu": nn.ReLU(), "pool": nn.MaxPool2d(9)})
    with pytest.raises(ShapeError, match="stem.*4 input channels|stem.*x has 4"):
        model(numbanet.zeros(1, 4, 8, 8))
    with pytest.raises(ShapeError, match="max_pool2d"):
        model(numbanet.zeros(1, 3, 8, 8))
