"""The scripts of `examples/` run, and what they show holds."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import numbanet
import numbanet.backends as backends
from numbanet import nn
from numbanet.autograd import gradient_check
from numbanet.backends.host import HostBackend
from numbanet.errors import BackendError

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_script_runs(script, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.fixture(scope="module")
def own():
    """The module of the own operation; its primitive is declared only while this file's tests run."""
    specification = importlib.util.spec_from_file_location("own_operation", EXAMPLES / "own_operation.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield module
    del backends.PRIMITIVES["snake_forward"]
    for name in ("reference", "cpu"):
        del backends._attached[name]["snake_forward"]
        backends.get_backend(name).implementations.pop("snake_forward", None)


def test_own_operation_is_short():
    assert len((EXAMPLES / "own_operation.py").read_text().splitlines()) < 60


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_own_operation_on_the_tape(own, backend, dtype, rng):
    values = rng.standard_normal((4, 6)).astype(dtype)[::2, ::-1]
    x = numbanet.tensor(values, device=backend, requires_grad=True)
    y = own.Snake.apply(x, 1.5)
    y.sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), values + np.sin(1.5 * values) ** 2 / 1.5, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), 1 + np.sin(3 * values), rtol=1e-5, atol=1e-6)
    wide = numbanet.tensor(values.astype(np.float64), device=backend, requires_grad=True)
    assert gradient_check(lambda x: own.Snake.apply(x, 1.5), wide)


def test_own_operation_in_a_graph(own, rng):
    model = nn.Sequential(nn.Linear(3, 4), own.SnakeLayer())
    x = numbanet.from_numpy(rng.standard_normal((2, 3)).astype(np.float32))
    graph = numbanet.trace(model, x)
    assert graph.primitives() == ["linear_forward", "snake_forward"]
    expected = model(x).detach().numpy()
    for device in ("cpu", "reference"):
        np.testing.assert_allclose(graph.run(x, device=device).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert "SnakeLayer" in str(numbanet.summarize(model, x))


def test_a_backend_without_the_primitive_names_it(own, monkeypatch):
    class Bare(HostBackend):
        name, implementations = "bare", backends.Implementations("bare")

    monkeypatch.setattr(backends, "_factories", {})
    monkeypatch.setattr(backends, "_instances", dict(backends._instances))
    backends.register_backend("bare", Bare)
    with pytest.raises(BackendError, match="snake_forward.*'bare'.*register_primitive"):
        own.Snake.apply(numbanet.tensor([1.0, 2.0], device="bare"), 1.5)


def test_own_kernels_are_checked_when_they_are_attached(own):
    with pytest.raises(BackendError, match="snake_forward.*out"):
        backends.register_primitive("snake_forward", "cpu")(lambda x, a: None)
    with pytest.raises(BackendError, match="not a declared primitive"):
        backends.register_primitive("snake_backward", "cpu")(lambda x, a, out: None)
