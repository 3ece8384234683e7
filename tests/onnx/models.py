"""Small models, made in memory."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def tensor_of(values, name: str):
    return numpy_helper.from_array(np.asarray(values), name)


def value(name: str, shape=(), dtype=np.float32):
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def model_of(nodes, inputs, outputs, constants=None, opset: int = OPSET, functions=(), domains=()):
    """A ModelProto; inputs are value infos, outputs also names of float32 values, constants arrays by name."""
    outputs = [value(o) if isinstance(o, str) else o for o in outputs]
    initializers = [tensor_of(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "test", inputs, outputs, initializers)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=8)


def node(op_type: str, inputs: str, outputs: str, name: str = "", **attributes):
    """A node; names are separated by blanks, and "-" stands for an absent operand."""
    return helper.make_node(op_type, [n if n != "-" else "" for n in inputs.split()], outputs.split(), name=name, **attributes)


def small_network(rng, classes: int = 5, size: int = 8):
    """A network as PyTorch exports it: convolution, batch norm, pooling, a flatten whose shape is computed, a linear layer."""
    nodes = [
        node("Conv", "image conv.weight conv.bias", "c", "/conv/Conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c bn.weight bn.bias bn.running_mean bn.running_var", "b", "/bn/BatchNormalization"),
        node("Relu", "b", "r", "/Relu"),
        node("MaxPool", "r", "p", "/pool/MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", "p", "shape"), node("Gather", "shape zero", "batch"), node("Unsqueeze", "batch first", "rows"),
        node("Concat", "rows rest", "target", axis=0), node("Reshape", "p target", "f", "/Reshape"),
        node("Dropout", "f ratio", "d", "/Dropout"),
        node("Gemm", "d fc.weight fc.bias", "scores", "/fc/Gemm", transB=1)]
    features = 8 * (size // 2)**2
    constants = {
        "conv.weight": rng.normal(size=(8, 3, 3, 3)), "conv.bias": rng.normal(size=8), "bn.weight": rng.uniform(0.5, 2, 8),
        "bn.bias": rng.normal(size=8), "bn.running_mean": rng.normal(size=8), "bn.running_var": rng.uniform(0.5, 2, 8),
        "fc.weight": rng.normal(size=(classes, features)) / features**0.5, "fc.bias": rng.normal(size=classes)}
    constants = {name: values.astype(np.float32) for name, values in constants.items()}
    constants |= {"zero": np.array(0), "first": np.array([0]), "rest": np.array([-1]), "ratio": np.array(0.5, np.float32)}
    return model_of(nodes, [value("image", ["N", 3, size, size])], [value("scores", ["N", classes])], constants)


def with_a_branch():
    """An If whose condition is constant, around values of the outer graph."""
    branches = {name: helper.make_graph([node(op, "x two", "z")], name, [], [value("z")], [])
                for name, op in (("then_branch", "Add"), ("else_branch", "Mul"))}
    return model_of([node("If", "condition", "y", "choice", **branches), node("Relu", "y", "out")], [value("x", ["N", 3])], ["out"],
                    {"condition": np.array(True), "two": np.full(3, 2, np.float32)})


def with_a_function():
    """A function of the model's own, called twice."""
    function = helper.make_function("mine", "Twice", ["a"], ["b"], [node("Add", "a a", "b")], [helper.make_opsetid("", OPSET)])
    nodes = [helper.make_node("Twice", ["x"], ["t"], domain="mine"), helper.make_node("Twice", ["t"], ["y"], domain="mine")]
    return model_of(nodes, [value("x", ["N"])], ["y"], functions=[function], domains=["mine"])


def with_external_data(model, folder, file: str = "weights.bin", **changes):
    """The model's initialisers moved into a file beside it; `changes` replace entries of the first one. Returns the model's path."""
    changed, data = onnx.ModelProto(), bytearray()
    changed.CopyFrom(model)
    for i, tensor in enumerate(changed.graph.initializer):
        entries = {"location": file, "offset": str(len(data)), "length": str(len(tensor.raw_data))} | (changes if i == 0 else {})
        data += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, text in entries.items():
            if text is not None:
                tensor.external_data.add(key=key, value=text)
    folder.mkdir(exist_ok=True)
    (folder / file).write_bytes(data)
    (folder / "model.onnx").write_bytes(changed.SerializeToString())
    return folder / "model.onnx"
