"""The graph of an ONNX model, put together from a program."""

from __future__ import annotations

import numpy as np
import onnx

from numbanet.onnx.export.builder import IR_VERSION, OPSET, Builder
from numbanet.onnx.export.program import Program, Shape, Size
from numbanet.onnx.export.translation import Translator


def _sizes(shape: Shape) -> tuple[int | str, ...]:
    return tuple(str(n) if isinstance(n, Size) else n for n in shape)


class Assembly:
    """A translated program: nodes, initialisers, and what goes in and out by name.

    `renamed` gives layers and weights other names than their dotted ones.
    """

    def __init__(self, program: Program, input_names: list[str], output_names: list[str], renamed: dict[str, str]):
        inputs, outputs = program.graph.inputs, program.graph.outputs
        batched = next((name for name, v in zip(input_names, inputs) if Size(1, 0) in program.shapes[v][:1]), None)
        builder = Builder(batched)
        for name in (*input_names, *output_names):
            builder.unique(name)
        translator = Translator(program, builder, renamed)
        for value, name in zip(inputs, input_names):
            translator.bind(value, name)
        translator.run()
        results = translator.outputs()
        self.initializers = _drop_unread(builder, results)
        self._nodes = _with_output_names(builder, results, output_names)
        self.input_shapes = {name: _sizes(program.shapes[v]) for name, v in zip(input_names, inputs)}
        self.output_shapes = {name: _sizes(program.shapes[v]) for name, v in zip(output_names, outputs)}
        self._dtypes = {name: v.dtype for name, v in zip((*input_names, *output_names), (*inputs, *outputs))}

    def proto(self, name: str, tensors: list, properties: dict[str, str], version: str) -> onnx.ModelProto:
        """The whole model, with `tensors` for the initialisers."""
        graph = onnx.helper.make_graph(self._nodes, name, self._infos(self.input_shapes), self._infos(self.output_shapes), tensors)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                       producer_name="numbanet", producer_version=version)
        onnx.helper.set_model_props(model, properties)
        return model

    def _infos(self, shapes: dict) -> list:
        return [onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(self._dtypes[name]), shape)
                for name, shape in shapes.items()]


def _drop_unread(builder: Builder, results: list[str]) -> dict[str, np.ndarray]:
    """Nodes that no output depends on go; returns the initialisers that are read, in the order in which they are."""
    read, kept = set(results), []
    for node in reversed(builder.nodes):
        if not read.isdisjoint(node.output):
            read.update(node.input)
            kept.append(node)
    builder.nodes[:] = reversed(kept)
    order = dict.fromkeys([*(name for node in builder.nodes for name in node.input), *results])
    return {name: builder.initializers[name] for name in order if name in builder.initializers}


def _with_output_names(builder: Builder, results: list[str], names: list[str]) -> list[onnx.NodeProto]:
    """The nodes, with the results called as the outputs; a result that is no node's, or two outputs', passes through Identity."""
    made = {output for node in builder.nodes for output in node.output}
    renamed: dict[str, str] = {}
    for result, name in zip(results, names):
        if result in made and result not in renamed:
            renamed[result] = name
        else:
            builder.nodes.append(onnx.helper.make_node("Identity", [result], [name], builder.unique(f"Identity.{name}")))
    for node in builder.nodes:
        node.input[:] = [renamed.get(n, n) for n in node.input]
        node.output[:] = [renamed.get(n, n) for n in node.output]
    return builder.nodes
