"""Which of ONNX's own test cases pass, by operator: ``python -m numbanet.onnx.pass_table [--write] [--device NAME]``.

The `onnx` package holds the cases: models of one operator that it builds in memory, nine whole architectures ("light"), and models that
PyTorch wrote ("pytorch-converted", "pytorch-operator"). `--write` puts the table into docs/onnx-operators.md.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import onnx
from onnx import TensorProto
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from numbanet.errors import UnsupportedOperationError
from numbanet.onnx import backend
from numbanet.onnx.operators import registry

PAGE = Path(__file__).parents[2] / "docs" / "onnx-operators.md"
BEGIN, END = "<!-- begin of the table -->", "<!-- end of the table -->"

PLAIN_TYPES = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.INT8, TensorProto.INT16,
               TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64}

STORED = ("light", "pytorch-converted", "pytorch-operator")

# Families of operators that convolutional networks do not use.
OTHER_FAMILIES = {
    "attention and language models": {"Attention", "CausalConvWithState", "FlexAttention", "LinearAttention", "RotaryEmbedding", "SwiGLU",
                                      "TensorScatter"},
    "recurrent": {"GRU", "LSTM", "RNN"},
    "control flow": {"If", "Loop", "Scan"},
    "optional values and sequences": {"OptionalGetElement", "OptionalHasElement", "SequenceInsert", "SequenceMap", "SplitToSequence"},
    "signals": {"BlackmanWindow", "DFT", "HammingWindow", "HannWindow", "MelWeightMatrix", "STFT"},
    "quantised": {"ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
                  "QuantizeLinear"},
    "shifted and reinterpreted bits": {"BitCast", "BitShift"},
    "text and files": {"ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"},
    "random": {"Bernoulli"},            # what is drawn is the implementation's choice
}
_FAMILY = {name: family for family, names in OTHER_FAMILIES.items() for name in names}

# Cases of the CNN operators with plain types that fail, each with its reason.
REASONS = dict.fromkeys(
    ("test_training_dropout", "test_training_dropout_default", "test_training_dropout_default_mask", "test_training_dropout_mask"),
    "the expected output holds what NumPy's generator drops; numbanet draws from its own")


@dataclass
class Row:
    """One operator's line of the table."""

    operator: str
    where: str = ""
    cases: int = 0
    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)       # case -> reason


@cache
def node_cases() -> dict[str, TestCase]:
    """The cases of single operators by name, as the onnx package builds them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # the package's own arithmetic overflows and divides by zero
        return {case.name: case for case in load_model_tests(kind="node")}


def stored_cases(kind: str) -> Iterator[TestCase]:
    """The cases that the onnx package holds in files: "light", "pytorch-converted", "pytorch-operator"; one at a time in memory."""
    for case in sorted(load_model_tests(kind="real" if kind == "light" else kind), key=lambda case: case.name):
        if kind == "light":
            path = Path(onnx.__file__).parents[1] / case.url
            model = onnx.load(path)
            constants = {constant.name for constant in model.graph.initializer}
            inputs = [Runner.generate_dummy_data(value) for value in model.graph.input if value.name not in constants]
            outputs = [_tensor(path.with_name(f"{path.stem}_output_{i}.pb")) for i in range(len(model.graph.output))]
            yield replace(case, model=model, data_sets=[(inputs, outputs)])
        else:
            folder = Path(case.model_dir)
            data_sets = [(_tensors(data, "input"), _tensors(data, "output")) for data in sorted(folder.glob("test_data_set_*"))]
            yield replace(case, model=onnx.load(folder / "model.onnx"), data_sets=data_sets)


def _tensor(path: Path):
    return onnx.numpy_helper.to_array(onnx.load_tensor(path))


def _tensors(folder: Path, what: str) -> list:
    return [_tensor(folder / f"{what}_{i}.pb") for i in range(len(list(folder.glob(f"{what}_*.pb"))))]


def operator_of(case: TestCase) -> str:
    """The operator that a case is about; a case whose function was expanded is about that function."""
    name = case.name.partition("_expanded")[0]
    nodes = node_cases()[name].model.graph.node if name in node_cases() else case.model.graph.node
    return nodes[0].op_type


def is_expanded(case: TestCase) -> bool:
    """Whether a case repeats another one with the operator's function body in its place."""
    return "_expanded" in case.name


def has_plain_types(case: TestCase) -> bool:
    """Whether all inputs and outputs are tensors of float16, float32, float64, an integer of 8 to 64 bits, or bool."""
    values = [*case.model.graph.input, *case.model.graph.output]
    return all(value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in PLAIN_TYPES for value in values)


