"""Models as ONNX files: traced, translated primitive by primitive (`export/`), and written."""

from __future__ import annotations

import inspect
import json
import os
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from numbanet._tensor import Tensor, as_tensor
from numbanet._version import __version__
from numbanet.backends import order_of
from numbanet.errors import NumbanetError, UnsupportedOperationError, UsageError
from numbanet.files import atomic_file
from numbanet.graph import trace
from numbanet.graph.graph import Graph
from numbanet.onnx.reading import onnx_package

EXTERNAL_ABOVE = 1_800_000_000      # bytes: a protobuf message holds 2 GiB at most
ALIGNMENT = 4096                    # of external tensors, so that readers can map them
METADATA_KEY = "numbanet"


@dataclass(frozen=True)
class Exported:
    """What :func:`save` wrote.

    Attributes
    ----------
    path, data_path : the model, and the file of its weights where they stand beside it
    nodes : number of nodes by operator
    inputs, outputs : shapes by name, as in ``{"input": ("N", 3, 224, 224)}``
    parameters, nbytes : number of elements, and bytes, of the constants
    opset : of the operators
    """

    path: Path
    data_path: Path | None
    nodes: dict[str, int]
    inputs: dict[str, tuple]
    outputs: dict[str, tuple]
    parameters: int
    nbytes: int
    opset: int


def save(model, path, example, *, metadata: dict | None = None, input_names=None, output_names=None, dynamic_batch: bool = True,
         external_data_above: int = EXTERNAL_ABOVE) -> Exported:
    """Write a model as an ONNX file (opset 18), in evaluation mode, for batches of any size.

    Parameters
    ----------
    model : Module, or function of tensors
    path : where to write; a file that stands there is replaced when the new one is whole
    example : Tensor, array, or tuple of them
        Inputs; only shapes and dtypes count. Those whose first axis is as long as that of the first input follow the batch.
    metadata : dict, optional
        Any JSON: class names, preprocessing. It is stored under the key "numbanet". An imported model's own by default.
    input_names, output_names : sequences of str, optional
        By default "input" and "output", or the names of forward's parameters and "output0", "output1", ...
    dynamic_batch : whether the first axis is free; else the shapes are those of `example`
    external_data_above : bytes of weights above which they are written beside the model, into `path` + ".data"

    Returns
    -------
    Exported

    Raises
    ------
    UnsupportedOperationError
        The model uses primitives that have no translation (all are listed, with their layers), depends on the size of the batch in
        another way than by sizes that follow it, or changes its buffers.
    CheckpointError
        The file cannot be written.
    BackendError
        The package `onnx` is not installed.
    """
    examples = tuple(as_tensor(e) for e in (example if isinstance(example, (tuple, list)) else (example,)))
    if not examples:
        raise UsageError("onnx.save: example expects at least one tensor, received none")
    onnx_package()
    from numbanet.onnx.export.model import Assembly
    with _evaluation(model):
        program = _program(model, examples, dynamic_batch)
    names = input_names or getattr(model, "input_names", None) or _input_names(model, len(examples))
    assembly = Assembly(program, _checked_names("input_names", names, len(program.graph.inputs)),
                        _checked_names("output_names", output_names or getattr(model, "output_names", None) or _output_names(program),
                                       len(program.graph.outputs)), _renamed(model))
    if metadata is None and hasattr(model, "numbanet_metadata"):
        metadata = model.numbanet_metadata()
    properties = {METADATA_KEY: json.dumps(metadata)} if metadata else {}
    return _write(assembly, Path(path), getattr(model, "graph_name", "") or type(model).__name__, properties, external_data_above)


@contextmanager
def _evaluation(model):
    """The model in evaluation mode inside; afterwards every module is as it was."""
    modules = {m: m.training for m in model.modules()} if hasattr(model, "modules") else {}
    for m in modules:
        m.training = False
    try:
        yield
    finally:
        for m, training in modules.items():
            m.training = training


