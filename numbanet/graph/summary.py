"""The table of a network: one row per layer, drawn from its traced graph."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass, field

from numbanet.graph.cost import geometry_of, multiply_adds, receptive_fields
from numbanet.graph.trace import trace


@dataclass
class Row:
    """A layer: its path and class, output shape, parameters, multiply-adds, bytes of its output, receptive field, remarks."""

    path: str
    kind: str
    output_shape: tuple[int, ...] | None
    parameters: int
    multiply_adds: int
    memory: int
    receptive_field: str
    remarks: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """What :func:`summarize` found; `print` it, or take :meth:`as_dict`."""

    model: str
    input_shapes: list[tuple[int, ...]]
    rows: list[Row]
    parameters: int
    trainable_parameters: int
    multiply_adds: int
    activation_bytes: int
    parameter_bytes: int
    host_layers: list[str] = field(default_factory=list)        # of imported models: what NumPy computes on every device

    def as_dict(self) -> dict:
        return asdict(self)

    def __str__(self):
        header = ("layer", "output", "params", "mult-adds", "memory", "field")
        cells = [(f"{r.path}  {r.kind}" if r.path else r.kind, _sizes(r.output_shape), f"{r.parameters:,}", f"{r.multiply_adds:,}",
                  _bytes(r.memory), r.receptive_field) for r in self.rows]
        widths = [max(len(row[i]) for row in (header, *cells)) for i in range(len(header))]

        def line(row):
            return "  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1]), *(c.rjust(w) for c, w in zip(row[2:], widths[2:]))])
        rule = "-" * len(line(header))
        lines = [f"{self.model}, input {' and '.join(str(s) for s in self.input_shapes)}", rule, line(header), rule]
        for row, cell in zip(self.rows, cells):
            lines.append(line(cell))
            lines.extend(f"    {remark}" for remark in row.remarks)
        lines += [rule,
                  f"parameters     {self.parameters:,} ({_bytes(self.parameter_bytes)}), of them trainable {self.trainable_parameters:,}",
                  f"multiply-adds  {self.multiply_adds:,}",
                  f"activations    {_bytes(self.activation_bytes)} of layer outputs"]
        if self.host_layers:
            lines.append(f"on the host    {', '.join(self.host_layers)}")
        return "\n".join(lines)


def _sizes(shape) -> str:
    """Without the batch."""
    return "-" if shape is None else " x ".join(map(str, shape[1:])) or "scalar"


def _bytes(n: int) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000


def summarize(model, example) -> Summary:
    """The :class:`Summary` of `model` for inputs like `example` (a tensor or a tuple of tensors)."""
    training = model.training
    model.eval()
    try:
        with model.shapes_only() if hasattr(model, "shapes_only") else nullcontext():
            graph = trace(model, example)
    finally:
        model.train(training)
    fields = receptive_fields(graph)
    modules = dict(model.named_modules())
    rows, position = [], 0
    while position < len(graph.nodes):
        path = graph.nodes[position].path
        end = position
        while end < len(graph.nodes) and graph.nodes[end].path == path:
            end += 1
        rows.append(_row(path, modules.get(path), graph.nodes[position:end], fields, seen={r.path for r in rows}))
        position = end
    parameters = list(model.parameters())
    return Summary(type(model).__name__, [v.shape for v in graph.inputs], rows, sum(p.numel() for p in parameters),
                   sum(p.numel() for p in parameters if p.requires_grad), sum(r.multiply_adds for r in rows),
                   sum(r.memory for r in rows), sum(p.nbytes for p in parameters),
                   model.host_nodes() if hasattr(model, "host_nodes") else [])


def _row(path, module, nodes, fields, seen) -> Row:
    produced = [v for n in nodes for v in (*n.outputs, *(n.writes_into or ())) if v is not None]
    output = next((v for v in reversed(produced) if v.dtype.kind == "f"), produced[-1] if produced else None)
    own = list(module.parameters(recurse=False)) if module is not None and path not in seen else []
    children = module is not None and any(True for _ in module.children())
    kind = nodes[0].primitive.removesuffix("_forward") if module is None or children else module._get_name()
    return Row(path, kind, None if output is None else output.shape, sum(p.numel() for p in own), sum(multiply_adds(n) for n in nodes),
               0 if output is None else output.nbytes, str(fields[output]) if output in fields else "-",
               [r for n in nodes for r in _remarks(n)])


def _remarks(node) -> list[str]:
    """Whether (N - F + 2P) / S is whole, and what is never read where it is not."""
    geometry = geometry_of(node)
    if geometry is None:
        return []
    names = ("slices", "rows", "columns")[-len(geometry.stride):]
    remarks = []
    for axis, (name, left) in enumerate(zip(names, geometry.unread())):
        if not left:
            continue
        n, s, (before, after) = geometry.input_size[axis], geometry.stride[axis], geometry.padding[axis]
        f = geometry.dilation[axis] * (geometry.kernel_size[axis] - 1) + 1
        steps = (n - f + before + after) / s
        unread = left - after               # the far padding is left out first
        if geometry.output_size[axis] > steps + 1:
            end = "ceil_mode adds a window that reaches over the border"
        elif unread > 0:
            end = f"the last {unread} {name} are never read" if unread > 1 else f"the last of the {name} is never read"
        else:
            end = "only padding is left out"
        remarks.append(f"{name}: ({n} - {f} + {before + after})/{s} = {steps:.2f} is not whole: {end}")
    return remarks
