"""Tensors among other Python objects: numbers, iteration, text, copies, pickles, DLPack."""

import copy
import pickle

import numpy as np
import pytest

import numbanet
from numbanet.errors import AutogradError, BackendError, DTypeError, UsageError
from numbanet.ops.factories import arange
from numbanet.ops.interchange import from_dlpack
from tests.cases.case import channels_last


def test_numbers(backend):
    one = numbanet.tensor([[2]], device=backend)
    assert int(one) == 2 and float(one) == 2.0 and [10, 20, 30][one] == 30 and bool(one)
    assert not numbanet.tensor(0.0, device=backend) and float(numbanet.tensor(0.5, device=backend)) == 0.5
    assert f"{numbanet.tensor(3.14159, device=backend):.2f}" == "3.14"
    assert f"{numbanet.tensor(7, device=backend):03d}" == "007"
    assert f"{numbanet.tensor([1, 2])}" == "tensor([1, 2])"


def test_iteration_and_membership(backend):
    x = numbanet.tensor([[1.0, 2.0], [3.0, 4.0]], device=backend, requires_grad=True)
    first, second = x
    assert second.tolist() == [3, 4] and 4.0 in x and 5.0 not in x and numbanet.tensor(1.0) in x
    first[0].backward()
    assert x.grad.tolist() == [[1, 0], [0, 0]]
    assert list(numbanet.tensor(np.zeros((0, 2)), device=backend)) == []
    with pytest.raises(TypeError, match="without dimensions"):
        iter(numbanet.tensor(1.0, device=backend))


TEXTS = [
    1, 2.5, [1.0, 2.0], [1.5, -2.25], [[1, 20], [300, 4]], [True, False], [1e-5, 1.0], [1e9, 1.0],
    [np.nan, 1.5, np.inf, -np.inf], [np.nan, 1.0], [0.0, 0.0], [], [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]],
    list(range(1001)), [float(i) / 7 for i in range(2000)], list(range(40)),
    [[0.001 * i * j for j in range(60)] for i in range(30)],
]


@pytest.mark.parametrize("data", TEXTS, ids=range(len(TEXTS)))
def test_text_is_that_of_torch(data):
    torch = pytest.importorskip("torch")
    assert repr(numbanet.tensor(data)) == repr(torch.tensor(data))


def test_text_says_what_is_not_as_usual():
    x = numbanet.tensor(np.ones(1), device="reference", requires_grad=True)
    assert repr(x) == "tensor([1.], device='reference', dtype=numbanet.float64, requires_grad=True)"
    assert repr(numbanet.functional.relu(numbanet.tensor([1.0], requires_grad=True))) == "tensor([1.], grad_fn=<relu>)"
    assert repr(numbanet.tensor(np.zeros((0, 3), np.float32))) == "tensor([], size=(0, 3))"
    assert repr(numbanet.tensor([1.5]).to(dtype="float16")) == "tensor([1.5000], dtype=numbanet.float16)"
    assert repr(numbanet.tensor([1, 2], dtype="uint8")) == "tensor([1, 2], dtype=numbanet.uint8)"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_and_pickles(copied, backend):
    x = numbanet.tensor([[1.0, np.nan]], device=backend, requires_grad=True)
    x.label = ["own"]
    made = copied(x)
    assert made.requires_grad and made.is_leaf and made.device == backend
    assert made.label == ["own"] and made.label is not x.label
    np.testing.assert_array_equal(made.detach().numpy(), x.detach().numpy())
    with numbanet.no_grad():
        made[0, 0] = 9
    assert x.tolist()[0][0] == 1


def test_deepcopy_keeps_memory_order_gradient_and_identity(backend, rng):
    x = numbanet.from_numpy(channels_last(rng.standard_normal((2, 3, 4, 5))), device=backend)
    x.grad = numbanet.tensor(np.ones(x.shape), device=backend)
    first, second = copy.deepcopy([x, x])
    assert first is second and first.stride() == x.stride()
    assert (first.grad.numpy() == 1).all() and first.grad is not x.grad


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps], ids=["deepcopy", "pickle"])
def test_only_leaves_are_copied(copied):
    with pytest.raises(AutogradError, match="leaves"):
        copied(numbanet.tensor([1.0], requires_grad=True).clone())


