"""Padding: errors, dtypes, layouts, empty axes."""

import numpy as np
import pytest

import numbanet
from numbanet.errors import ShapeError, UnsupportedOperationError
from numbanet.ops.padding import pad
from tests.cases.case import channels_last


def _tensor(values, device, **options):
    return numbanet.tensor(np.asarray(values), device=device, **options)


@pytest.mark.parametrize("padding, mode, value, message", [
    ((1,), "constant", None, r"pad expects pairs \(before, after\)"),
    ((1,) * 10, "constant", None, "at most 4 axes"),
    ((-3, -2), "constant", None, "cut off less"),
    ((4, 0), "reflect", None, "mode 'reflect' expects 0 to 3 elements"),
    ((0, 5), "circular", None, "mode 'circular' expects 0 to 4 elements"),
    ((1, 1), "reflect", 2.0, "value expects None"),
    ((1, 1), "mirror", None, "mode expects constant, reflect, replicate, circular"),
])
def test_bad_input_is_named(backend, padding, mode, value, message):
    with pytest.raises(ShapeError, match=message):
        pad(_tensor(np.zeros((2, 3, 5, 4), np.float32), backend)[:, :, 0] if mode != "constant" else
            _tensor(np.zeros((2, 3, 5, 4), np.float32), backend), padding, mode, value)


def test_what_a_mode_cannot_pad_is_named(backend):
    with pytest.raises(UnsupportedOperationError, match="mode 'reflect' pads the last 1 to 3 axes"):
        pad(_tensor(np.zeros((2, 3, 5, 4), np.float32), backend), (1, 1), "reflect")


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [(-1, 2, 1, -2), (2, -3, -1, -1)])
def test_negative_numbers_cut_off_as_in_torch(backend, mode, padding):
    torch = pytest.importorskip("torch")
    x = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    expected = torch.nn.functional.pad(torch.tensor(x), padding, mode)
    np.testing.assert_array_equal(pad(_tensor(x, backend), padding, mode).numpy(), expected.numpy())


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_other_dtypes(backend, mode):
    torch = pytest.importorskip("torch")
    x = np.arange(24).reshape(1, 2, 3, 4)
    np.testing.assert_array_equal(pad(_tensor(x, backend), (1, 2, 0, 1), mode).numpy(),
                                  torch.nn.functional.pad(torch.tensor(x), (1, 2, 0, 1), mode).numpy())


def test_the_memory_order_is_kept(backend):
    x = numbanet.from_numpy(channels_last(np.ones((2, 5, 3, 4), np.float32)), device=backend)
    y = pad(x, (1, 1, 1, 1))
    assert y.stride(1) == 1 and y.shape == (2, 5, 5, 6)
    assert y.numpy().sum() == x.numel()


def test_empty_input_is_filled(backend):
    y = pad(_tensor(np.zeros((2, 0), np.float32), backend), (1, 2), value=4.0)
    np.testing.assert_array_equal(y.numpy(), np.full((2, 3), 4.0))


def test_nothing_to_pad_is_a_copy(backend):
    x = _tensor(np.ones((2, 2), np.float32), backend)
    y = pad(x, ())
    assert y.numpy().tolist() == x.numpy().tolist() and not np.may_share_memory(y.numpy(), x.numpy())