def family_of(case: TestCase) -> str:
    """Why a case is not one of a convolutional network, or "" where it is.

    It is one if it tests an operator of ONNX's own domain as a whole (not the expansion of its function into others), on plain types,
    and the operator belongs to none of `OTHER_FAMILIES`.
    """
    if any(node.domain not in ("", "ai.onnx") for node in case.model.graph.node):
        return "other domains"
    if is_expanded(case):
        return "expanded functions"
    return _FAMILY.get(operator_of(case), "") or ("" if has_plain_types(case) else "other types")


def cnn_cases() -> dict[str, TestCase]:
    """The cases that use operators of convolutional networks with plain types: 939 in onnx 1.23."""
    return {name: case for name, case in node_cases().items() if not family_of(case)}


def failure(case: TestCase, device: str = "CPU") -> str:
    """Run a case of one operator; "" where every output agrees, else what went wrong."""
    try:
        prepared = backend.prepare(case.model, device)
        for inputs, expected in case.data_sets:
            inputs, expected = [[onnx.numpy_helper.to_array(value) if isinstance(value, TensorProto) else value for value in values]
                                for values in (inputs, expected)]
            Runner.assert_similar_outputs(expected, prepared.run(inputs), case.rtol, case.atol)
    except UnsupportedOperationError as error:
        return f"unsupported: {error}"
    except Exception as error:          # whatever a broken operator does, the table goes on
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def where_it_runs(operator: str) -> str:
    """"tensors" where the newest operator runs on a backend, "host" where it runs in NumPy, else ""."""
    newest = onnx.defs.onnx_opset_version()
    if registry.tensor_operator("", operator, newest):
        return "tensors"
    return "host" if registry.host_twin("", operator, newest) else ""


def table(cases: Iterable[TestCase], device: str = "CPU", row_of=operator_of) -> list[Row]:
    """Run cases; one row for each operator, or for whatever `row_of` says of a case."""
    rows: dict[str, Row] = {}
    for case in cases:
        name = row_of(case)
        row = rows.setdefault(name, Row(name, where_it_runs(name)))
        row.cases += 1
        reason = failure(case, device)
        if reason:
            row.failed[case.name] = REASONS.get(case.name, reason)
        else:
            row.passed += 1
    return sorted(rows.values(), key=lambda row: row.operator)


def _markdown(headings: tuple[str, ...], rows: Iterable[tuple]) -> list[str]:
    return [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}", *(f"| {' | '.join(map(str, row))} |" for row in rows), ""]


def _reasons(row: Row) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in sorted(row.failed.items()):
        by_reason.setdefault(reason.replace("|", "\\|"), []).append(f"`{name}`")
    return "<br>".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())


def _count(rows: list[Row]) -> str:
    return f"{sum(row.passed for row in rows)} of {sum(row.cases for row in rows)}"


def report(device: str = "CPU") -> str:
    """The whole table as Markdown."""
    families: dict[str, list[TestCase]] = {}
    for case in node_cases().values():
        families.setdefault(family_of(case), []).append(case)
    cnn = table(families.pop(""), device)
    beyond = {family: table(cases, device) for family, cases in sorted(families.items())}
    stored = {kind: table(stored_cases(kind), device, row_of=lambda case: case.name) for kind in STORED}
    totals = [("operators of convolutional networks, plain types", _count(cnn)), *((kind, _count(rows)) for kind, rows in stored.items()),
              *((f"beyond: {family}", _count(rows)) for family, rows in beyond.items())]
    lines = [f"From onnx {onnx.__version__}, opset {onnx.defs.onnx_opset_version()}.", "", *_markdown(("Cases", "Pass"), totals),
             "## By operator", "",
             *_markdown(("Operator", "Runs on", "Cases", "Pass", "The rest, and why"),
                        ((row.operator, row.where, row.cases, row.passed, _reasons(row)) for row in cnn)),
             "## Beyond convolutional networks", "",
             *_markdown(("Family", "Operator", "Runs on", "Cases", "Pass"),
                        ((family, row.operator, row.where, row.cases, row.passed) for family, rows in beyond.items()
                         if family != "expanded functions" for row in rows))]
    failed = [(kind, f"`{row.operator}`", *row.failed.values()) for kind, rows in stored.items() for row in rows if row.failed]
    if failed:
        lines += ["## Whole models that fail", "", *_markdown(("Kind", "Model", "Why"), failed)]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table, and with --write put it into the documentation."""
    parser = argparse.ArgumentParser(prog="python -m numbanet.onnx.pass_table", description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/onnx-operators.md")
    parser.add_argument("--device", default="CPU", help="CPU, CUDA, or a device of numbanet (default: CPU)")
    options = parser.parse_args(arguments)
    if options.write and not PAGE.exists():
        parser.error(f"--write needs a source tree with {PAGE.name}")
    text = report(options.device)
    sys.stdout.write(text)
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
