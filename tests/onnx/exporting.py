"""Exporting a function or module, running the file with onnxruntime, comparing."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

import numbanet
from numbanet._tensor import Tensor
from numbanet.onnx.exporter import save


def session(path):
    """The file checked with every check that onnx has, shape inference among them, and loaded by onnxruntime, on one thread."""
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(path, inputs) -> list[np.ndarray]:
    """What onnxruntime makes of the inputs, in the file's order."""
    loaded = session(path)
    return loaded.run(None, dict(zip([i.name for i in loaded.get_inputs()], inputs)))


def assert_close(received, expected, tolerance=1e-5):
    """Equal shape, dtype and integers; floats to `tolerance` times the largest finite element."""
    assert received.shape == expected.shape and received.dtype == expected.dtype
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(received, expected)
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(received[~finite], expected[~finite])
    scale = np.abs(expected[finite]).max(initial=0) or 1.0
    assert np.abs(received[finite].astype(np.float64) - expected[finite]).max(initial=0) <= tolerance * scale


def check(model, path, *arrays, batches=(1, 4), tolerance=1e-5, **options):
    """Export `model` for inputs like `arrays`; onnxruntime agrees, also for other batches. Returns the loaded file."""
    save(model, path, tuple(numbanet.tensor(a) for a in arrays), **options)
    loaded = session(path)
    names = [i.name for i in loaded.get_inputs()]
    for batch in (None, *batches):
        given = [a if batch is None or a.ndim == 0 or a.shape[0] != arrays[0].shape[0] else np.resize(a[::-1], (batch, *a.shape[1:]))
                 for a in arrays]
        with numbanet.no_grad():
            expected = model(*[numbanet.tensor(a) for a in given])
        expected = (expected,) if isinstance(expected, Tensor) else expected
        received = loaded.run(None, dict(zip(names, given)))
        assert len(received) == len(expected)
        for r, e in zip(received, expected):
            assert_close(r, e.numpy(), tolerance)
    return onnx.load(path)


def nodes(model) -> list[str]:
    """The operators of a file, in order."""
    return [node.op_type for node in model.graph.node]
