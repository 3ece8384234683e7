"""x[...], x[...] = v and their kin against PyTorch; in-place rules; errors."""

import numpy as np
import pytest

import numbanet
from numbanet.errors import AutogradError, DTypeError, IndexRangeError, ShapeError, UsageError
from numbanet.ops import indexing

INDEX, MASK = np.array([[2, -1], [0, 1]]), np.array([True, False, True])
KEYS = {
    "integer": 1, "negative": -1, "integers": (1, -2), "all": (0, 1, 2, 1), "scalar-array": np.array(1),
    "slice": slice(-2, None), "slices": (slice(0, 1), slice(None, None, 2)),
    "beyond-the-end": (slice(1, 99), slice(3, 1)),
    "whole": ..., "ellipsis": (..., 1), "empty-ellipsis": (0, 1, ..., 2, 0), "none": (None, 0, ..., None),
    "list": [1, 0, 1], "list-and-slice": (slice(1), [2, 0]), "empty-list": [], "range": (range(2),),
    "array": (slice(None), INDEX), "array-last": (..., [1, 0]), "integer-apart": (0, slice(None), [3, 1]),
    "arrays-apart": ([0, 1], slice(None), [3, 1]), "arrays-neighbours": (slice(None), INDEX, [3, 1]),
    "none-between": ([0, 1], None, [2, 1]), "true": True, "false": False,
    "mask": (slice(None), MASK), "mask-and-array": (slice(None), MASK, [3, 0]), "mask-and-integer": (1, MASK, 2),
    "mask-2d": np.array([[True, False, False], [False, True, True]]),
}


def _key(key, library, **options):
    """Arrays as tensors of the library."""
    if isinstance(key, tuple):
        return tuple(_key(k, library, **options) for k in key)
    if isinstance(key, np.ndarray):
        return library.tensor(key, **options)
    return list(key) if isinstance(key, range) else key


@pytest.mark.parametrize("name", KEYS)
def test_getitem_agrees_with_torch(name, backend, rng):
    torch = pytest.importorskip("torch")
    values = rng.standard_normal((2, 3, 4, 2)).astype(np.float32)
    ours = numbanet.tensor(values, device=backend)[_key(KEYS[name], numbanet, device=backend)]
    theirs = torch.tensor(values)[_key(KEYS[name], torch)]
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("name", KEYS)
def test_setitem_and_its_gradients_agree_with_torch(name, backend, rng):
    torch = pytest.importorskip("torch")
    values = rng.standard_normal((2, 3, 4, 2)).astype(np.float32)
    weights = rng.standard_normal(values.shape).astype(np.float32)
    results = []
    for library, options in ((numbanet, {"device": backend}), (torch, {})):
        x, key = library.tensor(values, requires_grad=True, **options), _key(KEYS[name], library, **options)
        shape = tuple(x[key].shape)
        new = library.tensor(np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape), requires_grad=True,
                             **options)
        y = x.clone()
        y[key] = new
        y.backward(library.tensor(weights, **options))
        results.append([t.detach().numpy() if t is not None else np.zeros(shape) for t in (y, x.grad, new.grad)])
    for ours, theirs in zip(*results):
        np.testing.assert_array_equal(ours, theirs)


def test_assigned_values_broadcast_and_are_cast(backend):
    x = numbanet.tensor(np.zeros((2, 3), np.float32), device=backend)
    x[0] = 2
    x[:, 1] = numbanet.tensor([[5.5], [6]], device=backend).squeeze(1)
    x[1, [0, 2]] = numbanet.tensor([[[7.0]]], device=backend)
    x[:, 0:1] += numbanet.tensor(1.0, device=backend)
    assert x.tolist() == [[3, 5.5, 2], [8, 6, 7]]
    counts = numbanet.tensor([1, 2, 3], device=backend)
    counts[counts > 1] = 9.7
    assert counts.tolist() == [1, 9, 9]


def test_assignment_follows_the_rules_of_in_place(backend):
    leaf = numbanet.tensor([1.0, 2.0], device=backend, requires_grad=True)
    with pytest.raises(AutogradError, match="leaf"):
        leaf[0] = 3
    with numbanet.no_grad():
        leaf[0] = 3
    assert leaf.tolist() == [3, 2] and leaf.is_leaf
    y = leaf.clone()
    y[0] = 5
    y[1] = y[0]
    y.backward(numbanet.tensor([1.0, 10.0], device=backend))
    assert leaf.grad.tolist() == [0, 0]


def test_saved_values_changed_by_an_assignment_are_noticed(backend):
    x = numbanet.tensor([1.0, -2.0], device=backend, requires_grad=True)
    y = numbanet.functional.relu(x.clone())
    z = numbanet.functional.relu(y)
    z[0] = 1
    with pytest.raises(AutogradError, match="changed in place"):
        z.backward(numbanet.tensor([1.0, 1.0], device=backend))


def test_a_buffer_becomes_part_of_the_tape(backend):
    buffer = numbanet.tensor(np.zeros((2, 2), np.float32), device=backend)
    x = numbanet.tensor([1.0, 2.0], device=backend, requires_grad=True)
    buffer[1] = x
    buffer.backward(numbanet.tensor([[1.0, 2.0], [3.0, 4.0]], device=backend))
    assert x.grad.tolist() == [3, 4]


