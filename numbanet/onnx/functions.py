"""Functions of a model are inlined, and operators that nothing here computes are found, all at once, before anything runs."""

from __future__ import annotations

from numbanet.errors import OnnxError, UnsupportedOperationError
from numbanet.onnx.operators.registry import STANDARD_DOMAIN, host_twin, tensor_operator
from numbanet.onnx.reading import MAX_NODES, first_line, onnx_package

STRUCTURAL = {"Constant", "If"}     # handled while the program is built
LISTED = 20                         # unsupported nodes that a message names


def domain_of(node) -> str:
    """A node's domain; the standard one is ""."""
    return STANDARD_DOMAIN if node.domain == "ai.onnx" else node.domain


def is_known(domain: str, op_type: str, version: int) -> bool:
    """Whether an operator is computed here."""
    if domain == STANDARD_DOMAIN and op_type in STRUCTURAL:
        return True
    return tensor_operator(domain, op_type, version) is not None or host_twin(domain, op_type, version) is not None


def inlined(model, versions: dict[str, int]):
    """The model without functions: those that it brings along, and those whose body the ONNX standard defines.

    Raises
    ------
    OnnxError
        Functions call each other in a circle, or would grow to too many nodes.
    """
    onnx = onnx_package()
    if model.functions:
        _check_expansion(model)
        model = _expanded(onnx.inliner.inline_local_functions, model)
    wanted = sorted({(domain_of(n), n.op_type) for n in _all_nodes(model.graph)
                     if not is_known(domain_of(n), n.op_type, versions.get(domain_of(n), 0)) and _has_body(onnx, n, versions)})
    if wanted:
        model = _expanded(onnx.inliner.inline_selected_functions, model, wanted, inline_schema_functions=True)
    return model


def _expanded(inline, *arguments, **options):
    from google.protobuf.message import DecodeError
    try:
        return inline(*arguments, **options)
    except (RuntimeError, ValueError, DecodeError) as error:
        raise OnnxError(f"onnx: functions cannot be expanded ({first_line(error)})") from None


def _has_body(onnx, node, versions) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, versions.get(domain_of(node), 0), domain_of(node))
    except onnx.defs.SchemaError:
        return False
    return schema.has_function or schema.has_context_dependent_function


def _all_nodes(graph):
    """Nodes of a graph and of the graphs in its attributes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g)


def _check_expansion(model) -> None:
    """Count the nodes that inlining would make, without making them."""
    bodies = {(f.domain, f.name): list(_all_nodes(f)) for f in model.functions}
    if len(bodies) != len(model.functions):
        raise OnnxError("onnx: two functions of the model have the same name")
    sizes: dict[tuple[str, str], int] = {}
    waiting = list(bodies)
    visiting: set[tuple[str, str]] = set()
    while waiting:
        key = waiting[-1]
        calls = [(n.domain, n.op_type) for n in bodies[key] if (n.domain, n.op_type) in bodies]
        missing = [call for call in calls if call not in sizes]
        if key not in sizes and missing:
            if key in visiting:
                raise OnnxError(f"onnx: function {key[1]!r} calls itself, directly or through others")
            visiting.add(key)
            waiting.extend(missing)
            continue
        sizes[key] = len(bodies[key]) + sum(sizes[call] for call in calls)
        waiting.pop()
    total = sum(sizes.get((n.domain, n.op_type), 1) for n in _all_nodes(model.graph))
    if total > MAX_NODES:
        raise OnnxError(f"onnx: the functions of the model expand to {total} nodes; expected at most {MAX_NODES}")


def check_supported(model, versions: dict[str, int]) -> None:
    """All operators of a graph that nothing here computes or expands, in one error.

    Raises
    ------
    UnsupportedOperationError
    """
    onnx = onnx_package()
    functions = {(f.domain, f.name) for f in model.functions}
    missing = [n for n in model.graph.node if not is_known(domain_of(n), n.op_type, versions.get(domain_of(n), 0))
               and (n.domain, n.op_type) not in functions and not _has_body(onnx, n, versions)]
    if missing:
        raise UnsupportedOperationError(unsupported_message(missing, versions))


def unsupported_message(nodes, versions: dict[str, int]) -> str:
    """What cannot be run, by operator, with the names of the nodes."""
    by_operator: dict[str, list[str]] = {}
    for n in nodes:
        domain = domain_of(n)
        operator = f"{domain or 'ai.onnx'}.{n.op_type} (opset {versions.get(domain, 'missing')})"
        by_operator.setdefault(operator, []).append(n.name or (n.output[0] if n.output else "without a name"))
    listed = []
    for operator, names in by_operator.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        listed.append(f"{operator}: {', '.join(names[:3])}{more}")
    rest = f"; and {len(listed) - LISTED} more operators" if len(listed) > LISTED else ""
    return f"onnx: the model uses operators that are not supported: {'; '.join(listed[:LISTED])}{rest}"
