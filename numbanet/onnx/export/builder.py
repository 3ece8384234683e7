"""ONNX nodes and initialisers with stable names.

A node is called by its layer's path and its operator, `features.3/Conv`, the second of a kind `features.3/Conv_1`; a value as the node
that makes it; a constant as the node and its input, `features.7/Clip.max`; a weight as in the model's state_dict.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx

from numbanet.onnx.export.program import Size
from numbanet.onnx.export.registry import Operand

OPSET = 18          # the first whose reductions all take axes as an input and whose scatters add; onnxruntime reads it since 1.14
IR_VERSION = 8      # of the onnx release that brought opset 18


@cache
def _input_name(op_type: str, position: int) -> str:
    inputs = onnx.defs.get_schema(op_type, OPSET).inputs
    return inputs[position].name if position < len(inputs) else str(position)


class Builder:
    """Collects the nodes and initialisers of a graph.

    Attributes
    ----------
    nodes, initializers : what was added so far
    path : of the layer that is being translated
    sources, reshaped : of a reshaped value, what it was before; and its name by that one's and the shape
    wanted : for each output of the current primitive, whether anybody reads it
    """

    def __init__(self, batch_input: str | None):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.sources: dict[str, Operand] = {}
        self.reshaped: dict[tuple, str] = {}
        self.path = ""
        self.wanted: tuple[bool, ...] = ()
        self._batch_input, self._batch = batch_input, None
        self._taken: set[str] = set()

    def unique(self, name: str) -> str:
        """`name`, or the first of name_1, name_2, ... that is free."""
        free, count = name, 0
        while free in self._taken:
            count += 1
            free = f"{name}_{count}"
        self._taken.add(free)
        return free

    def initializer(self, name: str, array: np.ndarray) -> str:
        """Add a constant; returns its name."""
        name = self.unique(name)
        self.initializers[name] = array
        return name

    def node(self, op_type: str, *inputs, outputs: int = 1, **attributes):
        """Add a node; returns the name of its output, a tuple of them where `outputs` is more than 1.

        Inputs are operands, names, arrays (which become initialisers) or None (left out); attributes that are None are left out.
        """
        imported = self.path.rpartition("/")[2].partition("_")[0] == op_type      # whose nodes are layers called path/Operator
        name = self.unique(self.path if imported else self.inside(op_type))
        inputs = [x.name if isinstance(x, Operand) else x for x in inputs]
        names = ["" if x is None else self.initializer(f"{name}.{_input_name(op_type, i)}", x) if isinstance(x, np.ndarray) else x
                 for i, x in enumerate(inputs)]
        while names and not names[-1]:
            names.pop()
        results = [name, *[self.unique(f"{name}:{i}") for i in range(1, outputs)]]
        self.nodes.append(onnx.helper.make_node(op_type, names, results, name, **{k: v for k, v in attributes.items() if v is not None}))
        return results[0] if outputs == 1 else tuple(results)

    def cast(self, x: Operand, dtype: np.dtype) -> str:
        """x in another dtype."""
        return x.name if x.dtype == dtype else self.node("Cast", x, to=onnx.helper.np_dtype_to_tensor_dtype(dtype))

    def ints(self, values) -> np.ndarray | str:
        """A vector of int64: a constant, or, where a value follows the batch, computed from the input's shape."""
        values = tuple(values)
        if not any(isinstance(v, Size) for v in values):
            return np.array(values, np.int64)
        parts = [self._of_batch(v) if isinstance(v, Size) else self.initializer(self.inside("size"), np.array([v], np.int64))
                 for v in values]
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)

    def inside(self, name: str) -> str:
        """`name` behind the path of the current layer."""
        return f"{self.path}/{name}" if self.path else name

    def _of_batch(self, size: Size) -> str:
        if self._batch is None:
            self._batch = self.node("Shape", self._batch_input, start=0, end=1)
        value = self._batch
        if size.per_sample != 1:
            value = self.node("Mul", value, np.array([size.per_sample], np.int64))
        return self.node("Add", value, np.array([size.constant], np.int64)) if size.constant else value