@pytest.mark.parametrize("kind", [numbanet.nn.Parameter, numbanet.nn.Buffer])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_subclasses_stay(kind, copied):
    made = copied(kind(numbanet.tensor([1.0])))
    assert type(made) is kind and made.tolist() == [1]
    assert getattr(made, "persistent", None) == getattr(kind(numbanet.tensor([1.0])), "persistent", None)


def test_dlpack_shares_memory_with_numpy(backend):
    x = numbanet.tensor([[1.0, 2.0], [3.0, 4.0]], device=backend)
    shared = np.from_dlpack(x.T)
    x[0, 1] = 7
    assert shared[1, 0] == 7 and shared.strides == x.T.array.strides
    values = np.arange(6.0).reshape(2, 3)[:, ::2]
    assert from_dlpack(values).array.ctypes.data == values.ctypes.data


def test_dlpack_shares_memory_with_torch(backend):
    torch = pytest.importorskip("torch")
    x = numbanet.tensor([1.0, 2.0], device=backend)
    theirs = torch.from_dlpack(x)
    theirs[1] = 5
    assert x.tolist() == [1, 5]
    theirs = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    ours = from_dlpack(theirs)
    assert ours.stride() == theirs.stride() and ours.tolist() == theirs.tolist()
    theirs[0, 0, 0, 0] = 9
    assert ours[0, 0, 0, 0].item() == 9
    assert from_dlpack(torch.tensor([True, False])).dtype == numbanet.bool


def test_array_protocol(backend):
    x = numbanet.tensor([1.0, 2.0], device=backend)
    assert np.asarray(x).tolist() == [1, 2] and np.add(x.numpy(), 1).tolist() == [2, 3]
    assert np.asarray(x, np.int64).dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        x.numpy()[0] = 3


def test_devices_and_kinds():
    x = numbanet.tensor([1.0], device="reference")
    assert x.cpu().device == "cpu" and x.type_as(arange(1)).dtype == numbanet.int64
    with pytest.raises(BackendError, match="cuda"):
        x.cuda()


def test_sizes(backend):
    x = numbanet.tensor(np.zeros((2, 3), np.float32), device=backend)
    assert x.size() == x.shape == (2, 3) and x.size(-1) == 3 and len(x) == x.dim() == 2
    assert x.numel() == 6 and x.nbytes == 24


@pytest.mark.parametrize("call, error, words", [
    (lambda x: bool(x), UsageError, "ambiguous"),
    (lambda x: x.item(), UsageError, "one element"),
    (lambda x: [1, 2][x[0]], DTypeError, "integer"),
    (lambda x: np.from_dlpack(x.requires_grad_()), AutogradError, "detach"),
    (lambda x: x.requires_grad_().numpy(), AutogradError, "detach"),
    (lambda x: numbanet.tensor([[1], [2, 3]]), UsageError, "ragged"),
    (lambda x: numbanet.tensor(["a"]), DTypeError, "numbers"),
])
def test_errors(call, error, words, backend):
    with pytest.raises(error, match=words):
        call(numbanet.tensor([1.0, 2.0], device=backend))


def test_what_scripts_ask_torch_for(backend):
    x = numbanet.zeros(2, 3, device=backend)
    assert numbanet.is_tensor(x) and not numbanet.is_tensor(np.zeros(2))
    assert numbanet.numel(x) == x.nelement() == 6 and x.ndimension() == 2 and not x.is_cuda
    assert numbanet.is_floating_point(x) and not numbanet.is_floating_point(x.long())
    assert numbanet.zeros(1, dtype=numbanet.float).dtype == numbanet.float32 and numbanet.int == numbanet.int32
    assert (numbanet.inf, numbanet.pi) == (np.inf, np.pi)


def test_scripts_choose_a_device():
    available = numbanet.backends.available_backends().get("cuda") == ""
    assert numbanet.cuda.is_available() is available and numbanet.cuda.device_count() == available
    numbanet.cuda.manual_seed_all(3)
    assert numbanet.initial_seed() == 3
    assert numbanet.ones(1).to("cuda" if numbanet.cuda.is_available() else "cpu").sum().item() == 1