def test_nonzero_masked_select_take(backend):
    x = numbanet.tensor([[0.0, 1.0], [np.nan, 0.0]], device=backend)
    assert x.nonzero().tolist() == [[0, 1], [1, 0]]
    assert [p.tolist() for p in x.nonzero(as_tuple=True)] == [[0, 1], [1, 0]]
    assert numbanet.tensor(3.0, device=backend).nonzero().shape == (1, 0)
    assert numbanet.tensor(0.0, device=backend).nonzero().shape == (0, 0)
    assert x.masked_select(numbanet.tensor([True, False], device=backend)).numpy()[0] == 0
    assert x.take(numbanet.tensor([[3, -3]], device=backend)).tolist() == [[0, 1]]


def test_take_along_dim_broadcasts(backend, rng):
    values, order = rng.standard_normal((3, 4)), rng.integers(0, 4, (1, 6))
    taken = indexing.take_along_dim(numbanet.tensor(values, device=backend), numbanet.tensor(order, device=backend), 1)
    np.testing.assert_array_equal(taken.numpy(), np.take_along_axis(values, order, 1))


def test_one_hot(backend):
    index = numbanet.tensor([[0, 2], [1, 0]], device=backend)
    np.testing.assert_array_equal(indexing.one_hot(index).numpy(), np.eye(3, dtype=np.int64)[index.numpy()])
    assert indexing.one_hot(index, 5).shape == (2, 2, 5) and indexing.one_hot(index).dtype == numbanet.int64
    assert indexing.one_hot(numbanet.tensor(np.zeros(0, np.int64), device=backend), 4).shape == (0, 4)
    with pytest.raises(IndexRangeError, match="index 2 .*size 2"):
        indexing.one_hot(index, 2)


def test_in_place_scatters(backend):
    x = numbanet.tensor(np.zeros((2, 3), np.float32), device=backend)
    index = numbanet.tensor([[1], [2]], device=backend)
    same = x.scatter_(1, index, 1.0)
    x.scatter_add_(1, index, numbanet.tensor([[2.0], [3.0]], device=backend))
    x.index_add_(0, numbanet.tensor([0, 0], device=backend),
                 numbanet.tensor([[1.0, 0, 0], [1.0, 0, 0]], device=backend))
    assert same is x and x.tolist() == [[2, 3, 0], [0, 0, 4]] and x._version == 3


def test_repeated_indices_add_up_in_the_gradient(backend):
    x = numbanet.tensor([1.0, 2.0], device=backend, requires_grad=True)
    x[[0, 0, 1, 0]].backward(numbanet.tensor([1.0, 2.0, 3.0, 4.0], device=backend))
    assert x.grad.tolist() == [7, 3]


@pytest.mark.parametrize("call, error, words", [
    (lambda x: x[2], IndexRangeError, "2 is out of range for dimension 0 of size 2"),
    (lambda x: x[0, -4], IndexRangeError, "-4 is out of range for dimension 1 of size 3"),
    (lambda x: x[0, 0, 0], IndexRangeError, "3 indices for a tensor of 2"),
    (lambda x: x[..., 0, ...], UsageError, "one ellipsis"),
    (lambda x: x[::-1], UsageError, "flip"),
    (lambda x: x["a"], UsageError, "str"),
    (lambda x: x[0.5], UsageError, "float"),
    (lambda x: x[[0, 5]], IndexRangeError, r"index 5 at position \(1,\) is out of range for axis 0 of size 2"),
    (lambda x: x[:, [-4]], IndexRangeError, "index -4"),
    (lambda x: x[numbanet.tensor([0.5])], DTypeError, "float32"),
    (lambda x: x[[True, False, True]], IndexRangeError, "mask"),
    (lambda x: x[[0, 1], [0, 1, 2]], ShapeError, "broadcast"),
    (lambda x: x.__setitem__(0, numbanet.tensor([1.0, 2.0])), ShapeError, "broadcast"),
    (lambda x: x.__setitem__([5], 0), IndexRangeError, "index 5"),
    (lambda x: x.gather(1, numbanet.tensor([[0, 3]])), IndexRangeError, "index 3"),
    (lambda x: x.gather(1, numbanet.tensor([[0, -1]])), IndexRangeError, "index -1"),
    (lambda x: x.gather(1, numbanet.tensor([0])), ShapeError, "fits into"),
    (lambda x: x.gather(1, numbanet.tensor([[0.0]])), DTypeError, "int64"),
    (lambda x: x.scatter(1, numbanet.tensor([[0, 1]]), numbanet.tensor([[1.0]])), ShapeError, "src"),
    (lambda x: x.scatter(1, numbanet.tensor([[9]]), 1.0), IndexRangeError, "index 9"),
    (lambda x: x.scatter(1, numbanet.tensor([[0]])), UsageError, "src or value"),
    (lambda x: x.index_add(0, numbanet.tensor([0]), x), ShapeError, "one for each slice"),
    (lambda x: x.index_select(0, numbanet.tensor([[0]])), ShapeError, "vector"),
])
def test_errors(call, error, words, backend):
    numbanet.set_default_device(backend)
    try:
        x = numbanet.tensor(np.zeros((2, 3), np.float32))
        with pytest.raises(error, match=words):
            call(x)
        assert (x.numpy() == 0).all()
    finally:
        numbanet.set_default_device(None)
