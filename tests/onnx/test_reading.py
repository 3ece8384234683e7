"""What is refused, with which words, and before anything is allocated; external data stay in the model's folder."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import numbanet  # noqa: E402
from numbanet.errors import BackendError, NumbanetError, OnnxError, UnsupportedOperationError  # noqa: E402
from numbanet.onnx import limits, load, reading  # noqa: E402
from tests.onnx.models import model_of, node, small_network, tensor_of, value, with_a_function, with_external_data  # noqa: E402

RNG = np.random.default_rng(3)


@pytest.fixture
def network():
    return small_network(RNG)


def refused(model, *words, error=OnnxError):
    begin = time.perf_counter()
    with pytest.raises(error) as caught:
        load(model if isinstance(model, (bytes, os.PathLike)) else model.SerializeToString())
    assert time.perf_counter() - begin < 2
    for word in words:
        assert word in str(caught.value), str(caught.value)


# --- bytes ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("data", [b"", b"garbage", bytes(1000), b"\xff" * 100, b"PK\x03\x04" + bytes(60)])
def test_what_is_no_model(data):
    refused(data, "onnx")


def test_truncated_files(network):
    data = network.SerializeToString()
    for end in (1, 10, 100, len(data) // 2, len(data) - 1):
        refused(data[:end], "onnx")


def test_missing_files_and_folders(tmp_path):
    refused(tmp_path / "none.onnx", "does not exist")
    refused(tmp_path, "is not a file")


def test_files_that_are_empty_or_large_and_no_model(tmp_path):
    (tmp_path / "empty.onnx").write_bytes(b"")
    refused(tmp_path / "empty.onnx", "not empty")
    for size in (1 << 30, 1 << 31):                     # sparse: takes no room on the disk
        with (tmp_path / "large.onnx").open("wb") as file:
            file.truncate(size)
        refused(tmp_path / "large.onnx", "large.onnx")


def test_the_package_onnx_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendError, match="pip install onnx"):
        reading.onnx_package()


def test_text_that_is_not_utf8(network):
    refused(network.SerializeToString().replace(b"/conv/Conv", b"/conv\xff\xfeonv"), "UTF-8")


# --- graphs ---------------------------------------------------------------------------------------------------------

X = value("x", [2, 3])


def test_missing_inputs_cycles_and_duplicates():
    refused(model_of([node("Relu", "nowhere", "y", "first")], [X], ["y"]), "nowhere")
    refused(model_of([node("Add", "x b", "a"), node("Relu", "a", "b")], [X], ["b"]))
    refused(model_of([node("Relu", "y", "z"), node("Relu", "x", "y")], [X], ["z"]))
    refused(model_of([node("Relu", "x", "y"), node("Abs", "x", "y")], [X], ["y"]), "y")
    refused(model_of([node("Relu", "x", "y")], [X, X], ["y"]), "x")
    refused(model_of([node("Relu", "x", "y")], [X], ["other"]), "other")


def test_all_unsupported_operators_at_once_with_their_nodes():
    model = model_of([node("Loop", "x", "a", "turn"), node("Relu", "x", "r"), node("StringNormalizer", "r", "b", "text"),
                      onnx.helper.make_node("Magic", ["b"], ["y"], name="trick", domain="elsewhere")], [X], ["y"], domains=["elsewhere"])
    refused(model, "ai.onnx.Loop (opset 17): turn", "ai.onnx.StringNormalizer (opset 17): text", "elsewhere.Magic (opset 1): trick",
            error=UnsupportedOperationError)


def test_an_if_whose_condition_is_computed_is_named():
    branch = onnx.helper.make_graph([node("Relu", "x", "z")], "b", [], [value("z")])
    model = model_of([node("ReduceMax", "x", "m", keepdims=0), node("Cast", "m", "c", to=onnx.TensorProto.BOOL),
                      node("If", "c", "y", "choice", then_branch=branch, else_branch=branch)], [X], ["y"])
    refused(model, "ai.onnx.If (opset 17): choice", "constant", error=UnsupportedOperationError)


def test_opsets():
    too_new = onnx.defs.onnx_opset_version() + 1
    refused(model_of([node("Relu", "x", "y")], [X], ["y"], opset=too_new), str(too_new), "update the onnx package")
    none = model_of([node("Relu", "x", "y")], [X], ["y"])
    none.opset_import[0].domain = "elsewhere"
    refused(none, "opset", error=NumbanetError)
    twice = model_of([node("Relu", "x", "y")], [X], ["y"])
    twice.opset_import.add(domain="", version=13)
    refused(twice, "two opsets")


def test_functions_that_call_themselves_or_explode():
    def calling(name, *calls):
        nodes = [onnx.helper.make_node(call, ["a"], [f"b{i}"], domain="mine") for i, call in enumerate(calls)]
        return onnx.helper.make_function("mine", name, ["a"], [f"b{len(calls) - 1}"], nodes,
                                         [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("mine", 1)])
    call = [onnx.helper.make_node("F0", ["x"], ["y"], domain="mine")]
    refused(model_of(call, [X], ["y"], functions=[calling("F0", "F1"), calling("F1", "F0")], domains=["mine"]))
    bomb = [calling(f"F{i}", f"F{i + 1}", f"F{i + 1}") for i in range(40)]
    bomb.append(onnx.helper.make_function("mine", "F40", ["a"], ["b"], [node("Relu", "a", "b")], [onnx.helper.make_opsetid("", 17)]))
    refused(model_of(call, [X], ["y"], functions=bomb, domains=["mine"]))


# --- tensors --------------------------------------------------------------------------------------------------------

def test_tensors_whose_bytes_do_not_fit_their_shape():
    for rows in (2, 10_000):            # small tensors are also seen by the checker of the onnx package
        model = model_of([node("Add", "x w", "y")], [value("x", ["N", 3])], ["y"], {"w": np.zeros((rows, 3), np.float32)})
        model.graph.initializer[0].dims[0] = rows + 1
        refused(model, "w", f"{rows * 12 + 12} bytes", str(rows * 12))
        model.graph.initializer[0].dims[0] = 1 << 31
        refused(model, "w")
        model.graph.initializer[0].dims[0] = -2
        refused(model, "w")


def test_typed_fields():
    types = onnx.TensorProto
    cases = [(types.FLOAT, [1.5, -2], np.float32), (types.DOUBLE, [1.5, -2], np.float64), (types.INT64, [1, -(2**62)], np.int64),
             (types.UINT64, [1, 2**63 + 1], np.uint64), (types.INT8, [1, -128], np.int8), (types.UINT8, [0, 255], np.uint8),
             (types.BOOL, [0, 1], np.bool_), (types.FLOAT16, [1.5, -2], np.float16)]
    for kind, values, dtype in cases:
        tensor = onnx.helper.make_tensor("t", kind, [2], values)
        received = reading.tensor_values(tensor, None)
        assert received.dtype == dtype
        np.testing.assert_array_equal(received, np.array(values, dtype))
    bfloat16 = onnx.helper.make_tensor("t", types.BFLOAT16, [2], [1.5, -2])
    np.testing.assert_array_equal(reading.tensor_values(bfloat16, None).astype(np.float32), [1.5, -2])
    outside = onnx.TensorProto(name="t", data_type=types.UINT8, dims=[1], int32_data=[300])
    with pytest.raises(OnnxError, match="not of uint8"):
        reading.tensor_values(outside, None)
    text = onnx.helper.make_tensor("t", types.STRING, [1], [b"a"])
    with pytest.raises(OnnxError, match="STRING"):
        reading.tensor_values(text, None)


SHAPES = {
    "ConstantOfShape": model_of([node("ConstantOfShape", "s", "y")], [value("s", [2], np.int64)], ["y"]),
    "Expand": model_of([node("Constant", "", "one", value=tensor_of(np.ones(1, np.float32), "v")), node("Expand", "one s", "y")],
                       [value("s", [2], np.int64)], ["y"]),
    "Range": model_of([node("Squeeze", "a", "zero"), node("Squeeze", "b", "end"), node("Squeeze", "c", "step"),
                       node("Range", "zero end step", "y"), node("Identity", "s", "t")],
                      [value("s", [2], np.int64), *(value(n, [1], np.int64) for n in "abc")], [value("y", [1], np.int64)]),
}


@pytest.mark.parametrize("name", ["ConstantOfShape", "Expand"])
def test_dimensions_of_2_to_the_31(name):
    model = load(SHAPES[name].SerializeToString())
    begin = time.perf_counter()
    for sizes in ([1 << 31, 1], [1 << 20, 1 << 20], [(1 << 63) - 1, (1 << 63) - 1]):
        with pytest.raises(OnnxError, match="elements; expected at most"):
            model(np.array(sizes))
    assert time.perf_counter() - begin < 2


def test_a_range_without_end():
    model = load(SHAPES["Range"].SerializeToString())
    with pytest.raises(OnnxError, match="elements; expected at most"):
        model(s=np.zeros(2, np.int64), a=np.array([0]), b=np.array([1 << 62]), c=np.array([1]))


def test_bad_models_take_little_memory(tmp_path):
    """In a process of its own, with 512 MB above what is taken after importing."""
    code = """
