"""Views and rearrangements against PyTorch, what shares memory, and errors."""

import numpy as np
import pytest

import numbanet
from numbanet.errors import IndexRangeError, ShapeError, UsageError
from numbanet.ops import diagonal, rearrange, shape
from tests.cases.case import channels_last

METHODS = {
    "view": lambda x: x.view(6, -1),
    "view-channels-last": lambda x: x.permute(0, 3, 1, 2).contiguous().view(2, -1),
    "flatten-middle": lambda x: x.flatten(1, -2),
    "unflatten": lambda x: x.unflatten(-1, (5, -1)),
    "squeeze": lambda x: x[:, :1].squeeze(),
    "squeeze-dims": lambda x: x[:1, :1].squeeze((0, 2)),
    "squeeze-nothing": lambda x: x.squeeze(1),
    "unsqueeze": lambda x: x.unsqueeze(-1).unsqueeze(0),
    "permute-tuple": lambda x: x.permute((3, 1, -2, 0)),
    "swapaxes": lambda x: x.swapaxes(-1, 0),
    "movedim": lambda x: x.movedim((0, 2), (3, 0)),
    "t": lambda x: x[0, 0].t(),
    "mT": lambda x: x.mT,
    "expand": lambda x: x[:, :1].expand(-1, 7, -1, 5),
    "expand_as": lambda x: x[:, :1].expand_as(x),
    "narrow": lambda x: x.narrow(1, -2, 2),
    "select": lambda x: x.select(-1, -2),
    "repeat": lambda x: x.repeat(2, 1, 1, 2, 1),
    "tile": lambda x: x.tile(2, 3),
    "repeat_interleave": lambda x: x.repeat_interleave(3, 1),
    "repeat_interleave-flat": lambda x: x.repeat_interleave(2),
    "roll-flat": lambda x: x.roll(-7),
    "roll": lambda x: x.roll((1, 9), (-1, 1)),
    "unbind": lambda x: x.unbind(1),
    "split": lambda x: x.split(2, 1),
    "split-sizes": lambda x: x.split([1, 0, 2], 1),
    "chunk": lambda x: x.chunk(2, -1),
    "chunk-more-than-there-are": lambda x: x.chunk(9, 1),
    "diagonal": lambda x: x.diagonal(1, 1, -1),
    "diagonal-below": lambda x: x.diagonal(-2, 2, 3),
    "tril": lambda x: x.tril(1),
    "triu": lambda x: x.triu(-1),
    "diag-matrix": lambda x: x[0, 0].diag(1),
    "diag-vector": lambda x: x[0, 0, 0].diag(-2),
}


def _values(result):
    return [r.detach().numpy() for r in (result if isinstance(result, (tuple, list)) else (result,))]


def _same(ours, theirs):
    ours, theirs = _values(ours), _values(theirs)
    assert len(ours) == len(theirs)
    for o, t in zip(ours, theirs):
        assert o.shape == t.shape
        np.testing.assert_array_equal(o, t)


@pytest.mark.parametrize("name", METHODS)
def test_methods_agree_with_torch(name, backend, rng):
    torch = pytest.importorskip("torch")
    values = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    _same(METHODS[name](numbanet.tensor(values, device=backend)), METHODS[name](torch.tensor(values)))


@pytest.mark.parametrize("name, options", [("pixel_shuffle", (3,)), ("pixel_unshuffle", (2,)),
                                           ("channel_shuffle", (6,))])
def test_shuffles_agree_with_torch(name, options, backend, rng):
    torch = pytest.importorskip("torch")
    values = rng.standard_normal((2, 18, 4, 6)).astype(np.float32)
    _same(getattr(rearrange, name)(numbanet.tensor(values, device=backend), *options),
          getattr(torch.nn.functional, name)(torch.tensor(values), *options))


@pytest.mark.parametrize("name", ["hstack", "vstack"])
@pytest.mark.parametrize("sizes", [(), (3,), (2, 3)])
def test_stacks_agree_with_torch(name, sizes, rng):
    torch = pytest.importorskip("torch")
    a, b = rng.standard_normal((2, *sizes))
    _same(getattr(rearrange, name)([numbanet.tensor(a), numbanet.tensor(b)]),
          getattr(torch, name)([torch.tensor(a), torch.tensor(b)]))


@pytest.mark.parametrize("indexing", ["ij", "xy"])
def test_meshgrid_agrees_with_torch(indexing):
    torch = pytest.importorskip("torch")
    _same(shape.meshgrid(numbanet.tensor([1, 2]), numbanet.tensor([3, 4, 5]), indexing=indexing),
          torch.meshgrid(torch.tensor([1, 2]), torch.tensor([3, 4, 5]), indexing=indexing))


