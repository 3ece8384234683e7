"""An imported model as a module: the same answers as onnxruntime, state, devices, tracing, training, and its errors."""

import json
import subprocess
import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import numbanet  # noqa: E402
from numbanet import Tensor, cli  # noqa: E402
from numbanet.errors import AutogradError, DTypeError, OnnxError, ShapeError, UnsupportedOperationError, UsageError  # noqa: E402
from numbanet.graph import summarize, trace  # noqa: E402
from numbanet.nn import functional as F  # noqa: E402
from numbanet.onnx import load  # noqa: E402
from numbanet.onnx.node import to_host  # noqa: E402
from numbanet.onnx.program import safe_name  # noqa: E402
from tests.onnx.models import model_of, node, small_network, tensor_of, value, with_a_branch, with_a_function  # noqa: E402

RNG = np.random.default_rng(7)
PROTO = small_network(RNG)


def images(count=2):
    return RNG.normal(size=(count, 3, 8, 8)).astype(np.float32)


def by_onnxruntime(proto, **inputs):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, inputs)


@pytest.fixture
def model():
    return load(PROTO)


# --- running --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("count", [1, 3, 0])
def test_answers_at_any_batch_size(model, device, count):
    x = images(count)
    y = model.to(device)(numbanet.tensor(x, device=device))
    assert y.device == device and y.shape == (count, 5)
    if count:
        np.testing.assert_allclose(y.detach().numpy(), by_onnxruntime(PROTO, image=x)[0], rtol=1e-4, atol=1e-5)


def test_forms_of_input(model):
    x = images()
    expected = model(x).detach().numpy()
    for y in (model({"image": x}), model(image=numbanet.tensor(x)), model(np.asfortranarray(x))):
        np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-6)


def test_wrong_inputs(model):
    for arguments, named, error, words in (
            ((), {}, UsageError, "image"), ((images(), images()), {}, UsageError, "expected 1"),
            ((), {"picture": images()}, UsageError, "picture"),
            ((images(),), {"image": images()}, UsageError, "twice"), ((images().astype(np.float64),), {}, DTypeError, "float64"),
            ((images()[:, :2],), {}, ShapeError, r"\(N, 3, 8, 8\), received \(2, 2, 8, 8\)"), ((images()[0],), {}, ShapeError, "image")):
        with pytest.raises(error, match=words):
            model(*arguments, **named)


def test_several_outputs_have_names():
    proto = model_of([node("Split", "x", "a b", axis=1), node("Relu", "a", "r")], [value("x", ["N", 4])], ["b", "r"])
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    received = load(proto)(x)
    assert list(received) == ["b", "r"]
    np.testing.assert_array_equal(received["b"].numpy(), x[:, 2:])
    np.testing.assert_array_equal(received["r"].numpy(), np.maximum(x[:, :2], 0))


def test_branches_functions_and_constants():
    x = np.array([[-3, 0, 5]], np.float32)
    np.testing.assert_array_equal(load(with_a_branch())(x).detach().numpy(), np.maximum(x + 2, 0))
    np.testing.assert_array_equal(load(with_a_function())(x[0]).numpy(), 4 * x[0])
    constant = model_of([node("Constant", "", "c", value=tensor_of(np.arange(3, dtype=np.float32), "c"))], [value("x", [1])], ["c"])
    np.testing.assert_array_equal(load(constant)(x[0, :1]).numpy(), [0, 1, 2])


def test_names_of_a_branch_do_not_collide_with_those_outside():
    inner = onnx.helper.make_graph([node("Neg", "x", "n"), node("Abs", "n", "z")], "b", [], [value("z")], [tensor_of(np.ones(1), "k")])
    proto = model_of([node("Relu", "x", "t"), node("If", "yes", "u", "first", then_branch=inner, else_branch=inner),
                      node("If", "yes", "v", "second", then_branch=inner, else_branch=inner), node("Sum", "t u v", "y")],
                     [value("x", [2])], ["y"], {"yes": np.array([True])})
    np.testing.assert_array_equal(load(proto)(np.array([-1, 2], np.float32)).numpy(), [2, 6])


def test_constants_are_folded_and_dead_nodes_dropped():
    proto = model_of([node("Constant", "", "a", value_ints=[1, 2]), node("Add", "a a", "shape"), node("Reshape", "x shape", "y"),
                      node("Exp", "x", "unused")], [value("x", [8])], ["y"])
    model = load(proto)
    assert [child.info.op_type for child in model.children()] == ["Reshape"]
    assert model(np.zeros(8, np.float32)).shape == (2, 4)