import resource, numpy as np, onnx, numbanet.onnx, onnx.inliner
from tests.onnx.test_reading import SHAPES
from tests.onnx.models import *
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
with open('large.onnx', 'wb') as file:
    file.truncate(400 << 20)
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
try:
    numbanet.onnx.load('large.onnx')
except numbanet.errors.OnnxError as error:
    print(error)
constant = model_of([node('ConstantOfShape', 's', 'a'), node('Tile', 'a t', 'b'), node('Add', 'x b', 'y')], [value('x', [1])], ['y'],
                    {'s': np.array([1 << 15, 1 << 15]), 't': np.array([1 << 10, 1])})
for model, inputs in ((SHAPES['ConstantOfShape'], [np.array([1 << 31, 1 << 31])]), (SHAPES['Expand'], [np.array([1 << 16, 1 << 16])]),
                      (constant, [np.ones(1, np.float32)])):
    loaded = numbanet.onnx.load(model.SerializeToString())
    try:
        loaded(*inputs)
    except numbanet.errors.NumbanetError as error:
        print(error)
    else:
        raise SystemExit('accepted')
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path,
                            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 4


# --- external data --------------------------------------------------------------------------------------------------

def test_external_data_are_mapped_and_changes_stay_in_memory(network, tmp_path):
    path = with_external_data(network, tmp_path / "model")
    before = (tmp_path / "model" / "weights.bin").read_bytes()
    external, inline = load(path), load(network.SerializeToString())
    x = RNG.normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(external(x).detach().numpy(), inline(x).detach().numpy())
    base = external.conv_weight.array
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    with numbanet.no_grad():
        external.conv_weight.mul_(0.0)
    assert (external.conv_weight.detach().numpy() == 0).all()
    assert (tmp_path / "model" / "weights.bin").read_bytes() == before


