"""Copies of maps by kernels."""

import numpy as np
import pytest

from numbanet.backends import get_backend
from numbanet.backends.cpu.layout import copy_into, copy_kernels, copy_pixels
from tests.cases.case import channels_last, floats

CPU = get_backend("cpu")


def test_slices_of_channels_are_copied_by_a_kernel(rng):
    x, out = channels_last(floats(rng, 2, 40, 9, 8)), channels_last(np.full((2, 60, 9, 8), np.nan, np.float32))
    part = out[:, 20:57]
    (call,) = copy_kernels(x[:, 3:], part)
    assert call[0] is copy_pixels
    copy_into(x[:, 3:], part)
    np.testing.assert_array_equal(part, x[:, 3:])
    assert np.isnan(out[:, :20]).all() and np.isnan(out[:, 57:]).all()


@pytest.mark.parametrize("shift", [1, -1])
def test_what_overlaps_is_copied_as_it_was(shift, rng):
    """Channels one place up or down within one map."""
    x = channels_last(floats(rng, 2, 70, 9, 8))
    lower, upper = x[:, :-1], x[:, 1:]
    source, target = (lower, upper) if shift == 1 else (upper, lower)
    expected = source.copy()
    CPU.copy(source, out=target)
    np.testing.assert_array_equal(target, expected)
