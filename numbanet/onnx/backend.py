"""The standard interface of ONNX backends: `prepare`, `run_model`, `run_node`, `supports_device`, `is_compatible`.

    from onnx.backend.test import BackendTest
    import numbanet.onnx.backend

    BackendTest(numbanet.onnx.backend, __name__)

Devices have ONNX's names ("CPU", "CUDA", "CUDA:1") or numbanet's ("cpu", "reference", "cuda:1").
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx.backend.base import BackendRep, namedtupledict

from numbanet._tensor import tensor
from numbanet.autograd import no_grad
from numbanet.backends import get_backend
from numbanet.errors import BackendError, OnnxError, UnsupportedOperationError
from numbanet.onnx.importer import OnnxModel, load
from numbanet.onnx.node import holds

__all__ = ["PreparedModel", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class PreparedModel(BackendRep):
    """A model on a device, ready to run.

    Attributes
    ----------
    model : the :class:`~numbanet.onnx.OnnxModel`
    """

    def __init__(self, model: OnnxModel, device: str):
        self.model = model
        self.device = device
        self._named = namedtupledict("Outputs", list(model.output_names))

    def run(self, inputs, **kwargs):
        """Outputs as NumPy arrays of their declared dtypes: a tuple whose elements can also be had by output name.

        Parameters
        ----------
        inputs : one array an input in the model's order, a dict of them by name, or the only array
        """
        if not isinstance(inputs, dict):
            inputs = dict(zip(self.model.input_names, inputs if isinstance(inputs, (list, tuple)) else [inputs], strict=True))
        with no_grad():
            outputs = self.model({name: self._placed(np.asarray(array)) for name, array in inputs.items()})
        outputs = outputs if isinstance(outputs, dict) else {name: outputs for name in self.model.output_names}
        return self._named(*(np.asarray(outputs[name]) for name in self.model.output_names))

    def _placed(self, array):
        return tensor(array, device=self.device) if holds(array.dtype) else array


def _device_name(device: str) -> str:
    """numbanet's name of a device: "cuda:0" for "CUDA"."""
    name = device.lower()
    return "cuda:0" if name == "cuda" else name


def supports_device(device: str) -> bool:
    """Whether models can run on a device here."""
    try:
        get_backend(_device_name(device))
    except BackendError:
        return False
    return True


def prepare(model, device: str = "CPU", **kwargs) -> PreparedModel:
    """Load a model for a device.

    Parameters
    ----------
    model : ModelProto, or anything that :func:`numbanet.onnx.load` takes
    device : such as "CPU"
    kwargs : ignored; other backends' options

    Raises
    ------
    OnnxError
        The model contradicts itself.
    UnsupportedOperationError
        It has operators that numbanet lacks; the message lists all of them.
    BackendError
        The device is not there.
    """
    name = _device_name(device)
    get_backend(name)
    return PreparedModel(load(model).to(name), name)


def run_model(model, inputs, device: str = "CPU", **kwargs):
    """:func:`prepare` and run once."""
    return prepare(model, device, **kwargs).run(inputs)


def is_compatible(model, device: str = "CPU", **kwargs) -> bool:
    """Whether :func:`prepare` would succeed."""
    try:
        prepare(model, device, **kwargs)
    except (OnnxError, UnsupportedOperationError, BackendError):
        return False
    return True


def run_node(node, inputs, device: str = "CPU", outputs_info=None, opset_version: int | None = None, **kwargs):
    """Run one operator.

    Parameters
    ----------
    node : onnx.NodeProto
    inputs : an array for each of the node's inputs that has a name, in order
    device : such as "CPU"
    outputs_info : (dtype, shape) of each output; inferred where it is left out
    opset_version : of the node's domain; the newest unless given

    Returns
    -------
    outputs as of :meth:`PreparedModel.run`
    """
    arrays = dict(zip((name for name in dict.fromkeys(node.input) if name), map(np.asarray, inputs)))
    version = opset_version or onnx.defs.onnx_opset_version()
    opset = onnx.helper.make_opsetid(node.domain, version)
    types = {name: onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
             for name, array in arrays.items()}
    names = [name for name in node.output if name]
    if outputs_info is not None:
        results = {name: onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
                   for name, (dtype, shape) in zip(names, outputs_info)}
    else:
        constants = {name: onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()}
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        results = onnx.shape_inference.infer_node_outputs(schema, node, types, constants, opset_imports=[opset])
    graph = onnx.helper.make_graph([node], node.op_type, [onnx.helper.make_value_info(name, kind) for name, kind in types.items()],
                                   [onnx.helper.make_value_info(name, results[name]) for name in names])
    return run_model(onnx.helper.make_model(graph, opset_imports=[opset]), list(arrays.values()), device)
