"""Inline PTX: every instruction assembles, and has a twin of the same name and number of operands in the emulator."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from numbanet.backends.cuda import cubin
from tests.backends.cuda.emulator import Emulator, Memory

TILES = Path(inspect.getfile(cubin)).with_name("tiles")
USED = {name for path in TILES.glob("*.py") for name in re.findall(r"\bmachine\.(\w+)", path.read_text())}


@pytest.fixture(scope="module")
def ptx():
    if cubin.can_compile():
        pytest.skip(cubin.can_compile())
    from numbanet.backends.cuda import ptx
    return ptx


def instructions(ptx):
    return {name: value for name, value in vars(ptx).items() if hasattr(value, "operands")}


def test_the_emulator_has_all_that_tile_programs_use():
    machine = Emulator(Memory(1 << 12), 1, 1024)
    assert len(USED) > 30 and not [name for name in USED if not hasattr(machine, name)]


def test_ptx_has_all_that_tile_programs_use(ptx):
    assert not [name for name in USED if not hasattr(ptx, name)]


def test_twins_take_the_same_operands(ptx):
    found = instructions(ptx)
    assert len(found) >= 45
    for name, instruction in found.items():
        parameters = inspect.signature(getattr(Emulator, name)).parameters
        variable = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
        assert variable or len(parameters) - 1 == len(instruction.operands), name


def test_every_instruction_assembles(ptx):
    """One kernel with all of them, for the oldest and the newest architecture; each mnemonic is in its PTX."""
    found = instructions(ptx)
    lines, number = ["def kernel(i, word, address, real, flag_number):", "    flag = flag_number > 0", "    total = float32(0)"], 0
    given = {"int32": "i", "uint32": "uint32(word)", "int64": "address", "float32": "real", "bool": "flag"}
    for name, instruction in found.items():
        call = f"{name}({', '.join(given[str(t)] for t in instruction.operands)})"
        if not instruction.results:
            lines.append(f"    {call}")
        elif len(instruction.results) == 1:
            lines.append(f"    total += float32({call})")
        else:
            names = ", ".join(f"r{number}_{i}" for i in range(len(instruction.results)))
            lines += [f"    {names} = {call}", *[f"    total += float32({one})" for one in names.split(", ")]]
            number += 1
    lines.append("    store_float(address, total, flag)")
    names = found | {"float32": ptx.float32, "uint32": ptx.uint32}
    exec("\n".join(lines), names)
    text = cubin.compile_ptx("all_instructions", names["kernel"], ("int32", "int32", "int64", "float32", "int32"))
    for instruction in found.values():
        for mnemonic in re.findall(r"\b(?:mma|ldmatrix|cp|cvt|ld|st|shfl|fma|max|min|bar)\.[\w.]+", instruction.text):
            assert mnemonic in text, mnemonic
    for arch in ("sm_80", "sm_90", "sm_120"):
        assert cubin.link("all_instructions", text, arch).spills == 0