@pytest.mark.parametrize("location", ["/etc/hostname", "../secret.bin", "a/../../secret.bin", "..\\secret.bin", "~/secret", "", "C:\\x",
                                      "nul\0l"])
def test_locations_outside_of_the_folder(network, tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(bytes(10_000))
    refused(with_external_data(network, tmp_path / "model", location=location), "conv.weight")


def test_links_are_not_followed(network, tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(10_000))
    path = with_external_data(network, tmp_path / "model", location="link.bin")
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    refused(path, "symbolic link")
    path = with_external_data(network, tmp_path / "model", location="folder/secret.bin")
    (path.parent / "folder").symlink_to(tmp_path)
    refused(path, "symbolic link")


def test_a_pipe_is_not_opened(network, tmp_path):
    path = with_external_data(network, tmp_path / "model", location="pipe")
    os.mkfifo(path.parent / "pipe")
    refused(path, "not a plain file")


@pytest.mark.parametrize("changes, words", [
    ({"offset": "1000000"}, "truncated"), ({"offset": "-1"}, "offset"), ({"offset": "0x10"}, "offset"), ({"offset": "9" * 30}, "offset"),
    ({"length": "12"}, "length 12"), ({"length": str(1 << 40)}, "length"), ({"location": "none.bin"}, "does not exist"),
])
def test_offsets_and_lengths(network, tmp_path, changes, words):
    refused(with_external_data(network, tmp_path / "model", **changes), words)


def test_a_length_may_be_absent_and_bytes_need_not_be_aligned(network, tmp_path):
    path = with_external_data(network, tmp_path / "model", length=None)
    assert load(path).conv_weight.shape == (8, 3, 3, 3)
    data = (path.parent / "weights.bin").read_bytes()
    (path.parent / "odd.bin").write_bytes(b"?" + data[:8 * 27 * 4])
    path = with_external_data(network, tmp_path / "model", location="odd.bin", offset="1")
    np.testing.assert_array_equal(load(path).conv_weight.detach().numpy(), load(network.SerializeToString()).conv_weight.detach().numpy())


def test_external_data_without_a_folder(network, tmp_path):
    path = with_external_data(network, tmp_path / "model")
    refused(path.read_bytes(), "load it by its path")


def test_whole_models_are_accepted(network):
    assert load(network).output_names == ["scores"]             # a ModelProto, too
    assert load(with_a_function()).output_names == ["y"]


def test_values_that_double_with_every_node(monkeypatch):
    chain = [node("Concat", f"v{i} v{i}", f"v{i + 1}", axis=0) for i in range(60)]
    constant = model_of([*chain, node("Add", "x v60", "y")], [value("x", [1])], ["y"], {"v0": np.zeros(1, np.int64)})
    folded = load(constant)
    assert sum(t.nbytes for t in folded.buffers()) + sum(a.nbytes for a in folded._constants.values()) < 1 << 23
    small = model_of(chain, [value("v0", [1])], ["v60"])
    monkeypatch.setattr(limits, "MAX_ELEMENTS", 1 << 20)
    with pytest.raises(OnnxError, match="elements; expected at most"):
        load(small)(np.zeros(1, np.float32))


def test_folding_ends():
    chain = [node("Add", f"v{i} v{i}", f"v{i + 1}") for i in range(300)]
    begin = time.perf_counter()
    model = load(model_of([*chain, node("Mul", "x v300", "y")], [value("x", [1], np.int64)], [value("y", (), np.int64)],
                          {"v0": np.zeros(1 << 18, np.int64)}))
    assert time.perf_counter() - begin < 2
    assert 200 < len(list(model.children())) < 300      # 64 MB of results of 2 MB each were folded
