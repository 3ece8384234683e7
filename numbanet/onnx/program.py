"""A graph of ONNX as a list of steps: names resolved, constants folded, dead nodes dropped, every constant placed where it is read.

Values that never change are placed by their readers: a float initialiser that a step reads on tensors is a parameter, other constants that
are read on tensors are buffers, and what is read as NumPy (shapes, axes, operands of shape arithmetic) stays a NumPy array.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import no_grad
from numbanet.dtypes import is_floating_point
from numbanet.errors import NumbanetError, OnnxError, UnsupportedOperationError
from numbanet.onnx.functions import domain_of, is_known, unsupported_message
from numbanet.onnx.node import OnnxNode, holds
from numbanet.onnx.operators.registry import STANDARD_DOMAIN, NodeInfo
from numbanet.onnx.reading import MAX_NODES, attribute_value, dtype_of, tensor_values

FOLDED_BYTES = 1 << 22              # larger results are computed in every run instead
FOLDED_TOTAL = 1 << 26              # and everything, once that many bytes were folded
# What prepares shapes and constants, with results whose size is known before; everything else runs with the model.
FOLDED = {"Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape", "Div", "Equal", "Exp", "Expand",
          "Flatten", "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul",
          "Neg", "NonZero", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape",
          "Round", "Shape", "Sign", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where", "Xor"}


@dataclass(slots=True)
class Declared:
    """What the file says of an input or output: sizes are ints, names of sizes, or None; dtype and shape None where it says nothing."""

    name: str
    dtype: np.dtype | None
    shape: tuple | None


@dataclass(slots=True)
class Step:
    """One node to run: where its operands come from and which values it makes.

    `sources` are pairs (kind, key): "value" computed before or given, "state" a parameter or buffer, "constant" a NumPy array, or None.
    """

    path: str
    node: OnnxNode
    operands: tuple[str, ...]
    sources: tuple = ()
    expired: tuple[str, ...] = ()       # values that nobody reads after this step


@dataclass(slots=True)
class Program:
    """The steps in order, and what they read."""

    inputs: list[Declared]
    outputs: list[Declared]
    steps: list[Step]
    parameters: dict[str, np.ndarray] = field(default_factory=dict)     # by ONNX name
    buffers: dict[str, np.ndarray] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)


def build(model, versions: dict[str, int], folder) -> Program:
    """The :class:`Program` of a ModelProto.

    Raises
    ------
    OnnxError
        A value is missing, made twice, or read before it is made (a cycle).
    UnsupportedOperationError
        Operators that nothing here computes, all of them by name.
    """
    return _Builder(model.graph, versions, folder).run()


class _Builder:
    def __init__(self, graph, versions, folder):
        self.graph, self.versions, self.folder = graph, versions, folder
        self.initializers: dict[str, np.ndarray] = {}
        self.constants: dict[str, np.ndarray] = {}      # of Constant nodes, and folded results
        self.weights: set[str] = set()                  # names of constants that are trained
        self.known: set[str] = set()
        self.paths: dict[str, int] = {}
        self.steps: list[Step] = []
        self.folded = 0                                 # bytes

    def run(self) -> Program:
        graph = self.graph
        if graph.sparse_initializer:
            raise UnsupportedOperationError("onnx: sparse initialisers are not supported; store them as dense tensors")
        for proto in graph.initializer:
            self._define(proto.name)
            self.initializers[proto.name] = values = tensor_values(proto, self.folder)
            if is_floating_point(values.dtype) and values.ndim:
                self.weights.add(proto.name)
        inputs = [_declared(value) for value in graph.input if value.name not in self.initializers]
        for declared in inputs:
            self._define(declared.name)
        self._walk(graph)
        for output in graph.output:
            if output.name not in self.known:
                raise OnnxError(f"onnx: output {output.name!r} is made by no node")
        program = Program(inputs, [_declared(value) for value in graph.output], _alive(self.steps, {o.name for o in graph.output}))
        self._place(program)
        return program

    def _define(self, name: str) -> None:
        if name in self.known:
            raise OnnxError(f"onnx: value {name!r} is made twice; expected every name once")
        self.known.add(name)

    # Nodes
    def _walk(self, graph) -> None:
        waiting = deque((node, {}) for node in graph.node)
        made_later = {name for node in graph.node for name in node.output}
        unsupported = []
        while waiting:
            node, names = waiting.popleft()
            operands = tuple(names.get(name, name) for name in node.input)
            for name in operands:
                if name and name not in self.known:
                    reason = "a later node makes it: out of order, or a cycle" if name in made_later else "nothing makes it"
                    raise OnnxError(f"onnx: node {_label(node)} reads {name!r}, but {reason}")
            outputs = tuple(names.get(name, name) for name in node.output)
            if domain_of(node) == STANDARD_DOMAIN and node.op_type == "If":
                if (branch := self._branch(node, operands)) is not None:
                    waiting.extendleft(reversed(self._spliced(branch, node, names, outputs)))
                    if len(waiting) > MAX_NODES:
                        raise OnnxError(f"onnx: more than {MAX_NODES} nodes; expected fewer")
                    continue
            for name in filter(None, outputs):
                self._define(name)
            if node.op_type == "If" or not is_known(domain_of(node), node.op_type, self.versions.get(domain_of(node), 0)):
                unsupported.append(node)
            elif not unsupported:
                self._add(node, operands, outputs)
        if unsupported:
            reason = "; If is supported where its condition is constant" if any(n.op_type == "If" for n in unsupported) else ""
            raise UnsupportedOperationError(unsupported_message(unsupported, self.versions) + reason)

    def _branch(self, node, operands):
        """The graph that a constant condition chooses; None where the condition is computed."""
        condition = self._constant(operands[0]) if len(operands) == 1 else None
        if condition is None or condition.size != 1:
            return None
        graphs = {a.name: a.g for a in node.attribute}
        return graphs.get("then_branch" if condition.reshape(-1)[0] else "else_branch")

    def _spliced(self, branch, node, outer: dict[str, str], outputs) -> list:
        """The nodes of a branch with a table of its names, which are made unique, and its results under the names of the If's outputs."""
        prefix = f"{node.name or (outputs[0] if outputs else 'If')}/"
        names = dict(outer)
        for name in (*(t.name for t in branch.initializer), *(name for inner in branch.node for name in inner.output)):
            if name:
                names[name] = prefix + name
        for proto in branch.initializer:
            self._define(names[proto.name])
            self.constants[names[proto.name]] = tensor_values(proto, self.folder)
        if len(branch.output) != len(outputs):
            raise OnnxError(f"onnx: node {_label(node)} has {len(outputs)} outputs, its branch {len(branch.output)}")
        copies = []
        for target, inner in zip(outputs, branch.output):
            copy = type(node)(op_type="Identity", name=f"{prefix}{inner.name}", input=[names.get(inner.name, inner.name)], output=[target])
            copies.append((copy, {}))
        return [(inner, names) for inner in branch.node] + copies

    def _add(self, node, operands, outputs) -> None:
        info = NodeInfo(node.op_type, node.name, self._attributes(node), self.versions.get(domain_of(node), 0), outputs, domain_of(node))
        if info.op_type == "Constant" and info.domain == STANDARD_DOMAIN:
            values = _constant_value(info)
            self.constants[outputs[0]] = values
            if is_floating_point(values.dtype) and values.ndim and values.size > 1:
                self.weights.add(outputs[0])        # older exporters write weights so
            return
        module = OnnxNode(info)
        if not self._fold(module, operands, outputs):
            self.steps.append(Step(self._path(info), module, operands))

    def _attributes(self, node) -> dict:
        attributes = {}
        for attribute in node.attribute:
            if attribute.name in attributes:
                raise OnnxError(f"onnx: node {_label(node)} gives attribute {attribute.name!r} twice")
            if attribute.ref_attr_name:
                raise OnnxError(f"onnx: node {_label(node)} takes attribute {attribute.name!r} from a function, but stands in none")
            attributes[attribute.name] = attribute_value(attribute, self.folder)
        return attributes

    def _path(self, info) -> str:
        return safe_name(info.name or next(filter(None, info.outputs), info.op_type), self.paths)

    # Constants
    def _constant(self, name: str):
        """The value of a name that never changes and is not trained; None otherwise."""
        if name in self.constants:
            return self.constants[name]
        return self.initializers.get(name) if name not in self.weights else None

    def _fold(self, module: OnnxNode, operands, outputs) -> bool:
        """Run a node of constants now, where the result is small."""
        info = module.info
        values = [self._constant(name) if name else None for name in operands]
        if info.op_type not in FOLDED or not operands or any(v is None and name for v, name in zip(values, operands)):
            return False
        if self.folded > FOLDED_TOTAL or sum(v.nbytes for v in values if v is not None) > FOLDED_BYTES:
            return False
        try:
            module.max_elements = FOLDED_BYTES // 4
            with no_grad():
                results = module.eval()(*values)
        except NumbanetError:
            return False            # the error, if it is one, comes in a run, with the path of the node
        finally:
            module.max_elements = None
        results = [r.numpy() if isinstance(r, Tensor) else r for r in results]
        if not all(isinstance(r, np.ndarray) and r.nbytes <= FOLDED_BYTES for name, r in zip(outputs, results) if name):
            return False
        self.constants.update((name, r) for name, r in zip(outputs, results) if name)
        self.folded += sum(r.nbytes for r in results)
        return True

    # Placement
    def _place(self, program: Program) -> None:
        on_host: set[str] = set()       # values that are NumPy arrays when they are computed
        for step in program.steps:
            wanted = self._host_positions(step, on_host)
            state = _state_positions(step)
            step.sources = tuple(self._source(program, name, i in wanted, i in state) for i, name in enumerate(step.operands))
            operator = step.node.tensor_operator
            if operator is None or operator.on_host or len(wanted) == len(step.operands) > 0 and step.node.host_operator is not None:
                on_host.update(step.node.info.outputs)
        for declared in program.outputs:        # a constant may be the answer
            if (values := self._any(declared.name)) is not None:
                program.constants[declared.name] = values
        last = {name: step for step in program.steps for name in step.operands}
        for step in program.steps:
            unread = [name for name in step.node.info.outputs if name and name not in last]
            last.update((name, step) for name in unread)
        kept = {declared.name for declared in program.outputs}
        expired: dict[int, list[str]] = {}
        for name, step in last.items():
            if name and name not in kept:
                expired.setdefault(id(step), []).append(name)
        for step in program.steps:
            step.expired = tuple(expired.get(id(step), ()))

    def _host_positions(self, step: Step, on_host: set[str]) -> set[int]:
        """Positions of operands that the step will read as NumPy arrays."""
        everything = set(range(len(step.operands)))
        operator = step.node.tensor_operator
        if operator is None:
            return everything
        data = [name for i, name in enumerate(step.operands) if name and i not in operator.host]
        computed = [name for name in data if self._any(name) is None]
        constants = [self._any(name) for name in data if self._any(name) is not None]
        small = all(v.size <= 1 or not is_floating_point(v.dtype) for v in constants)
        if step.node.host_operator is not None and data and (computed or small) and all(name in on_host for name in computed):
            return everything
        if any(not holds(v.dtype) for v in constants):
            return everything
        return set(operator.host)

    def _any(self, name: str):
        return self.constants[name] if name in self.constants else self.initializers.get(name)

    def _source(self, program: Program, name: str, as_host: bool, as_state: bool):
        if not name:
            return None
        values = self._any(name)
        if values is None:
            return "value", name
        if as_host or not holds(values.dtype):
            program.constants[name] = values
            return "constant", name
        if name in self.weights and not as_state and name not in program.buffers:
            program.parameters[name] = values
        elif name not in program.parameters:
            program.buffers[name] = values
        return "state", name


