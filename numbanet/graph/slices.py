"""Walking a batch in slices: where a model does little arithmetic for each byte, its maps should stay in the caches.

A slice is a plan of its own, for fewer samples, that is replayed over the batch. That gives the same numbers wherever no node mixes
samples; how many samples fit is for the backend to say.
"""

from __future__ import annotations

import numpy as np

from numbanet._tensor import Tensor
from numbanet.backends import ArraySpec
from numbanet.graph.cost import multiply_adds
from numbanet.graph.graph import Graph, Node, Value
from numbanet.graph.plan import Plan, check_out

# Whose first operand alone carries the batch (and a residual), in its first axis:
OF_MAPS = ("conv2d_forward", "conv2d_fused", "conv2d_activated", "conv2d_preactivated", "conv2d_chain", "conv2d_max_pool_values",
           "linear_forward", "linear_fused", "linear_activated", "channel_affine", "max_pool2d_values", "avg_pool2d_forward",
           "adaptive_avg_pool2d_forward")
WITH_RESIDUAL = "conv2d_fused", "conv2d_activated", "conv2d_preactivated", "conv2d_chain"      # in the fourth place
ELEMENTWISE = ("add", "multiply", "relu_forward", "hardtanh_forward", "clamp", "sigmoid_forward", "silu_forward", "hardswish_forward",
               "hardsigmoid_forward", "gelu_forward", "elementwise_chain")


def slice_size(graph: Graph, plan: Plan) -> int:
    """Samples of a slice, at most the batch; the whole batch where a node may mix samples or slices do not pay."""
    if not graph.inputs or any(not v.shape for v in graph.inputs):
        return 1
    batch = graph.inputs[0].shape[0]
    if batch < 2 or not keeps_samples_apart(graph, batch):
        return batch
    results = sum(v.nbytes for node in graph.nodes for v in node.outputs if v is not None)
    work = sum(map(multiply_adds, graph.nodes))
    fitting = max(1, min(batch, plan.backend.samples_at_once(plan.layout.size // batch, results // batch, work // batch)))
    divisors = [n for n in range(1, fitting + 1) if batch % n == 0]
    return divisors[-1] if 2 * divisors[-1] > fitting else fitting


def keeps_samples_apart(graph: Graph, batch: int) -> bool:
    """Whether sample i of each result depends on sample i of the inputs alone, as far as the primitives are known here."""
    if any(v.shape[0] != batch for v in graph.inputs):
        return False
    carrying = set(graph.inputs)
    for node in graph.nodes:
        if any(v in carrying for v in node.operands()):
            if not _keeps_samples_apart(node, carrying, batch):
                return False
            carrying.update(node.outputs)
    return all(v in carrying for v in graph.outputs)


def _keeps_samples_apart(node: Node, carrying: set, batch: int) -> bool:
    if node.writes_into or len(node.outputs) != 1 or not node.outputs[0].shape or node.outputs[0].shape[0] != batch:
        return False
    operands = list(node.operands())
    if node.primitive in OF_MAPS:
        residual = node.arguments[3] if node.primitive in WITH_RESIDUAL else None
        return operands[0] in carrying and all(v is residual for v in operands[1:] if v in carrying) and residual in (None, *carrying)
    if node.primitive in ELEMENTWISE:
        rank = len(node.outputs[0].shape)
        return all(len(v.shape) == rank if v in carrying else _is_broadcast(v, rank) for v in operands)
    if node.primitive in ("concatenate", "interleave_channels", "separate_channels"):
        return node.arguments[1:] != (0,) and all(v in carrying for v in operands)
    if node.primitive == "slice_view":
        return node.arguments[1][0] == (0, batch, 1)
    return node.primitive == "reshape"


def _is_broadcast(value: Value, rank: int) -> bool:
    return len(value.shape) < rank or value.shape[0] == 1


class Slices:
    """Plans of slices in place of a plan of the whole batch; called alike.

    Parameters
    ----------
    graph : that of the whole batch
    plans : the plan of each slice, in order
    """

    def __init__(self, graph: Graph, plans: list[Plan]):
        self.graph, self.plans = graph, plans
        self.backend = plans[0].backend

    @property
    def nbytes(self) -> int:
        """Bytes of the arenas."""
        return sum(plan.nbytes for plan in {id(plan): plan for plan in self.plans}.values())

    def run(self, *inputs: Tensor, out: tuple[Tensor, ...] | None = None) -> tuple[Tensor, ...]:
        """As `Plan.run`."""
        backend = self.backend
        if out is None:
            out = tuple([Tensor._wrap(backend.empty(v.shape, v.dtype, v.order), backend) for v in self.graph.outputs])
        begin = 0
        for plan in self.plans:
            end = begin + plan.graph.inputs[0].shape[0]
            plan.run(*[_rows(t, begin, end) for t in inputs], out=tuple([_rows(t, begin, end) for t in out]))
            begin = end
        return out

    def describe(self) -> str:
        """As `Plan.describe`, of the first slice."""
        sizes = [plan.graph.inputs[0].shape[0] for plan in self.plans]
        return f"{len(sizes)} slices of {sizes[0]} samples\n{self.plans[0].describe()}"


class Filled:
    """The plan of one batch size for batches of another: in slices of its own size, the last one filled up.

    Parameters
    ----------
    plan : Plan or Slices, of a graph that keeps samples apart
    batch : samples
    """

    def __init__(self, plan: Plan | Slices, batch: int):
        self.of, self.batch, self.graph, self.backend = plan, batch, plan.graph, plan.backend
        self.size = plan.graph.inputs[0].shape[0]

    @property
    def nbytes(self) -> int:
        """As `Plan.nbytes`."""
        return self.of.nbytes

    def run(self, *inputs: Tensor, out: tuple[Tensor, ...] | None = None) -> tuple[Tensor, ...]:
        """As `Plan.run`."""
        results = tuple([Tensor._wrap(self.backend.empty((self.batch, *v.shape[1:]), v.dtype, v.order), self.backend)
                         for v in self.graph.outputs])
        for begin in range(0, self.batch, self.size):
            count = min(self.size, self.batch - begin)
            slices = [_rows(t, begin, begin + count) for t in inputs]
            made = self.of.run(*slices if count == self.size else map(self._fill, slices, self.graph.inputs))
            for target, rows in zip(results, made):
                self.backend.copy(_rows(rows, 0, count).array, out=_rows(target, begin, begin + count).array)
        if out is None:
            return results
        check_out(self.backend, [ArraySpec(t.shape, t.dtype) for t in results], out)
        for target, rows in zip(out, results):
            self.backend.copy(rows.array, out=target.array)
            target.storage.version += 1
        return out

    def _fill(self, t: Tensor, value: Value) -> Tensor:
        """A slice with zeros behind its samples."""
        whole = Tensor._wrap(self.backend.from_numpy(np.zeros(value.shape, value.dtype)), self.backend)
        self.backend.copy(t.array, out=_rows(whole, 0, t.shape[0]).array)
        return whole

    def describe(self) -> str:
        """As `Plan.describe`, of the slices."""
        return f"slices of {self.size} samples, the last filled up\n{self.of.describe()}"


def _rows(t: Tensor, begin: int, end: int) -> Tensor:
    index = ((begin, end, 1), *[(0, n, 1) for n in t.shape[1:]])
    return Tensor._wrap(t.backend.slice_view(t.array, index), t.backend, t.storage)
