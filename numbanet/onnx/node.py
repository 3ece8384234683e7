"""One node of an imported model, as a module: it brings its operands to where its operator computes."""

from __future__ import annotations

import logging

import numpy as np

from numbanet import dtypes
from numbanet._tensor import Tensor, tensor
from numbanet.autograd.operation import Operation
from numbanet.dtypes import is_floating_point
from numbanet.errors import AutogradError, DTypeError, NumbanetError, OnnxError, UnsupportedOperationError
from numbanet.nn.module import Module
from numbanet.onnx.limits import check_size
from numbanet.onnx.operators.registry import NodeInfo, host_twin, tensor_operator

logger = logging.getLogger("numbanet.onnx")

TENSOR_DTYPES = {dtypes.float16, dtypes.float32, dtypes.float64, dtypes.int32, dtypes.int64, dtypes.uint8, dtypes.bool}


def holds(dtype: np.dtype) -> bool:
    """Whether tensors have this dtype; other values stay NumPy arrays."""
    return dtype in TENSOR_DTYPES or dtype.name == "bfloat16"


def to_host(value):
    """A value as a NumPy array."""
    if isinstance(value, Tensor):
        if not isinstance(value.array, np.ndarray):
            logger.info("copy of %s of %s from %s to the host", value.shape, value.dtype, value.device)
        return value.detach().numpy()
    return value


def to_tensor(value, device: str):
    """A value as a tensor on a device."""
    if isinstance(value, Tensor) or value is None:
        return value
    if not holds(value.dtype):
        raise DTypeError(f"values of {value.dtype} cannot be computed on tensors; expected floating point, int64, int32, uint8 or bool")
    return tensor(value, device=device)


class FromHost(Operation):
    """The result of an operator that ran on the host, as the one of its operands: it has no gradient, and says so."""

    operation_name = "host"

    def forward(self, backend, x, values, name):
        self.save(name)
        return backend.from_numpy(values)

    def backward(self, backend, grad_y, needs):
        name, = self.saved
        raise AutogradError(f"{name} runs on the host and has no gradient; freeze what is before it with requires_grad_(False)")


class OnnxNode(Module):
    """A node: its `info`, and the operators that compute it. `onnx_name` is its name in the file."""

    def __init__(self, info: NodeInfo):
        super().__init__()
        self.info = info
        self.tensor_operator = tensor_operator(info.domain, info.op_type, info.version)
        self.host_operator = host_twin(info.domain, info.op_type, info.version)
        self.weights: list = []         # parameters of the model that the node reads
        self.ran_on_host = self.tensor_operator is None
        self.max_elements: int | None = None    # of a result whose size an operand asks for; None is the usual limit
        self.shapes_only = False        # while tracing for a summary: an operator on the host sees zeros

    @property
    def onnx_name(self) -> str:
        return self.info.name

    def _get_name(self) -> str:
        return self.info.op_type

    def extra_repr(self) -> str:
        return "on the host" if self.tensor_operator is None else ""

    def parameters(self, recurse: bool = True):
        """The parameters that the node reads; they belong to the model, which names them."""
        return iter(self.weights)

    def forward(self, *operands):
        """The node's outputs, a tuple; operands are tensors, NumPy arrays, or None where absent."""
        info = self.info
        info.training = self.training
        try:
            check_size(info, operands, self.max_elements)
            result = self._compute(operands)
        except NumbanetError:
            raise
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError) as error:
            raise OnnxError(f"{info}: operands {_described(operands)} do not fit ({type(error).__name__}: {error})") from error
        result = tuple(np.asarray(r) if isinstance(r, np.generic) else r for r in (result if isinstance(result, tuple) else (result,)))
        if any(name and (i >= len(result) or result[i] is None) for i, name in enumerate(info.outputs)):
            raise OnnxError(f"{info}: the outputs {list(info.outputs)} are more than this operator gives")
        return result

    def _compute(self, operands):
        tensors, twin = self.tensor_operator, self.host_operator
        if tensors is None:
            return self._on_host(operands)
        data = [o for i, o in enumerate(operands) if o is not None and i not in tensors.host]
        on_host = bool(data) and all(isinstance(o, np.ndarray) for o in data)
        if twin is not None and (on_host or any(isinstance(o, np.ndarray) and not holds(o.dtype) for o in data)):
            return self._on_host(operands)
        try:
            return self._on_tensors(operands)
        except DTypeError:
            narrow = next((o.dtype for o in data if isinstance(o, Tensor) and o.is_floating_point() and o.element_size() == 2), None)
            if narrow is not None:
                return self._in_float32(operands, narrow)
            if twin is None:
                raise
            return self._on_host(operands)

    def _on_tensors(self, operands):
        self.ran_on_host = False
        host = self.tensor_operator.host
        device = self.info.device
        placed = [to_host(o) if i in host else to_tensor(o, device) for i, o in enumerate(operands)]
        return self.tensor_operator.function(self.info, *placed)

    def _in_float32(self, operands, narrow):
        """16-bit floats where the kernels take 32 bits: widened before, rounded after."""
        wide = [o.float() if isinstance(o, Tensor) and o.dtype == narrow else o for o in operands]
        result = self._on_tensors(wide)
        return tuple(r.to(narrow) if isinstance(r, Tensor) and r.dtype == dtypes.float32 else r
                     for r in (result if isinstance(result, tuple) else (result,)))

    def _on_host(self, operands):
        operator, info = self.host_operator, self.info
        self.ran_on_host = True
        if operator.reads_metadata:
            return operator.function(info, *operands)
        sources = [o for o in operands if isinstance(o, Tensor)]
        if any(source.backend.is_tracing for source in sources):
            if not self.shapes_only:
                raise UnsupportedOperationError(f"{info} runs on the host, so a trace cannot hold it")
            operands = [np.zeros(o.shape, o.dtype) if isinstance(o, Tensor) else o for o in operands]
        result = operator.function(info, *map(to_host, operands))
        if not sources:
            return result
        return tuple(self._back(r, sources) for r in (result if isinstance(result, tuple) else (result,)))

    def _back(self, value, sources):
        """Floats computed from tensors as a tensor again; integers, which are mostly indices and shapes, stay on the host."""
        if not isinstance(value, np.ndarray) or not is_floating_point(value.dtype):
            return value
        if sources[0].backend.is_tracing:
            return sources[0].backend.lift(tensor(value, device=self.info.device))
        source = next((s for s in sources if s.requires_grad), None)
        if source is None:
            return tensor(value, device=self.info.device)
        return FromHost.apply(source, value, str(self.info))


def _described(operands) -> str:
    return ", ".join("-" if o is None else f"{tuple(o.shape)} {o.dtype}" for o in operands)