def _state_positions(step: Step) -> tuple[int, ...]:
    return step.node.tensor_operator.state if step.node.tensor_operator is not None else ()


def _alive(steps: list[Step], wanted: set[str]) -> list[Step]:
    """The steps that an output depends on."""
    kept = []
    for step in reversed(steps):
        if any(name in wanted for name in step.node.info.outputs if name):
            wanted.update(filter(None, step.operands))
            kept.append(step)
    return kept[::-1]


def _constant_value(info: NodeInfo) -> np.ndarray:
    kinds = {"value": None, "value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    given = [name for name in info.attributes if name in kinds]
    if len(given) != 1:
        raise UnsupportedOperationError(f"onnx: {info} holds {', '.join(info.attributes) or 'nothing'}; expected one of {', '.join(kinds)}")
    return np.asarray(info.attributes[given[0]], kinds[given[0]])


def _declared(value) -> Declared:
    kind = value.type.WhichOneof("value")
    if kind is None:
        return Declared(value.name, None, None)
    if kind != "tensor_type":
        raise UnsupportedOperationError(f"onnx: {value.name!r} is a {kind.removesuffix('_type')}; expected a tensor")
    tensor = value.type.tensor_type
    dtype = dtype_of(tensor.elem_type, repr(value.name)) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return Declared(value.name, dtype, None)
    # Some exporters write -1 for a size that is open.
    sizes = tuple((d.dim_value if d.dim_value >= 0 else None) if d.HasField("dim_value") else d.dim_param or None
                  for d in tensor.shape.dim)
    return Declared(value.name, dtype, sizes)


def _label(node) -> str:
    return f"{node.name!r} ({node.op_type})" if node.name else f"{node.op_type} of {', '.join(node.output)}"


def safe_name(name: str, taken: dict[str, int]) -> str:
    """A name of ONNX as an attribute's: letters, digits and underscores, none twice.

    `taken` maps names to the number last added to them; it grows.
    """
    safe = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
    safe = f"n{safe}" if safe[0].isdigit() else safe
    unique, count = safe, taken.get(safe, 1)
    while unique in taken:
        count += 1
        unique = f"{safe}_{count}"
    taken[safe] = count
    taken.setdefault(unique, 1)
    return unique