def _program(model, examples, dynamic_batch: bool):
    from numbanet.onnx.export import load_translations
    from numbanet.onnx.export.program import REMEDY, composed_nodes, of_one_shape, overlay
    from numbanet.onnx.export.registry import TRANSLATIONS
    from numbanet.onnx.export.translation import unsupported
    load_translations()

    def traced(batch: int | None) -> Graph:
        try:
            graph = trace(model, _of_batch(examples, batch))
        except NumbanetError as error:
            trace(model, _of_batch(examples, None))     # where the example does not run either, that is the error
            raise UnsupportedOperationError(f"onnx.save: the model does not run with a batch of {batch}: {error}; an exported graph serves "
                                            f"every batch: {REMEDY}") from error
        composed_nodes(graph, TRANSLATIONS)
        if missing := unsupported(graph.nodes):
            raise UnsupportedOperationError(f"onnx.save: no translation to ONNX for {'; '.join(missing)}; replace these operations, or "
                                            "register translations with numbanet.onnx.translates")
        return graph
    if not dynamic_batch or not examples[0].ndim:
        return of_one_shape(traced(None))
    return overlay(traced)


def _of_batch(examples, batch: int | None) -> tuple[Tensor, ...]:
    """Tensors like the examples, without contents, with another batch."""
    made = []
    for e in examples:
        follows = batch is not None and e.ndim and e.shape[0] == examples[0].shape[0]
        shape = (batch, *e.shape[1:]) if follows else e.shape
        made.append(Tensor._wrap(e.backend.empty(shape, e.dtype, order_of(e.array)), e.backend))
    return tuple(made)


def _input_names(model, count: int) -> list[str]:
    if count == 1:
        return ["input"]
    forward = model.forward if hasattr(model, "forward") else model
    names = [p.name for p in inspect.signature(forward).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return names[:count] if len(names) >= count else [f"input{i}" for i in range(count)]


def _output_names(program) -> list[str]:
    count = len(program.graph.outputs)
    return ["output"] if count == 1 else [f"output{i}" for i in range(count)]


def _renamed(model) -> dict[str, str]:
    """Of an imported model: the names of its nodes and initialisers in the file that it came from."""
    nodes = {path: module.onnx_name for path, module in model.named_modules() if getattr(module, "onnx_name", "")} \
        if hasattr(model, "named_modules") else {}
    return {**nodes, **getattr(model, "onnx_names", {})}


def _checked_names(what: str, names, count: int) -> list[str]:
    names = [names] if isinstance(names, str) else list(names)
    if len(names) != count or len(set(names)) != count or not all(names):
        raise UsageError(f"onnx.save: {what} expects {count} different names, received {names}")
    return names


def _write(assembly, path: Path, graph_name: str, properties: dict[str, str], external_data_above: int) -> Exported:
    onnx = onnx_package()
    arrays = assembly.initializers
    nbytes = sum(a.nbytes for a in arrays.values())
    data_path = path.with_name(path.name + ".data") if nbytes > external_data_above else None
    with atomic_file(data_path) if data_path else nullcontext() as data, atomic_file(path) as temporary:
        if data is None:
            tensors = [onnx.numpy_helper.from_array(np.asarray(a, order="C"), name) for name, a in arrays.items()]
        else:
            tensors = _write_external(data, data_path.name, arrays)
        proto = assembly.proto(graph_name, tensors, properties, __version__)
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    counts: dict[str, int] = {}
    for node in proto.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return Exported(path, data_path, counts, assembly.input_shapes, assembly.output_shapes, sum(a.size for a in arrays.values()), nbytes,
                    proto.opset_import[0].version)


def _write_external(file: Path, location: str, arrays: dict[str, np.ndarray]) -> list:
    """Write all arrays into one file; returns tensors that name their places in it."""
    onnx = onnx_package()
    tensors = []
    with open(file, "wb") as stream:
        for name, array in arrays.items():
            stream.seek(-(-stream.tell() // ALIGNMENT) * ALIGNMENT, os.SEEK_SET)
            offset = stream.tell()
            stream.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
            tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
                                      data_location=onnx.TensorProto.EXTERNAL)
            for key, value in (("location", location), ("offset", offset), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
    return tensors