def test_large_results_are_not_folded():
    proto = model_of([node("ConstantOfShape", "shape", "w"), node("MatMul", "x w", "y")], [value("x", [1, 2000])], ["y"],
                     {"shape": np.array([2000, 2000])})
    model = load(proto)
    assert sum(t.nbytes for t in (*model.parameters(), *model.buffers())) < 1000
    assert model(np.ones((1, 2000), np.float32)).shape == (1, 2000)


def test_values_are_freed_after_their_last_use():
    chain = [node("Relu", "x", "v0"), *[node("Abs", f"v{i}", f"v{i + 1}") for i in range(20)]]
    model = load(model_of(chain, [value("x", [1000, 1000])], ["v20"]))
    kept = [name for step in model._steps for name in step.expired]
    assert sorted(kept) == sorted(["x", *(f"v{i}" for i in range(20))])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floating_point_types(dtype):
    kind = numbanet.dtypes.as_dtype(dtype)
    w = RNG.normal(size=(4, 3, 3, 3)).astype(kind)
    proto = model_of([node("Conv", "x w", "c"), node("Relu", "c", "y")], [value("x", [1, 3, 6, 6], kind)], [value("y", (), kind)], {"w": w})
    x = RNG.normal(size=(1, 3, 6, 6)).astype(kind)
    y = load(proto)(numbanet.tensor(x))
    expected = F.relu(F.conv2d(numbanet.tensor(x.astype(np.float64)), numbanet.tensor(w.astype(np.float64)))).numpy()
    assert y.dtype == kind
    np.testing.assert_allclose(y.detach().numpy().astype(np.float64), expected, rtol=2e-2 if dtype == "bfloat16" else 2e-3, atol=2e-2)


def test_conversion_to_another_dtype(model):
    x = images()
    expected = model(x).detach().numpy()
    y = model.double()(x.astype(np.float64))
    assert y.dtype == np.float64
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_copies_are_independent(model):
    import copy
    x, twin = images(), copy.deepcopy(model)
    with numbanet.no_grad():
        twin.fc_weight.zero_()
    assert next(twin.fc_Gemm.parameters()) is twin.fc_weight
    assert np.ptp(model(x).detach().numpy(), 0).max() > 0 == np.ptp(twin(x).detach().numpy(), 0).max()


# --- state ----------------------------------------------------------------------------------------------------------

def test_initialisers_are_parameters_under_safe_names(model):
    assert list(model.state_dict()) == ["conv_weight", "conv_bias", "bn_weight", "bn_bias", "fc_weight", "fc_bias", "bn_running_mean",
                                        "bn_running_var"]
    assert [name for name, _ in model.named_parameters()] == list(model.state_dict())[:6]
    assert model.onnx_names["conv_weight"] == "conv.weight"
    assert [name for name, _ in model.named_children()][:3] == ["conv_Conv", "bn_BatchNormalization", "Relu"]
    other = load(small_network(np.random.default_rng(99)))
    x = images()
    assert not np.allclose(other(x).detach().numpy(), model(x).detach().numpy())
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other(x).detach().numpy(), model(x).detach().numpy())


def test_safe_names():
    taken = {"forward": 1}
    assert [safe_name(name, taken) for name in ("a.b/c:0", "a.b/c:0", "0", "", "forward", "é", "__")] == [
        "a_b_c_0", "a_b_c_0_2", "n0", "value", "forward_2", "value_2", "value_3"]


def test_names_that_hide_attributes_of_modules():
    names = ["forward", "training", "parameters", "_modules", "inputs", "self"]
    nodes = [node("Add", f"{a} {a}.w", b, a) for a, b in zip(names, [*names[1:], "y"])]
    proto = model_of(nodes, [value("forward", [2])], ["y"], {f"{name}.w": np.ones(2, np.float32) for name in names})
    np.testing.assert_array_equal(load(proto)(np.zeros(2, np.float32)).detach().numpy(), [6, 6])


# --- tracing --------------------------------------------------------------------------------------------------------

