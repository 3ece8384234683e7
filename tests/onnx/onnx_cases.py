"""What tests of ONNX operators share: one node, run by our NumPy function, by the whole importer, or by onnxruntime."""

import numpy as np
import onnx

from numbanet.onnx.operators import host  # noqa: F401
from numbanet.onnx.operators.registry import NodeInfo, host_twin

VERSION = 22        # the newest opset that the oldest supported onnxruntime runs


def run_host(op_type: str, *arrays, version: int = VERSION, outputs: int = 1, **attributes):
    """The host operator's answer."""
    info = NodeInfo(op_type, "node", attributes, version, tuple(f"y{i}" for i in range(outputs)))
    return host_twin("", op_type, version).function(info, *arrays)


def node_model(op_type: str, *arrays, version: int = VERSION, outputs: int = 1, **attributes) -> onnx.ModelProto:
    """A model of one node; None among the arrays is an absent operand."""
    names = [f"x{i}" if array is not None else "" for i, array in enumerate(arrays)]
    node = onnx.helper.make_node(op_type, names, [f"y{i}" for i in range(outputs)], **attributes)
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
              for name, array in zip(names, arrays) if array is not None]
    empty = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = onnx.helper.make_graph([node], op_type, inputs, empty)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    for value in model.graph.output:
        if not value.type.tensor_type.HasField("shape"):            # which depends on values; these operators keep the rank
            value.type.tensor_type.shape.dim.extend([onnx.TensorShapeProto.Dimension()] * max(1, arrays[0].ndim))
    return model


def run_onnxruntime(op_type: str, *arrays, **options):
    """onnxruntime's answer; the caller skips where it is not installed."""
    import onnxruntime
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    session = onnxruntime.InferenceSession(node_model(op_type, *arrays, **options).SerializeToString(), quiet,
                                           providers=["CPUExecutionProvider"])
    feeds = {f"x{i}": np.ascontiguousarray(array) for i, array in enumerate(arrays) if array is not None}
    outputs = session.run(None, feeds)
    return outputs[0] if len(outputs) == 1 else tuple(outputs)
