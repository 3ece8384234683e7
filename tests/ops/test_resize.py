"""Resizing: PyTorch's positions over many sizes, errors, area mode, NaN."""

import numpy as np
import pytest

import numbanet
from numbanet.errors import ShapeError, UnsupportedOperationError, UsageError
from numbanet.ops.resize import interpolate, upsample


def _tensor(values, device, **options):
    return numbanet.tensor(np.asarray(values), device=device, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"mode": "linear"}, {"mode": "linear", "align_corners": True}], ids=str)
def test_positions_are_those_of_torch(backend, dtype, options):
    torch = pytest.importorskip("torch")
    for size in (1, 2, 3, 5, 7, 10):
        x = np.arange(size, dtype=dtype).reshape(1, 1, size) ** 2
        wanted = [{"size": n} for n in (1, 2, 3, 6, 7, 13, 30)] + [{"scale_factor": f} for f in (1.0, 1.1, 1.99, 2.0, 2.4, 3.7)]
        for where in wanted:
            # PyTorch's nearest differs in one dimension from its own in two, where the size stays the same
            x = x if options else x.reshape(1, 1, 1, size)
            where = where if options else {k: (1, v) for k, v in where.items()}
            received = interpolate(_tensor(x, backend), **where, **options).numpy()
            expected = torch.nn.functional.interpolate(torch.tensor(x), **where, **options).numpy()
            assert received.shape == expected.shape
            np.testing.assert_allclose(received, expected, rtol=1e-5 if dtype is np.float32 else 1e-12, atol=1e-5,
                                       err_msg=f"{size} {where}")


def test_area_is_adaptive_average(backend, rng):
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((2, 3, 7, 5))
    np.testing.assert_allclose(interpolate(_tensor(x, backend), (3, 2), mode="area").numpy(),
                               torch.nn.functional.interpolate(torch.tensor(x), (3, 2), mode="area").numpy(), rtol=1e-12)


def test_upsample_is_interpolate(backend):
    x = _tensor(np.arange(4.0).reshape(1, 1, 2, 2), backend)
    np.testing.assert_array_equal(upsample(x, scale_factor=2).numpy(), np.arange(4.0).reshape(1, 1, 2, 2).repeat(2, 2).repeat(2, 3))


@pytest.mark.parametrize("error, options, message", [
    (UsageError, {}, "expected one of size and scale_factor"),
    (UsageError, {"size": 3, "scale_factor": 2}, "expected one of size and scale_factor"),
    (UsageError, {"size": 3, "align_corners": True}, "align_corners is an option of the linear modes"),
    (UsageError, {"size": 3, "recompute_scale_factor": True}, "recompute_scale_factor needs scale_factor"),
    (ShapeError, {"size": (3, 3, 3)}, "size expects a positive number or 2 of them"),
    (ShapeError, {"size": 2.5}, "size expects whole numbers"),
    (ShapeError, {"scale_factor": -1}, "scale_factor expects a positive number"),
    (ShapeError, {"scale_factor": 0.1}, "the output would be of size"),
    (ShapeError, {"size": 3, "mode": "linear"}, "mode 'linear' expects x of 3 dimensions"),
    (UnsupportedOperationError, {"size": 3, "mode": "bicubic"}, "mode 'bicubic' of 4 dimensions is not supported"),
    (UnsupportedOperationError, {"size": 3, "mode": "bilinear", "antialias": True}, "with antialias"),
])
def test_bad_input_is_named(backend, error, options, message):
    with pytest.raises(error, match=message):
        interpolate(_tensor(np.zeros((1, 2, 4, 5), np.float32), backend), **options)


def test_nan_stays_where_it_is_read(backend):
    x = np.zeros((1, 1, 2, 3), np.float32)
    x[0, 0, 0, 0] = np.nan
    y = interpolate(_tensor(x, backend), scale_factor=2).numpy()
    assert np.isnan(y[0, 0, :2, :2]).all() and np.isnan(y).sum() == 4


def test_empty_batches(backend):
    x = _tensor(np.zeros((0, 3, 4, 4), np.float32), backend, requires_grad=True)
    y = interpolate(x, scale_factor=2, mode="bilinear")
    assert y.shape == (0, 3, 8, 8)
    y.backward(_tensor(np.zeros(y.shape, np.float32), backend))
    assert x.grad.shape == x.shape
