"""``NUMBANET_DEBUG=1``: a line for each layer, by standard logging."""

import logging
import re

import numpy as np

import numbanet
from numbanet.graph.timing import limits

LINE = re.compile(r"(?P<layer>\S+) +(?P<kernel>\S.*?) +(?P<ms>[\d.]+) ms +(?P<flops>[\d.]+) GFLOP/s +(?P<bytes>[\d.]+) GB/s +"
                  r"(?P<limit>\d+)% of the limit +(?P<share>[\d.]+)% of the time$")


def replay(monkeypatch, caplog, value):
    monkeypatch.setenv("NUMBANET_DEBUG", value)
    model, x = numbanet.create_model("lenet5").eval(), numbanet.randn(3, 1, 32, 32)
    compiled = numbanet.compile(model, x)
    with caplog.at_level(logging.DEBUG, "numbanet.plan"):
        y = compiled(x)
    with numbanet.no_grad():
        np.testing.assert_allclose(y.numpy(), model(x).numpy(), rtol=1e-4, atol=1e-5)
    return compiled.plan(), [r.getMessage() for r in caplog.records if r.name == "numbanet.plan"]


def test_every_layer_has_its_line(monkeypatch, caplog):
    plan, lines = replay(monkeypatch, caplog, "1")
    found = [LINE.match(line) for line in lines[:-1]]
    assert all(found) and [m["layer"] for m in found] == [node.path for node in plan.graph.nodes if node.primitive != "concatenate"]
    assert abs(sum(float(m["share"]) for m in found) - 100) < 1
    convolution, flattening = found[0], found[2]
    assert "conv2d" in convolution["kernel"] and float(flattening["flops"]) == 0
    flops = 2 * 3 * 6 * 28 * 28 * 25 / (float(convolution["ms"]) * 1e-3)
    np.testing.assert_allclose(float(convolution["flops"]), flops / 1e9, rtol=0.1, atol=0.1)       # both are rounded
    assert "limits" in lines[-1] and min(limits(plan.backend)) > 0


def test_silent_otherwise(monkeypatch, caplog):
    assert replay(monkeypatch, caplog, "0")[1] == []
    caplog.clear()
    assert replay(monkeypatch, caplog, "")[1] == []
