"""The kernels of the family by name: their machine code for an architecture, and those that are compiled ahead of their first use."""

from __future__ import annotations

from collections.abc import Iterable

from numbanet.backends.cuda.cubin import Cubin, Source, cubin
from numbanet.backends.cuda.tiles.choose import TILES
from numbanet.backends.cuda.tiles.depthwise import Depthwise
from numbanet.backends.cuda.tiles.program import PARAMETERS, POINTERS, RESULT_PARAMETERS, SIZES
from numbanet.backends.cuda.tiles.reduce import SplitEpilogue
from numbanet.backends.cuda.tiles.shape import Operand, Program

MODULES = ("numbanet.backends.cuda.tiles", "numbanet.backends.cuda.ptx")         # whose sources define all kernels of the family

# What the engine's layers need, of 16-byte copies: (A, B, result).
_ALONG, _ACROSS = Operand("matrix", True), Operand("matrix", False)
PRODUCTS = {                 # a convolution of 1 x 1 filters, without stride or padding, is a product of matrices
    "gemm nn": (_ALONG, _ACROSS, "matrix"),
    "gemm nt": (_ALONG, _ALONG, "matrix"),
    "gemm tn": (_ACROSS, _ACROSS, "matrix"),
    "gemm tn split": (_ACROSS, _ACROSS, "partial"),
    "conv forward": (Operand("windows", True), _ALONG, "matrix"),
    "conv forward 1x1, strided": (Operand("pixels", True), _ALONG, "matrix"),
    "conv backward input": (Operand("windows", True), Operand("taps", False), "matrix"),
    "conv backward input, strided": (Operand("windows", True), Operand("taps", False), "pixels"),
    "conv backward weight": (_ACROSS, Operand("windows", False), "partial"),
    "conv backward weight 1x1, strided": (_ACROSS, Operand("pixels", False), "partial"),
}
STATISTICS = ("gemm nt", "conv forward")         # what begins so is also made with the statistics of its result


def first_layer(item: int) -> dict[str, tuple]:
    """Of three channels: windows in pieces of one element."""
    return {"conv forward, 3 channels": (Operand("windows", True, item), Operand("matrix", True, item), "matrix"),
            "conv backward weight, 3 channels": (_ACROSS, Operand("windows", False, item), "partial")}


def catalog(maths: Iterable[str] = ("tf32", "bf16", "fp16", "float32")) -> dict[str, Program | SplitEpilogue | Depthwise]:
    """Kernels by a readable name; every other one is compiled when it is first needed."""
    found: dict[str, Program | SplitEpilogue | Depthwise] = {}
    for math in maths:
        stored = "float32" if math == "tf32" else math
        for direction in ("forward", "backward_input", "backward_weight"):
            found[f"depthwise {direction} {stored}"] = Depthwise(stored, direction)
        for result in ("matrix", "pixels", "filters"):
            found[f"splits {result} {stored}"] = SplitEpilogue(stored, result)
        for tile in TILES[math]:
            products = PRODUCTS | (first_layer(tile.item) if tile.columns == 64 else {})
            for name, (a, b, result) in products.items():
                found[f"{name} {math} {tile.rows}x{tile.columns}"] = Program(tile, a, b, result)
                if name.startswith(STATISTICS):
                    found[f"{name} with statistics {math} {tile.rows}x{tile.columns}"] = Program(tile, a, b, result, sums=True)
    return found


def argument_types(program) -> tuple[str, ...]:
    """Types of a kernel's arguments, in the words of `cubin.py`; `arguments.py` makes the arguments."""
    if isinstance(program, Program):
        result = f"int32x{RESULT_PARAMETERS[program.result]}"
        return (f"int64x{len(POINTERS)}", f"int32x{len(SIZES)}", "float32x2", f"int32x{PARAMETERS[program.a.source]}",
                f"int32x{PARAMETERS[program.b.source]}", result, result)
    if isinstance(program, SplitEpilogue):
        result = f"int32x{RESULT_PARAMETERS[program.result]}"
        return "int64x8", "int32x8", "float32x2", result, result
    pixels, result = f"int32x{PARAMETERS['pixels']}", f"int32x{RESULT_PARAMETERS['pixels']}"
    if program.direction == "backward_weight":
        return "int64x4", "int32x5", pixels, "int32x5", pixels
    return "int64x6", "int32x6", "float32x2", pixels, "int32x12", result, result


def source_of(program) -> Source:
    """A kernel as the compiler takes it."""
    def make():
        from numbanet.backends.cuda import ptx  # imports Numba
        from numbanet.backends.cuda.tiles import build
        return build(program, ptx)
    return Source(program.name, make, argument_types(program), MODULES, program.threads)


def cubin_of(program, arch: str) -> Cubin:
    """Machine code of a kernel, from the disk cache or compiled; no GPU is needed."""
    return cubin(source_of(program), arch)
