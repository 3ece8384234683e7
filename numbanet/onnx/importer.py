"""`load`: an ONNX model as a module, which runs on every backend, traces, and trains where its operators have gradients."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np

from numbanet._tensor import Tensor, as_tensor, get_default_device, tensor
from numbanet.dtypes import is_floating_point
from numbanet.errors import DTypeError, OnnxError, ShapeError, UsageError
from numbanet.nn.module import Module
from numbanet.nn.parameter import Buffer, Parameter
from numbanet.onnx import operators  # noqa: F401  registers them
from numbanet.onnx.functions import check_supported, inlined
from numbanet.onnx.node import holds
from numbanet.onnx.program import Declared, Program, build, safe_name
from numbanet.onnx.reading import check_with_reference, opsets, read_model


def load(source) -> OnnxModel:
    """Load an ONNX model, in evaluation mode.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        External data are read only from the folder of the path, and stay on disk until they are touched.

    Returns
    -------
    OnnxModel

    Raises
    ------
    OnnxError
        Not an ONNX model, damaged, or contradictory.
    UnsupportedOperationError
        Operators that are not supported, all at once.
    BackendError
        The package `onnx` is not installed.
    """
    model, folder = read_model(source)
    versions = opsets(model)
    check_supported(model, versions)
    check_with_reference(model)
    model = inlined(model, versions)
    versions = opsets(model)
    program = build(model, versions, folder)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return OnnxModel(program, versions, metadata, model.graph.name).eval()


class OnnxModel(Module):
    """A loaded model. Each of its nodes is a child, and its float initialisers are parameters.

    Attributes
    ----------
    input_names, output_names : as in the file
    inputs, outputs : what the file declares of them: name, dtype, shape
    opsets : dict of domain -> version
    metadata : dict of strings, from the file
    onnx_names : dict from the names of parameters and buffers to those of the initialisers in the file
    """

    def __init__(self, program: Program, versions: dict[str, int], metadata: dict[str, str], graph_name: str = ""):
        super().__init__()
        self.inputs, self.outputs = program.inputs, program.outputs
        self.input_names, self.output_names = [d.name for d in program.inputs], [d.name for d in program.outputs]
        self.opsets, self.metadata, self.graph_name = versions, metadata, graph_name
        self._constants, self._steps = program.constants, program.steps
        self._on_host = self._read_on_host()
        taken = dict.fromkeys((*dir(self), *self.__dict__), 1)
        self._state_names = {}
        for registry, make in ((program.parameters, Parameter), (program.buffers, Buffer)):
            for name, values in registry.items():
                self._state_names[name] = attribute = safe_name(name, taken)
                setattr(self, attribute, make(_owned(values)))
        self.onnx_names = {attribute: name for name, attribute in self._state_names.items()}
        for step in self._steps:
            step.path = safe_name(step.path, taken)
            step.node.weights = [getattr(self, self._state_names[key]) for kind, key in filter(None, step.sources)
                                 if kind == "state" and key in program.parameters]
            self.register_module(step.path, step.node)

    def _read_on_host(self) -> set[str]:
        """Inputs that every reader takes as a NumPy array, such as the shape of a Reshape."""
        readers: dict[str, list[bool]] = {name: [] for name in self.input_names}
        for step in self._steps:
            for position, name in enumerate(step.operands):
                if name in readers:
                    operator = step.node.tensor_operator
                    readers[name].append(operator is None or position in operator.host)
        return {name for name, hosts in readers.items() if hosts and all(hosts)}

    @property
    def device(self):
        """Where the parameters and buffers are; the default device for a model without any."""
        member = next(self.parameters(), None)
        member = member if member is not None else next(self.buffers(), None)
        return get_default_device() if member is None else member.device

    def forward(self, *inputs, **named):
        """Run the model.

        Parameters
        ----------
        inputs : Tensor or NumPy array
            In the file's order, or one dict by name, or keyword arguments.

        Returns
        -------
        Tensor (a NumPy array for dtypes that tensors lack), or a dict by name for several outputs

        Raises
        ------
        ShapeError, DTypeError
            An input differs from what the file declares.
        """
        values = self._given(inputs, named)
        device = next((v.device for v in values.values() if isinstance(v, Tensor)), None) or self.device
        for step in self._steps:
            step.node.info.device = str(device)
            operands = [None if source is None else self._fetch(source, values) for source in step.sources]
            results = getattr(self, step.path)(*operands)
            for name, value in zip(step.node.info.outputs, results):
                if name:
                    values[name] = value
            for name in step.expired:
                values.pop(name, None)
        results = {name: self._result(name, values, device) for name in self.output_names}
        return results if len(results) != 1 else next(iter(results.values()))

    def _fetch(self, source, values):
        kind, key = source
        return values[key] if kind == "value" else self._constants[key] if kind == "constant" else getattr(self, self._state_names[key])

    def _result(self, name, values, device):
        value = values[name] if name in values else self._constants[name]
        return tensor(value, device=device) if isinstance(value, np.ndarray) and holds(value.dtype) else value

    def _given(self, inputs, named) -> dict:
        if len(inputs) == 1 and isinstance(inputs[0], dict):
            inputs, named = (), {**inputs[0], **named}
        if len(inputs) > len(self.input_names):
            raise UsageError(f"{self._get_name()}: expected {len(self.input_names)} inputs ({', '.join(self.input_names)}), "
                             f"received {len(inputs)}")
        given = dict(zip(self.input_names, inputs))
        for name, value in named.items():
            if name not in self.input_names or name in given:
                what = "was given twice" if name in given else f"is no input; expected {', '.join(self.input_names)}"
                raise UsageError(f"{self._get_name()}: {name!r} {what}")
            given[name] = value
        missing = [name for name in self.input_names if name not in given]
        if missing:
            raise UsageError(f"{self._get_name()}: the inputs {', '.join(missing)} are missing")
        return {declared.name: self._input(declared, given[declared.name]) for declared in self.inputs}

    def _input(self, declared: Declared, value):
        if not isinstance(value, Tensor):
            value = np.asarray(value)
            if holds(value.dtype) and declared.name not in self._on_host:
                value = as_tensor(value, device=self.device)
        if declared.dtype is not None and value.dtype not in (declared.dtype, self._converted_to(declared.dtype)):
            raise DTypeError(f"input {declared.name!r} expects {declared.dtype}, received {value.dtype}")
        sizes = declared.shape
        if sizes is not None and (len(sizes) != len(value.shape) or any(isinstance(n, int) and n != m for n, m in zip(sizes, value.shape))):
            expected = ", ".join("?" if n is None else str(n) for n in sizes)
            raise ShapeError(f"input {declared.name!r} expects shape ({expected}), received {tuple(value.shape)}")
        return value

    def _converted_to(self, dtype):
        """What a floating-point input is after `.double()`, `.half()` and the like."""
        member = next(self.parameters(), None)
        return dtype if member is None or not is_floating_point(dtype) else member.dtype

    def host_nodes(self) -> list[str]:
        """Paths and operators of the nodes that NumPy computed in the last run, on whatever device."""
        return [f"{step.path} ({step.node.info.op_type})" for step in self._steps if step.node.ran_on_host]

    @contextmanager
    def shapes_only(self):
        """Inside, a trace passes operators on the host, which see zeros: right for shapes, wrong for values."""
        for step in self._steps:
            step.node.shapes_only = True
        try:
            yield
        finally:
            for step in self._steps:
                step.node.shapes_only = False

    def numbanet_metadata(self) -> dict:
        """What numbanet wrote with the model: class names, preprocessing; empty for files of other programs.

        Raises
        ------
        OnnxError
            It is not JSON.
        """
        text = self.metadata.get("numbanet")
        if text is None:
            return {}
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise OnnxError(f"onnx: the model's metadata 'numbanet' are damaged ({error})") from None
        return found if isinstance(found, dict) else {}


def _owned(values: np.ndarray):
    """A tensor of an initialiser: shared where the memory may be written to (mapped copy-on-write), else copied."""
    return as_tensor(values, device="cpu") if values.flags.writeable and get_default_device() == "cpu" else tensor(values)
