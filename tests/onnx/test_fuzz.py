"""Damaged models: refused with an error of ours, quickly, and nothing is accepted that the onnx package refuses."""

import random
import time

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import numbanet  # noqa: E402
from numbanet.errors import NumbanetError  # noqa: E402
from numbanet.onnx import limits, load  # noqa: E402
from tests.onnx.models import model_of, node, small_network, value, with_a_branch, with_a_function  # noqa: E402
from tests.weights.mutations import mutations  # noqa: E402

SECONDS = 2.0
SIZES = (0, 1, -1, 2, 3, 127, 1 << 20, (1 << 31) - 1, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63))


def _originals():
    rng = np.random.default_rng(1)
    shapes = model_of(
        [node("ConstantOfShape", "shape", "filled", value=onnx.helper.make_tensor("v", onnx.TensorProto.FLOAT, [1], [0.5])),
         node("Add", "x filled", "a"), node("Expand", "a shape2", "e"), node("Tile", "e repeats", "t"),
         node("Pad", "t pads", "p", mode="reflect"), node("Resize", "p - scales", "r", mode="linear"),
         node("Slice", "r starts ends", "s"), node("Range", "zero limit one", "n"), node("Cast", "n", "f", to=1),
         node("ReduceSum", "f", "g"), node("Mul", "s g", "out")],
        [value("x", ["N", 2, 3])], ["out"],
        {"shape": np.array([1, 2, 3]), "shape2": np.array([1, 2, 3]), "repeats": np.array([1, 1, 2]), "pads": np.array([0, 1, 2, 0, 0, 1]),
         "scales": np.array([1, 1, 2], np.float32), "starts": np.array([0, 0]), "ends": np.array([9, 2]), "zero": np.array(0),
         "limit": np.array(5), "one": np.array(1)})
    windows = model_of(
        [node("ConvTranspose", "x w", "a", strides=[2, 2], output_padding=[1, 1]),
         node("AveragePool", "a", "b", kernel_shape=[2, 2], pads=[1] * 4), node("LpPool", "b", "c", kernel_shape=[2, 2], p=2),
         node("LRN", "c", "d", size=3), node("Softmax", "d", "e", axis=1),
         node("Concat", "e e", "f", axis=1), node("Split", "f", "g h", axis=1), node("Transpose", "g", "i", perm=[0, 2, 3, 1]),
         node("Flatten", "i", "j"), node("Einsum", "j j", "out", equation="ij,kj->ik")],
        [value("x", [1, 2, 4, 4])], ["out"], {"w": rng.normal(size=(2, 2, 2, 2)).astype(np.float32)})
    return [small_network(rng, size=4), with_a_branch(), with_a_function(), shapes, windows]


def _changed(model, draw: random.Random):
    """A copy with one to three numbers, names or nodes of its graph changed."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    names = [name for n in graph.node for name in (*n.input, *n.output)] or ["x"]
    for _ in range(draw.choice((1, 1, 2, 3))):
        n = draw.choice(graph.node) if graph.node else graph.node.add(op_type="Relu")
        attributes = [a for a in n.attribute if a.ints or a.type == onnx.AttributeProto.INT]
        kind = draw.randrange(8)
        if kind == 0 and graph.initializer:
            tensor = draw.choice(graph.initializer)
            if tensor.data_type == onnx.TensorProto.INT64 and draw.random() < 0.8:
                values = onnx.numpy_helper.to_array(tensor).copy()
                if values.size:
                    values.reshape(-1)[draw.randrange(values.size)] = draw.choice(SIZES)
                    tensor.raw_data = values.tobytes()
            else:
                tensor.dims.append(draw.choice(SIZES))
        elif kind == 1 and attributes:
            attribute = draw.choice(attributes)
            if attribute.ints:
                attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(SIZES)
            else:
                attribute.i = draw.choice(SIZES)
        elif kind == 2 and n.input:
            n.input[draw.randrange(len(n.input))] = draw.choice((*names, "", "nowhere"))
        elif kind == 3 and n.output:
            n.output[draw.randrange(len(n.output))] = draw.choice((*names, ""))
        elif kind == 4:
            n.op_type = draw.choice([other.op_type for other in graph.node] + ["Conv", "Loop", "Nothing", "TopK", "ReduceProd", "Gather"])
        elif kind == 5 and n.attribute:
            del n.attribute[draw.randrange(len(n.attribute))]
        elif kind == 6:
            del graph.node[draw.randrange(len(graph.node))]
        elif kind == 7 and n.input:
            n.input.append(draw.choice(names))
    return changed


def _try(data: bytes, run: bool) -> bool:
    """Load, and perhaps run, a model; whether it was accepted."""
    begin = time.perf_counter()
    try:
        model = load(data)
    except NumbanetError:
        model = None
    assert time.perf_counter() - begin < SECONDS, data
    if model is None:
        return False
    onnx.checker.check_model(onnx.load_model_from_string(data))         # what is accepted here is accepted there
    shapes = [tuple(n if isinstance(n, int) else 1 for n in declared.shape or (1, 2, 3)) for declared in model.inputs]
    if run and all(np.prod(shape, dtype=object) < 10_000 for shape in shapes):
        try:
            with numbanet.no_grad():
                model(*[np.ones(shape, declared.dtype) for shape, declared in zip(shapes, model.inputs)])
        except NumbanetError:
            pass
        assert time.perf_counter() - begin < 2 * SECONDS, data
    return True


def _fuzz(count: int, seed: int) -> int:
    originals = _originals()
    for model in originals:
        assert _try(model.SerializeToString(), run=True)                # whole ones are accepted, and kernels compiled
    files = [model.SerializeToString() for model in originals]
    draw = random.Random(seed)
    accepted = 0
    for data in mutations(files, count // 2, seed, lambda data: [range(len(data))]):
        accepted += _try(data, run=draw.random() < 0.3)
    for _ in range(count - count // 2):
        accepted += _try(_changed(draw.choice(originals), draw).SerializeToString(), run=True)
    return accepted


@pytest.fixture(autouse=True)
def small_values(monkeypatch):
    """Models may ask for much memory, but here for 16 MB a value."""
    monkeypatch.setattr(limits, "MAX_ELEMENTS", 1 << 22)


def test_damaged_models():
    assert _fuzz(2000, seed=5) > 100


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_many_damaged_models(seed):
    assert _fuzz(2000, seed=100 + seed) > 100
