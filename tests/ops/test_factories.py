"""Factories against PyTorch where they are exact; fillers; comparisons."""

import numpy as np
import pytest

import numbanet
from numbanet.errors import AutogradError, DTypeError, ShapeError, UsageError
from numbanet.ops import factories
from tests.cases.case import channels_last

CALLS = [
    ("zeros", (2, 3), {}), ("zeros", ((2, 3),), {"dtype": "int64"}), ("ones", ([4],), {}), ("full", ((2,), 7), {}),
    ("full", ((2, 1), 0.5), {}), ("full", ((2,), True), {}), ("full", ((2,), 3), {"dtype": "float64"}),
    ("eye", (3,), {}), ("eye", (2, 4), {}),
    ("arange", (5,), {}), ("arange", (2, 9, 3), {}), ("arange", (5, -4, -2), {}), ("arange", (0, 1, 0.25), {}),
    ("arange", (3.0,), {}), ("arange", (4,), {"dtype": "float64"}), ("arange", (0,), {}),
    ("linspace", (-1, 2, 7), {}), ("linspace", (3, 4, 1), {}),
]


@pytest.mark.parametrize("name, arguments, options", CALLS)
def test_factories_agree_with_torch(name, arguments, options, backend):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch, name)(*arguments, **{k: getattr(torch, v) for k, v in options.items()})
    ours = getattr(factories, name)(*arguments, **{k: getattr(numbanet, v) for k, v in options.items()}, device=backend)
    assert ours.shape == tuple(theirs.shape) and ours.device == backend
    assert ours.dtype.name == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-7)


def test_requires_grad_and_default_dtype():
    assert factories.zeros(2, requires_grad=True).requires_grad and factories.randn(2, requires_grad=True).is_leaf
    numbanet.set_default_dtype("float64")
    try:
        assert factories.rand(1).dtype == factories.ones(1).dtype == factories.full((1,), 1.0).dtype == numbanet.float64
    finally:
        numbanet.set_default_dtype("float32")


def test_likes_keep_shape_dtype_device_and_memory_order(backend, rng):
    x = numbanet.from_numpy(channels_last(rng.standard_normal((2, 3, 4, 5))), device=backend)
    for made, value in ((factories.zeros_like(x), 0), (factories.ones_like(x), 1), (factories.full_like(x, 2.5), 2.5)):
        assert made.stride() == x.stride() and made.dtype == x.dtype and made.device == backend
        assert (made.numpy() == value).all()
    assert factories.ones_like(x, dtype="int64").dtype == numbanet.int64
    assert factories.empty_like(x).shape == factories.rand_like(x).shape == factories.randn_like(x).shape == x.shape
    assert set(factories.randint_like(x, 2, 4).numpy().ravel()) == {2, 3}


def test_new(backend):
    x = numbanet.tensor(np.ones(2), device=backend)
    made = [x.new_zeros(2, 3), x.new_ones((2, 3)), x.new_full((2, 3), 4), x.new_empty(2, 3),
            x.new_tensor([[1, 2, 3], [4, 5, 6]])]
    for m in made:
        assert m.shape == (2, 3) and m.dtype == numbanet.float64 and m.device == backend
    assert made[2].tolist() == [[4] * 3] * 2 and x.new_zeros(1, dtype="int64").dtype == numbanet.int64


def test_random_factories(backend):
    numbanet.random.manual_seed(0)
    drawn = factories.rand(2, 500, device=backend)
    assert drawn.shape == (2, 500) and drawn.numpy().min() >= 0 and drawn.numpy().max() < 1
    assert set(factories.randint(3, (100,), device=backend).tolist()) == {0, 1, 2}
    assert set(factories.randint(-1, 1, (100,), device=backend, dtype="int32").tolist()) == {-1, 0}
    assert sorted(factories.randperm(5, device=backend).tolist()) == [0, 1, 2, 3, 4]
    drawn = factories.normal(5.0, 0.1, (1000,), device=backend).numpy()
    assert abs(drawn.mean() - 5) < 0.02 and abs(drawn.std() - 0.1) < 0.02
    means = numbanet.tensor([0.0, 100.0], device=backend)
    assert abs(factories.normal(means, 0.1).numpy() - means.numpy()).max() < 1


def test_bernoulli(backend):
    numbanet.random.manual_seed(0)
    drawn = factories.bernoulli(numbanet.tensor([0.0, 1.0, 0.5] * 2000, device=backend)).numpy().reshape(-1, 3)
    assert (drawn[:, 0] == 0).all() and (drawn[:, 1] == 1).all() and abs(drawn[:, 2].mean() - 0.5) < 0.06
    filled = numbanet.tensor(np.zeros((1000, 2), np.float32), device=backend).bernoulli_(0.25).numpy()
    assert set(np.unique(filled)) == {0, 1} and abs(filled.mean() - 0.25) < 0.06


def test_fillers(backend):
    x = numbanet.tensor(np.zeros((50, 20), np.float32), device=backend)
    assert x.uniform_(2, 3) is x and x.numpy().min() >= 2 and x.numpy().max() < 3 and x._version == 1
    assert abs(x.normal_(-1, 0.5).numpy().mean() + 1) < 0.1
    leaf = numbanet.tensor([1.0], device=backend, requires_grad=True)
    with pytest.raises(AutogradError, match="leaf"):
        leaf.normal_()
    with numbanet.no_grad():
        assert leaf.uniform_().requires_grad
    computed = leaf.clone().uniform_()
    assert computed.grad_fn is None and not computed.requires_grad


def test_comparisons(backend):
    a = numbanet.tensor([1.0, np.nan, np.inf], device=backend)
    b = numbanet.tensor([1 + 1e-6, np.nan, np.inf], device=backend)
    assert factories.isclose(a, b).tolist() == [True, False, True]
    assert not factories.allclose(a, b) and a.allclose(b, equal_nan=True)
    assert a[:1].equal(a[:1]) and not a[:1].equal(b[:1]) and not a.equal(a[:1])


@pytest.mark.parametrize("call, error, words", [
    (lambda: factories.zeros(-1), ShapeError, "at least 0"),
    (lambda: factories.arange(0, 5, -1), UsageError, "step"),
    (lambda: factories.arange(0, 5, 0), UsageError, "step"),
    (lambda: factories.randint(5), UsageError, "low, high, size"),
    (lambda: factories.rand(2, dtype="int64"), DTypeError, "floating-point"),
    (lambda: factories.normal(0.0, 1.0), UsageError, "size="),
    (lambda: factories.bernoulli(factories.arange(2)), DTypeError, "probabilities"),
    (lambda: factories.zeros(2, dtype="int64", requires_grad=True), DTypeError, "gradients"),
])
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
