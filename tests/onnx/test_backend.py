"""The standard interface, on the onnx package's own cases."""

import unittest

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx.backend.test import BackendTest, runner  # noqa: E402

import numbanet.onnx.backend as backend  # noqa: E402
from numbanet.errors import BackendError, OnnxError, UnsupportedOperationError  # noqa: E402
from numbanet.onnx import pass_table  # noqa: E402
from tests.onnx.onnx_cases import node_model  # noqa: E402


def test_the_runner_of_the_onnx_package_runs_on_it(monkeypatch):
    """One case of each operator, by onnx.backend.test itself."""
    monkeypatch.setattr(runner, "load_model_tests", lambda kind: list(pass_table.node_cases().values()) if kind == "node" else [])
    names = {pass_table.operator_of(case): name for name, case in pass_table.cnn_cases().items() if name not in pass_table.REASONS}
    cases = BackendTest(backend, __name__).test_cases["OnnxBackendNodeModelTest"]
    result = unittest.TestResult()
    unittest.TestSuite(cases(f"{name}_cpu") for name in names.values()).run(result)
    assert result.testsRun == len(names) > 100 and not result.skipped
    assert [f"{test}: {text}" for test, text in result.failures + result.errors] == []


@pytest.mark.parametrize("device", ["reference", pytest.param("cpu", marks=pytest.mark.full)])
def test_every_case_of_convolutional_networks_passes_or_has_its_reason(device):
    cases = pass_table.cnn_cases()
    failed = {name: reason for name, case in cases.items() if (reason := pass_table.failure(case, device))}
    assert set(failed) == set(pass_table.REASONS) & set(cases), failed
    assert len(cases) - len(failed) >= 850


@pytest.mark.parametrize("kind", ["pytorch-converted", "pytorch-operator"])
def test_models_written_by_pytorch(kind):
    cases = list(pass_table.stored_cases(kind))
    assert len(cases) >= 35
    assert {case.name: reason for case in cases if (reason := pass_table.failure(case))} == {}


def test_dropout_in_training_drops_and_scales():
    """The cases whose reason is another random generator: all else about them holds."""
    for name in pass_table.REASONS:
        case = pass_table.node_cases()[name]
        (inputs, _), = case.data_sets
        x, ratio = inputs[0], float(inputs[1]) if len(inputs) > 1 else 0.5
        y, mask = (*backend.run_model(case.model, inputs), None)[:2]
        kept = y != 0 if mask is None else mask
        assert kept.dtype == bool and 0 < kept.sum() < kept.size
        np.testing.assert_allclose(y, np.where(kept, x / (1 - ratio), 0), rtol=1e-6)


@pytest.mark.parametrize("name", [
    "test_squeezenet", "test_shufflenet",
    *(pytest.param(f"test_{name}", marks=pytest.mark.full)
      for name in ("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "vgg19", "zfnet512"))])
def test_whole_architectures(name):
    case, = (case for case in pass_table.stored_cases("light") if case.name == name)
    assert pass_table.failure(case) == ""


DTYPES = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_have_their_declared_dtypes(dtype):
    x = np.array([[1, 0], [1, 1]]).astype(dtype)
    for operator, operands in {"Identity": (x,), "Transpose": (x,), "Concat": (x, x), "Reshape": (x, np.array([-1]))}.items():
        attributes = {"axis": 0} if operator == "Concat" else {}
        y, = backend.run_model(node_model(operator, *operands, **attributes), list(operands))
        assert isinstance(y, np.ndarray) and y.dtype == x.dtype and y.size == x.size * (2 if operator == "Concat" else 1)


def test_bfloat16_goes_in_and_comes_out():
    import ml_dtypes
    x = np.array([1.5, -2], ml_dtypes.bfloat16)
    y, = backend.run_model(node_model("Relu", x), [x])
    assert y.dtype == x.dtype and y.tolist() == [1.5, 0]


def test_outputs_have_names_and_inputs_may():
    x = np.array([3, 1, 2], np.float32)
    model = node_model("TopK", x, np.array([2]), outputs=2)
    prepared = backend.prepare(model)
    result = prepared.run([x, np.array([2])])
    assert result[0].tolist() == [3, 2] and result["y1"].tolist() == [0, 2] and result.y1.dtype == np.int64
    assert prepared.run({"x1": np.array([1]), "x0": x})["y0"].tolist() == [3]
    assert backend.prepare(node_model("Relu", x)).run(-x)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("version", [9, 13, 22])
def test_run_node_infers_outputs(version):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    squeeze = {"axes": [0]} if version < 13 else {}
    operands = [x[None]] if version < 13 else [x[None], np.array([0])]
    node = onnx.helper.make_node("Squeeze", [f"x{i}" for i in range(len(operands))], ["y"], **squeeze)
    np.testing.assert_array_equal(backend.run_node(node, operands, opset_version=version)[0], x)
    add = onnx.helper.make_node("Add", ["x", "x"], ["y"])
    y, = backend.run_node(add, [x], outputs_info=[(np.float32, (2, 3))], device="reference")
    np.testing.assert_array_equal(y, 2 * x)


def test_devices():
    assert backend.supports_device("CPU") and backend.supports_device("reference") and not backend.supports_device("NPU")
    with pytest.raises(BackendError, match="npu"):
        backend.prepare(node_model("Relu", np.zeros(3, np.float32)), "NPU")


def test_what_cannot_run_is_said_before():
    good = node_model("Relu", np.zeros(3, np.float32))
    assert backend.is_compatible(good) and not backend.is_compatible(good, "NPU")
    recurrent = pass_table.node_cases()["test_lstm_defaults"].model
    assert not backend.is_compatible(recurrent)
    with pytest.raises(UnsupportedOperationError, match="LSTM"):
        backend.prepare(recurrent)
    broken = onnx.ModelProto()
    broken.CopyFrom(good)
    broken.graph.node[0].input[0] = "nowhere"
    assert not backend.is_compatible(broken)
    with pytest.raises(OnnxError, match="nowhere"):
        backend.prepare(broken)


def test_the_predicate_splits_all_cases():
    cases, chosen = pass_table.node_cases(), pass_table.cnn_cases()
    operators = {pass_table.operator_of(case) for case in chosen.values()}
    assert {"Conv", "MaxPool", "BatchNormalization", "Resize", "Where", "SoftmaxCrossEntropyLoss"} <= operators
    assert not operators & set().union(*pass_table.OTHER_FAMILIES.values())
    assert not any(pass_table.is_expanded(case) for case in chosen.values())
    families = {pass_table.family_of(case) for case in cases.values()}
    assert families == {"", "other domains", "other types", "expanded functions", *pass_table.OTHER_FAMILIES}
    if onnx.__version__.startswith("1.23."):
        assert len(chosen) == 939 and len(cases) == 1884


def test_a_broken_case_is_reported_with_its_reason():
    case = pass_table.node_cases()["test_relu"]
    (inputs, (expected,)), = case.data_sets
    wrong = pass_table.replace(case, data_sets=[(inputs, [expected + 1])])
    assert "AssertionError" in pass_table.failure(wrong, "reference")
    row, = pass_table.table([case, wrong], "reference")
    assert (row.operator, row.where, row.cases, row.passed, list(row.failed)) == ("Relu", "tensors", 2, 1, ["test_relu"])


@pytest.mark.full
def test_the_page_is_up_to_date():
    text = pass_table.PAGE.read_text()
    stored = text.partition(pass_table.BEGIN + "\n")[2].partition(pass_table.END)[0]
    if f"onnx {onnx.__version__}," in stored:
        assert stored == pass_table.report()