def test_a_trace_replays_and_knows_its_nodes(model):
    graph = trace(model, numbanet.zeros(2, 3, 8, 8))
    assert {n.path for n in graph.nodes} >= {"conv_Conv", "bn_BatchNormalization", "pool_MaxPool", "fc_Gemm"}
    x = images()
    np.testing.assert_allclose(graph.run(numbanet.tensor(x)).numpy(), model(x).detach().numpy(), rtol=1e-6)


def test_summary(model):
    summary = summarize(model, numbanet.zeros(1, 3, 8, 8))
    rows = {row.path: row for row in summary.rows}
    assert rows["conv_Conv"].kind == "Conv" and rows["conv_Conv"].parameters == 224 and rows["conv_Conv"].multiply_adds == 8 * 27 * 64
    assert summary.parameters == sum(p.numel() for p in model.parameters()) == 224 + 16 + 5 * 129
    assert "shape (Shape)" in str(summary).splitlines()[-1]


def test_operators_on_the_host_stand_in_the_summary_but_not_in_a_trace():
    proto = model_of([node("Relu", "x", "r"), node("GridSample", "r grid", "g"), node("Abs", "g", "y")],
                     [value("x", [1, 2, 4, 4]), value("grid", [1, 3, 3, 2])], ["y"])
    model, examples = load(proto), (numbanet.zeros(1, 2, 4, 4), numbanet.zeros(1, 3, 3, 2))
    summary = summarize(model, examples)
    assert summary.host_layers == ["g (GridSample)"] and summary.rows[-1].output_shape == (1, 2, 3, 3)
    with pytest.raises(UnsupportedOperationError, match="g GridSample.* runs on the host"):
        trace(model, examples)


def test_copies_to_the_host_are_logged(caplog):
    class Elsewhere:
        """A device with memory of its own."""
        name, is_tracing = "elsewhere:0", False

        def to_numpy(self, array):
            return array.values

    class Array:
        values = np.arange(3, dtype=np.float32)
        shape, strides, dtype = values.shape, values.strides, values.dtype

    caplog.set_level("INFO", "numbanet.onnx")
    np.testing.assert_array_equal(to_host(Tensor._wrap(Array, Elsewhere())), [0, 1, 2])
    assert [r.getMessage() for r in caplog.records] == ["copy of (3,) of float32 from elsewhere:0 to the host"]
    to_host(numbanet.zeros(3))
    assert len(caplog.records) == 1         # the memory of the CPU is the host's


# --- training -------------------------------------------------------------------------------------------------------

def test_gradients_are_those_of_torch():
    torch = pytest.importorskip("torch")
    model = load(PROTO).train()
    model.Dropout.eval()
    x, labels = images(4), np.array([0, 3, 1, 4])
    weights = {name: t.detach().numpy().copy() for name, t in model.state_dict().items()}
    loss = F.cross_entropy(model(x), numbanet.tensor(labels))
    loss.backward()
    t = {name: torch.tensor(w, requires_grad="running" not in name) for name, w in weights.items()}
    y = torch.nn.functional.conv2d(torch.tensor(x), t["conv_weight"], t["conv_bias"], padding=1)
    y = torch.nn.functional.batch_norm(y, t["bn_running_mean"], t["bn_running_var"], t["bn_weight"], t["bn_bias"], True, 0.1)
    y = torch.nn.functional.max_pool2d(torch.relu(y), 2).flatten(1)
    expected = torch.nn.functional.cross_entropy(torch.nn.functional.linear(y, t["fc_weight"], t["fc_bias"]), torch.tensor(labels))
    expected.backward()
    assert abs(loss.item() - expected.item()) < 1e-5
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.grad.numpy(), t[name].grad.numpy(), rtol=1e-3, atol=2e-5, err_msg=name)
    for name in ("bn_running_mean", "bn_running_var"):
        np.testing.assert_allclose(getattr(model, name).numpy(), t[name].numpy(), rtol=1e-5)


def test_dropout_drops_in_training_only(model):
    x = images()
    numbanet.manual_seed(1)
    assert np.array_equal(model(x).detach().numpy(), model(x).detach().numpy())
    model.Dropout.train()
    assert not np.array_equal(model(x).detach().numpy(), model(x).detach().numpy())