def test_cat_promotes_and_leaves_out_empty_vectors(backend):
    joined = rearrange.cat([numbanet.tensor([], device=backend), numbanet.tensor([[1, 2]], device=backend),
                            numbanet.tensor([[0.5, 1]], device=backend)])
    assert joined.dtype == numbanet.float32 and joined.tolist() == [[1, 2], [0.5, 1]]


def test_views_share_memory_and_version(backend):
    x = numbanet.tensor(np.arange(24.0).reshape(2, 3, 4), device=backend)
    views = [x.view(4, 6), x.permute(2, 0, 1), x[1], x.unsqueeze(0), x.expand(5, 2, 3, 4), x.split(1)[0],
             x.unbind(1)[2], x.T, x[...]]
    before = x._version
    x[:] = 7
    for v in views:
        assert (v.numpy() == 7).all() and v._version == before + 1
    assert x.clone()._version == 0


def test_reshape_of_channels_last_copies_in_logical_order(backend, rng):
    values = rng.standard_normal((2, 5, 3, 4)).astype(np.float32)
    x = numbanet.from_numpy(channels_last(values), device=backend)
    assert not x.is_contiguous() and x.is_contiguous(memory_format=rearrange.channels_last)
    np.testing.assert_array_equal(x.view(2, -1).numpy(), values.reshape(2, -1))


def test_contiguous_and_clone_choose_the_memory_order(backend, rng):
    values = rng.standard_normal((2, 5, 3, 4)).astype(np.float32)
    x = numbanet.tensor(values, device=backend)
    assert x.contiguous() is x
    last = x.contiguous(memory_format=rearrange.channels_last)
    assert last.stride() == (60, 1, 20, 5) and last.clone().stride() == last.stride()
    assert last.clone(memory_format=rearrange.contiguous_format).stride() == x.stride() == last.contiguous().stride()
    np.testing.assert_array_equal(last.numpy(), values)
    assert not x[:, ::2].is_contiguous() and x[:0].is_contiguous() and x[:, :, :1, :1][:1].is_contiguous() is False


def test_flip_takes_a_tuple(backend):
    assert numbanet.tensor([[1, 2], [3, 4]], device=backend).flip((0, 1)).tolist() == [[4, 3], [2, 1]]


def test_diag_of_a_vector_has_a_gradient():
    x = numbanet.tensor([1.0, 2.0], requires_grad=True)
    matrix = diagonal.diag(x)
    matrix.backward(numbanet.tensor([[5.0, 6.0], [7.0, 8.0]]))
    assert x.grad.tolist() == [5, 8]


def _x():
    return numbanet.tensor(np.zeros((2, 3, 4), np.float32))


@pytest.mark.parametrize("call, error, words", [
    (lambda x: x.reshape(5, -1), ShapeError, "24 elements"),
    (lambda x: x.reshape(-1, -1), ShapeError, "at most one -1"),
    (lambda x: x.reshape(2, -2, 6), ShapeError, "at most one -1"),
    (lambda x: x[:0].reshape(0, -1), ShapeError, "0 elements"),
    (lambda x: x.reshape(5, 5), ShapeError, "24 elements"),
    (lambda x: x.flatten(2, 1), ShapeError, "start_dim"),
    (lambda x: x.unflatten(1, (2, 2)), ShapeError, "multiply to 3"),
    (lambda x: x.permute(0, 1), ShapeError, "3 dimensions"),
    (lambda x: x.permute(0, 1, 1), ShapeError, "twice"),
    (lambda x: x.transpose(0, 3), IndexRangeError, "-3 to 2"),
    (lambda x: x.unsqueeze(5), IndexRangeError, "-4 to 3"),
    (lambda x: x.expand(2, 4, 4), ShapeError, "cannot be expanded"),
    (lambda x: x.expand(3, 4), ShapeError, "cannot be expanded"),
    (lambda x: x.t(), ShapeError, "2 dimensions"),
    (lambda x: x.narrow(1, 2, 2), IndexRangeError, "exceed dimension 1 of size 3"),
    (lambda x: x.select(0, 2), IndexRangeError, "index 2"),
    (lambda x: x.split((1, 1), 1), ShapeError, "sum to 3"),
    (lambda x: x.split(0), ShapeError, "positive"),
    (lambda x: x.chunk(0), UsageError, "at least 1"),
    (lambda x: x.repeat(2, 2), ShapeError, "at least 3"),
    (lambda x: rearrange.cat([]), ShapeError, "none"),
    (lambda x: rearrange.cat([x, x[:, :2]], 2), ShapeError, "except along axis 2"),
    (lambda x: rearrange.stack([x, x[:1]]), ShapeError, "one shape"),
    (lambda x: rearrange.stack([]), ShapeError, "none"),
    (lambda x: rearrange.pixel_shuffle(x, 2), ShapeError, "divisible by 2"),
    (lambda x: x.contiguous(memory_format="rows"), UsageError, "memory_format"),
    (lambda x: x.contiguous(memory_format="channels_last"), ShapeError, "N, C, H, W"),
])
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call(_x())
