"""Panels of windows that all jobs share: the numbers of panels that each job packs, bit for bit, for any number of threads."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from numbanet.backends.cpu import threads
from numbanet.backends.cpu.convolution import choose
from numbanet.backends.cpu.convolution.walk import forward_walk
from numbanet.geometry import conv_geometry
from tests.backends.cpu.narrower import on_narrower_vectors, run_narrower
from tests.cases.case import channels_last, floats

forward = import_module("numbanet.backends.cpu.convolution.forward")

CASES = {
    "strided, padded": (2, conv_geometry(5, 70, (9, 11), (3, 3), 2, 1)),
    "dilated": (1, conv_geometry(4, 100, (11, 8), (3, 2), 1, (2, 1), 2)),
    "groups": (1, conv_geometry(6, 150, (7, 5), (3, 3), 1, 1, 1, 2)),
    "crowded pixels": (1, conv_geometry(1024, 80, (3, 5), (1, 1))),
    "chunks": (1, conv_geometry(40, 70, (6, 5), (3, 3), 2, 1)),
}


def _run(label, monkeypatch, rng, together, count):
    batch, g = CASES[label]
    real = choose.gather_plan

    def plan(*arguments):
        plan = real(*arguments)
        chunk = 16 if label == "chunks" else plan.chunk
        row = choose._pitch(choose._taps(g) * chunk + choose.STRIP)
        rows = batch * g.output_size[0] * g.output_size[1] * g.groups * -(-g.channels_per_group // chunk) if together else plan.block
        return plan._replace(chunk=chunk, parts=3, jobs=plan.jobs // plan.parts * 3, together=together, scratch=rows * row + choose.STRIP)
    monkeypatch.setattr(forward.choose, "gather_plan", plan)
    x, weight, bias = (floats(rng, *shape) for shape in ((batch, g.channels, *g.input_size), g.weight_shape, (g.filters,)))
    weight /= np.sqrt(weight[0].size)
    residual = channels_last(floats(rng, batch, g.filters, *g.output_size))
    algorithm = forward.product(forward_walk(g), batch, False, True, lambda weight: forward.grouped(weight, g))
    monkeypatch.undo()
    out = channels_last(np.full(residual.shape, np.nan, np.float32))
    before = threads.get_num_threads()
    threads.set_num_threads(count)
    try:
        forward.execute(algorithm, algorithm.pack(weight, bias), channels_last(x), out, residual, -0.5, 3.0)
    finally:
        threads.set_num_threads(before)
    return out


@pytest.mark.parametrize("label", CASES)
def test_shared_panels(label, monkeypatch):
    expected = _run(label, monkeypatch, np.random.default_rng(3), False, 1)
    for count in (1, 2):
        np.testing.assert_array_equal(_run(label, monkeypatch, np.random.default_rng(3), True, count), expected)
    assert len(np.unique(expected)) > expected.size // 2


def test_panels_of_threads_side_by_side(rng):
    """Rows are written by whole vectors, and what reaches beyond them must not be another thread's."""
    g = conv_geometry(8, 40, (21, 19), (2, 3), 2, 2, 2)         # 48 numbers in pieces of 8: the last vector ends behind the row
    x, weight = channels_last(floats(rng, 60, 8, 21, 19)), floats(rng, *g.weight_shape)
    algorithm = forward.product(forward_walk(g), 60, False, True, lambda weight: forward.grouped(weight, g))
    packed = algorithm.pack(weight, forward.NO_BIAS)
    first, again = (channels_last(np.full((60, 40, *g.output_size), np.nan, np.float32)) for _ in range(2))
    forward.execute(algorithm, packed, x, first)
    for _ in range(60):
        again.fill(np.nan)
        forward.execute(algorithm, packed, x, again)
        np.testing.assert_array_equal(again, first)


@on_narrower_vectors
def test_narrower_vectors(width, cpu):
    run_narrower(__file__, "shared or side", width, cpu, 2)