def test_a_few_steps_of_training_reduce_the_loss():
    model = load(PROTO).train()
    model.Dropout.eval()
    x, labels = images(16), numbanet.tensor(RNG.integers(0, 5, 16))
    optimizer = numbanet.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_an_operator_on_the_host_says_that_it_has_no_gradient():
    proto = model_of([node("Mul", "x w", "m"), node("Det", "m", "y", "volume")], [value("x", [2, 2])], ["y"],
                     {"w": np.ones((2, 2), np.float32)})
    y = load(proto)(np.eye(2, dtype=np.float32))
    assert y.requires_grad
    with pytest.raises(AutogradError, match="Det 'volume' runs on the host and has no gradient"):
        y.backward()


# --- errors in a run, metadata, command line --------------------------------------------------------------------------

def test_errors_name_the_node():
    proto = model_of([node("Conv", "x w", "y", "/features/conv")], [value("x", [1, None, 5, 5])], ["y"],
                     {"w": np.zeros((2, 3, 3, 3), np.float32)})
    with pytest.raises(ShapeError, match="^features_conv conv2d: weight expects 3 input channels, x has 4"):
        load(proto)(np.zeros((1, 4, 5, 5), np.float32))
    proto = model_of([node("Reshape", "x s", "y", "turn")], [value("x", [6])], ["y"], {"s": np.array([4, -1])})
    with pytest.raises((ShapeError, OnnxError), match="^turn "):
        load(proto)(np.zeros(6, np.float32))


def test_metadata():
    proto = small_network(RNG)
    onnx.helper.set_model_props(proto, {"numbanet": json.dumps({"classes": ["a", "b"]}), "author": "me"})
    model = load(proto)
    assert model.metadata["author"] == "me" and model.numbanet_metadata() == {"classes": ["a", "b"]}
    onnx.helper.set_model_props(proto, {"numbanet": "{"})
    with pytest.raises(OnnxError, match="damaged"):
        load(proto).numbanet_metadata()
    assert load(PROTO).numbanet_metadata() == {}


@pytest.fixture
def files(tmp_path):
    """A model of 8 x 8 pixels that carries names and preprocessing, the same without them, and a picture."""
    from PIL import Image
    proto = small_network(np.random.default_rng(2))
    (tmp_path / "plain.onnx").write_bytes(proto.SerializeToString())
    preprocessing = {"input_size": [3, 8, 8], "image_size": [8, 8], "mean": [0.5] * 3, "std": [0.25] * 3, "digits": False}
    metadata = {"classes": ["ant", "bee", "cat", "dog", "elk"], "preprocessing": preprocessing}
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    onnx.helper.set_model_props(proto, {"numbanet": json.dumps(metadata)})
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    Image.fromarray(np.random.default_rng(4).integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "picture.png")
    return tmp_path


def test_predict_from_the_command_line(files, capsys):
    from PIL import Image
    assert cli.main(["predict", str(files / "model.onnx"), str(files / "picture.png"), "--json", "--top", "5"]) == 0
    carried = json.loads(capsys.readouterr().out)[0]["predictions"]
    pixels = np.asarray(Image.open(files / "picture.png"), np.float32).transpose(2, 0, 1)[None] / 255
    scores = by_onnxruntime(onnx.load(files / "model.onnx"), image=(pixels - 0.5) / np.float32(0.25))[0][0]
    expected = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    assert [p["class"] for p in carried] == [["ant", "bee", "cat", "dog", "elk"][i] for i in np.argsort(-expected)]
    np.testing.assert_allclose([p["probability"] for p in carried], np.sort(expected)[::-1], rtol=1e-3, atol=1e-6)
    arguments = ["predict", str(files / "plain.onnx"), str(files / "picture.png"), "--json", "--top", "5"]
    assert cli.main([*arguments, "--metadata", str(files / "metadata.json")]) == 0
    assert json.loads(capsys.readouterr().out)[0]["predictions"] == carried
    assert cli.main(arguments) == 0                                         # ImageNet's usual preprocessing, and numbers as names
    assert {p["class"] for p in json.loads(capsys.readouterr().out)[0]["predictions"]} == set("01234")


def test_summary_from_the_command_line(files, capsys):
    assert cli.main(["summary", str(files / "model.onnx")]) == 0
    assert "conv_Conv  Conv" in capsys.readouterr().out
    assert cli.main(["summary", str(files / "model.onnx"), "--num-classes", "3"]) == 2
    assert cli.main(["summary", str(files / "none.onnx")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_importing_numbanet_does_not_import_onnx():
    code = "import sys, numbanet, numbanet.cli.predict, numbanet.cli.summary; print('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
