"""The table of a network, by hand-counted figures."""

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.graph import summarize
from numbanet.zoo import create_model


def rows_of(model, *shape):
    return {row.path: row for row in summarize(model, numbanet.zeros(*shape)).rows}


def test_lenet5():
    model = create_model("lenet5").train()
    summary = summarize(model, numbanet.zeros(1, 1, 32, 32))
    rows = {row.path.partition(".")[2]: row for row in summary.rows}
    assert model.training
    assert [(rows[n].output_shape, rows[n].parameters, rows[n].multiply_adds) for n in ("c1", "c3", "c5", "f6", "output")] == [
        ((1, 6, 28, 28), 156, 28 * 28 * 6 * 25), ((1, 16, 10, 10), 2416, 10 * 10 * 16 * 6 * 25), ((1, 120), 48120, 400 * 120),
        ((1, 84), 10164, 120 * 84), ((1, 10), 850, 840)]
    assert [rows[n].receptive_field for n in ("c1", "relu1", "s2", "c3", "s4", "c5")] == ["5x5", "5x5", "6x6", "14x14", "16x16", "all"]
    assert summary.multiply_adds == 416_520 and summary.parameters == summary.trainable_parameters == 61_706
    assert summary.parameter_bytes == 4 * 61_706
    assert rows["c1"].memory == 4 * 6 * 28 * 28
    assert summary.activation_bytes == sum(row.memory for row in summary.rows)
    assert not any(row.remarks for row in summary.rows)
    assert summary.as_dict()["rows"][0]["kind"] == "Conv2d"


def test_batches_and_frozen_parameters_are_counted():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, groups=1), nn.Flatten(), nn.Linear(48, 5))
    model[0].weight.requires_grad_(False)
    summary = summarize(model, numbanet.zeros(7, 2, 4, 4))
    assert summary.multiply_adds == 7 * (16 * 3 * 2 * 9 + 48 * 5)
    assert (summary.parameters, summary.trainable_parameters) == (57 + 245, 3 + 245)


def test_grouped_dilated_and_strided_convolutions():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, dilation=2), nn.Conv2d(8, 8, (2, 3), stride=(2, 1), groups=8), nn.AvgPool2d(3, 1))
    rows = rows_of(model, 1, 4, 13, 12)
    assert rows["0"].multiply_adds == 9 * 8 * 8 * 9
    assert rows["1"].output_shape == (1, 8, 4, 6) and rows["1"].multiply_adds == 4 * 6 * 8 * 6
    assert [rows[n].receptive_field for n in "012"] == ["5x5", "6x7", "10x9"]       # + (F - 1) * product of earlier strides


def test_branches_take_the_larger_field_and_shared_layers_count_once():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x)) + x
    summary = summarize(Residual(), numbanet.zeros(1, 2, 6, 6))
    assert summary.rows[-1].receptive_field == "5x5"
    assert sum(row.parameters for row in summary.rows) == summary.parameters == 38
    assert summary.multiply_adds == 2 * 36 * 2 * 2 * 9


@pytest.mark.parametrize(("layer", "remark"), [
    (nn.Conv2d(1, 1, 3, stride=3), "(7 - 3 + 0)/3 = 1.33 is not whole: the last of the rows is never read"),
    (nn.Conv2d(1, 1, 2, stride=4), "(7 - 2 + 0)/4 = 1.25 is not whole: the last of the rows is never read"),
    (nn.Conv2d(1, 1, 3, stride=8), "(7 - 3 + 0)/8 = 0.50 is not whole: the last 4 rows are never read"),
    (nn.Conv2d(1, 1, 4, stride=2, padding=1), "(7 - 4 + 2)/2 = 2.50 is not whole: only padding is left out"),
    (nn.MaxPool2d(2), "(7 - 2 + 0)/2 = 2.50 is not whole: the last of the rows is never read"),
    (nn.MaxPool2d(2, ceil_mode=True), "(7 - 2 + 0)/2 = 2.50 is not whole: ceil_mode adds a window that reaches over the border"),
    (nn.Conv2d(1, 1, 2, stride=2, dilation=3), "(7 - 4 + 0)/2 = 1.50 is not whole: the last of the rows is never read")])
def test_strides_that_do_not_fit(layer, remark):
    """What the remark says is seen in the gradient: an input row that is never read gets none."""
    summary = summarize(layer, numbanet.zeros(1, 1, 7, 7))
    row, = summary.rows
    assert row.remarks == [f"rows: {remark}", f"columns: {remark.replace('rows', 'columns')}"]
    assert f"    rows: {remark}" in str(summary).splitlines()
    x = numbanet.tensor(np.arange(49, dtype=np.float32).reshape(1, 1, 7, 7), requires_grad=True)
    if isinstance(layer, nn.Conv2d):
        layer.weight.detach().fill_(1.0)
    layer(x).sum().backward()
    last_read = max(np.flatnonzero(x.grad.numpy()[0, 0].any(1)))
    unread = 0 if "never" not in remark else 1 if "of the" in remark else 4
    assert 6 - last_read == unread


@pytest.mark.parametrize("layer", [nn.Conv2d(1, 1, 3, stride=2), nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(3, 2), nn.Conv2d(1, 1, 7)])
def test_strides_that_fit_get_no_remark(layer):
    assert not summarize(layer, numbanet.zeros(1, 1, 7, 7)).rows[0].remarks


def test_layers_over_sequences():
    rows = rows_of(nn.Sequential(nn.Conv1d(2, 3, 4, stride=2)), 1, 2, 9)        # runs as one row
    assert rows["0"].receptive_field == "1x4"
    assert rows["0"].remarks == ["columns: (9 - 4 + 0)/2 = 2.50 is not whole: the last of the columns is never read"]
