"""What nodes of a graph cost, and what they see of the input: functions of shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from numbanet.geometry import ConvGeometry, PoolGeometry
from numbanet.graph.graph import Graph, Node, Value


def multiply_adds(node: Node) -> int:
    """Multiply-adds of a convolution or matrix product, border taps included, as papers count them; 0 for all others."""
    geometry = geometry_of(node)
    operands = list(node.operands())
    if node.primitive == "conv2d_chain":
        return sum(g.multiply_adds(operands[0].shape[0]) for g in node.arguments[4])
    if isinstance(geometry, ConvGeometry):
        return 0 if node.primitive.endswith("_bias") else geometry.multiply_adds(operands[0].shape[0])
    if node.primitive == "linear_fused_backward":
        grad_x, grad_weight, _ = node.outputs
        return operands[0].shape[0] * prod(grad_weight.shape) * (2 if grad_x is not None else 1)
    if node.primitive.startswith("linear_") and not node.primitive.endswith("_bias"):
        rows, columns = operands[0].shape[0], operands[1].shape
        return rows * prod(columns) if node.primitive != "linear_backward_weight" else operands[0].shape[1] * prod(columns)
    if node.primitive == "matmul":
        return prod(node.outputs[0].shape) * operands[0].shape[-1] if node.outputs else 0
    return 0


def geometry_of(node: Node) -> ConvGeometry | PoolGeometry | None:
    """The sliding window of a node, if it has one."""
    return next((a for a in node.arguments if isinstance(a, (ConvGeometry, PoolGeometry))), None)


@dataclass(frozen=True)
class Field:
    """Receptive field along the spatial axes: `size` input elements seen by one output element, `jump` input elements between
    the fields of neighbours. `size` None: the whole input."""

    size: tuple[int, ...] | None
    jump: tuple[int, ...]

    def through(self, geometry) -> Field:
        """The field after a window: size + (kernel - 1) * dilation * jump, jump * stride."""
        if self.size is None:
            return self
        rank = len(geometry.kernel_size)
        size, jump = self.size or (1,) * rank, self.jump or (1,) * rank
        return Field(tuple(n + (f - 1) * d * j for n, f, d, j in zip(size, geometry.kernel_size, geometry.dilation, jump)),
                     tuple(j * s for j, s in zip(jump, geometry.stride)))

    def __str__(self):
        return "all" if self.size is None else "x".join(map(str, self.size)) or "1"


_WHOLE = Field(None, ())
_POINTWISE_ON_MAPS = ("linear", "matmul", "adaptive", "softmax", "log_softmax", "sum", "mean")


def receptive_fields(graph: Graph) -> dict[Value, Field]:
    """The receptive field of every value that depends on the inputs; branches that meet take the larger one.

    Linear layers, global pooling, reductions and flattening see the whole input.
    """
    fields: dict[Value, Field] = {v: Field((), ()) for v in graph.inputs}
    for node in graph.nodes:
        reached = [fields[v] for v in node.operands() if v in fields]
        if not reached:
            continue
        if any(f.size is None for f in reached) or _mixes_positions(node):
            joined = _WHOLE
        else:
            joined = Field(tuple(map(max, *(f.size for f in reached))) if len({len(f.size) for f in reached}) == 1 and len(reached) > 1
                           else max((f.size for f in reached), key=len), max((f.jump for f in reached), key=len))
        geometry = geometry_of(node)
        if geometry is not None:
            joined = joined.through(geometry)
        for v in (*node.outputs, *(node.writes_into or ())):
            if v is not None:
                fields[v] = joined
    return fields


def _mixes_positions(node: Node) -> bool:
    if node.primitive.startswith(_POINTWISE_ON_MAPS):
        return True
    return node.primitive == "reshape" and len(node.outputs[0].shape) == 2
