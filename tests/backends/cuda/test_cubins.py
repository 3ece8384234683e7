"""Every kernel of the family compiled to machine code on this machine, with no GPU, within a committed budget.

The budget (`cubin_budget.json`) holds, by kernel, the most registers a thread may take on any architecture, and how many products,
ldmatrix, asynchronous copies and accesses of 16 bytes the PTX has, exactly. `python -m tests.backends.cuda.test_cubins --write [WORD ...]`
writes it anew for the whole catalog, or for the kernels with these words in their names; look at the difference.
By default one kernel of each kind is compiled, for sm_80 and sm_90; `-m full` compiles the whole catalog, for all architectures. Without
spills, within the shared memory of the architecture, and with the counts that the design says, are all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from numbanet.backends import disk_cache
from numbanet.backends.cuda import cubin
from numbanet.backends.cuda.tiles.arguments import View, gemm
from numbanet.backends.cuda.tiles.catalog import MODULES, argument_types, catalog, cubin_of
from numbanet.backends.cuda.tiles.reduce import SplitEpilogue
from numbanet.backends.cuda.tiles.shape import SHARED_LIMIT, Program
from numbanet.errors import BackendError, UsageError

BUDGET = Path(__file__).with_name("cubin_budget.json")
KERNELS = catalog()
ARCHS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
DEFAULT = ("gemm nn tf32 128x128", "gemm tn bf16 128x128", "gemm nt float32 128x128", "conv forward tf32 128x128",
           "conv forward with statistics bf16 128x128", "conv backward input fp16 128x128", "conv backward weight tf32 64x64",
           "conv forward, 3 channels bf16 64x64", "conv backward weight, 3 channels tf32 64x64", "splits filters bf16",
           "depthwise forward float32", "depthwise backward_input fp16", "depthwise backward_weight float32")
SMALL = SplitEpilogue("float32", "matrix")        # the least to compile
SLACK = 1.1                  # of registers, from one release of the compilers to the next


@pytest.fixture(scope="session", autouse=True)
def compilers():
    """These tests need numba-cuda and nvJitLink: the extra `cuda`."""
    reason = cubin.can_compile()
    if reason:
        pytest.skip(reason)


def check(name: str, arch: str):
    """Compile one kernel, compare it with the budget."""
    program, budget = KERNELS[name], json.loads(BUDGET.read_text())
    made = cubin_of(program, arch)
    assert made.code[:4] == b"\x7fELF" and made.name == program.name and made.name.encode() in made.code
    assert (made.spills, made.stack, made.shared) == (0, 0, 0)
    assert made.registers <= min(255, 65536 // program.threads)
    assert program.shared_bytes <= SHARED_LIMIT[int(arch.removeprefix("sm_"))] * 1024
    assert made.instructions["float64"] == 0, "double precision in a kernel of single precision"
    if isinstance(program, Program):
        check_counts(program, made.instructions)
    assert name in budget, f"{BUDGET.name} lacks {name}: python -m tests.backends.cuda.test_cubins --write"
    assert made.registers <= budget[name]["registers"]
    assert counted(made) == budget[name]["instructions"]


def counted(made) -> dict:
    """Of the instructions that are counted those that the design of tile programs speaks of: addresses are theirs to compute."""
    return {kind: count for kind, count in made.instructions.items() if kind != "int64"}


def check_counts(program: Program, counts: dict):
    """Those of the design: products, fragments of a warp's tile times steps of 32 bytes; copies, those of the prologue and of one step."""
    tile = program.tile
    fragments = (tile.rows // tile.warp_rows // 16) * (tile.columns // tile.warp_columns // 8)
    assert counts["mma"] == (0 if tile.math == "float32" else fragments * tile.depth * tile.item // 32)
    pieces = sum(side * tile.depth * tile.item // operand.piece // tile.threads * (operand.piece > 2)
                 for operand, side in ((program.a, tile.rows), (program.b, tile.columns)))
    assert counts["cp_async"] == tile.stages * pieces
    by_ldmatrix = tile.item == 2 or program.a.along_depth or program.b.along_depth
    assert (counts["ldmatrix"] > 0) == (tile.math != "float32" and by_ldmatrix)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("name", DEFAULT)
def test_kernels_stay_within_their_budget(name, arch):
    check(name, arch)


@pytest.mark.full
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", KERNELS)
def test_the_whole_catalog_stays_within_its_budget(name, arch):
    check(name, arch)


def test_the_budget_names_the_kernels_of_the_catalog():
    assert set(json.loads(BUDGET.read_text())) == set(KERNELS)


# --- the cache ------------------------------------------------------------------------------------------------------

@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def compilations(monkeypatch):
    """Names of what is compiled from Python, and of what is linked."""
    done = []
    for name in ("compile_ptx", "link"):
        monkeypatch.setattr(cubin, name, counting(name, getattr(cubin, name), done))
    return done


def counting(name, function, done):
    def counted(*arguments):
        done.append(name)
        return function(*arguments)
    return counted


def test_one_compilation_serves_all_architectures(folder, compilations):
    first = cubin_of(SMALL, "sm_80")
    assert compilations == ["compile_ptx", "link"]
    assert cubin_of(SMALL, "sm_90").arch == "sm_90" and compilations == ["compile_ptx", "link", "link"]
    assert cubin_of(SMALL, "sm_80") == first and len(compilations) == 3
    assert sorted(path.suffix for path in folder.rglob("*-*.*")) == [".cubin", ".cubin", ".ptx"]


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:40], lambda content: b"x" * len(content),
                                    lambda content: content[:-1] + bytes([content[-1] ^ 1])])
def test_damaged_files_are_compiled_again(folder, compilations, damage, caplog):
    whole = cubin_of(SMALL, "sm_80")
    for path in folder.rglob("*-*.*"):
        path.write_bytes(damage(path.read_bytes()))
    again = cubin_of(SMALL, "sm_80")
    assert again.report() == whole.report() and compilations.count("compile_ptx") == 2
    assert sum("cannot be used" in text and "compiled again" in text for text in caplog.messages) == 2, "PTX and machine code"
    cubin_of(SMALL, "sm_80")
    assert compilations.count("compile_ptx") == 2


def test_a_folder_that_cannot_be_written_costs_a_compilation_and_a_warning(tmp_path, monkeypatch, compilations, caplog):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "file"))
    assert cubin_of(SMALL, "sm_80").registers
    assert cubin_of(SMALL, "sm_80").registers and compilations.count("compile_ptx") == 2
    told, = [text for text in caplog.messages if "cannot be written" in text]
    assert str(tmp_path / "file") in told and "NUMBANET_CACHE_DIR" in told


def test_what_is_in_the_key(folder, monkeypatch):
    def path(**changed):
        values = {"name": "k", "target": "sm_80", "variant": (("int32",), 0, 0), "modules": MODULES} | changed
        return cubin.cache_path(*values.values())

    paths = [path(), path(name="l"), path(target="sm_90"), path(variant=(("int64",), 0, 0)), path(variant=(("int32",), 64, 0)),
             path(modules=("numbanet.backends.cuda.tiles.layout",))]
    monkeypatch.setattr(cubin.importlib.metadata, "version", lambda package: "0")
    paths.append(path())
    assert len(set(paths)) == len(paths)
    monkeypatch.setattr(cubin, "source_digest", lambda *modules: None)      # a source was edited after it was imported
    assert path() is None


def test_sources_of_the_family_are_all_in_the_digest(monkeypatch):
    read = []
    original = disk_cache._source
    monkeypatch.setattr(disk_cache, "_source", lambda name: read.append(name) or original(name))
    disk_cache.source_digest("numbanet.backends.cuda.cubin", *MODULES)
    names = {name.rpartition(".")[2] for name in read}
    assert names >= {"cubin", "ptx", "layout", "shape", "operands", "multiply", "epilogue", "program", "reduce", "depthwise"}
    assert not names & {"arguments", "choose", "catalog"}                   # these change no kernel


def test_processes_that_fill_one_cache_at_once(tmp_path):
    source = ("from numbanet.backends.cuda.tiles.catalog import cubin_of\n"
              "from numbanet.backends.cuda.tiles.reduce import SplitEpilogue\n"
              "print(cubin_of(SplitEpilogue('float32', 'matrix'), 'sm_80').registers)")
    environment = os.environ | {"NUMBANET_CACHE_DIR": str(tmp_path)}
    running = [subprocess.Popen([sys.executable, "-c", source], env=environment, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=200) for process in running]
    assert all(process.returncode == 0 for process in running), answers
    assert answers[0][0] == answers[1][0] and int(answers[0][0]) > 0
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_filled_cache_is_read_without_numba(folder):
    cubin_of(SMALL, "sm_90")
    source = ("import sys\nfrom numbanet.backends.cuda.tiles.catalog import cubin_of\n"
              "from numbanet.backends.cuda.tiles.reduce import SplitEpilogue\n"
              "cubin_of(SplitEpilogue('float32', 'matrix'), 'sm_90')\n"
              "print(*[name for name in ('numba', 'llvmlite', 'cuda') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", source], cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr


def test_loops_of_few_turns_are_not_unrolled():
    """Four turns at once, and the remainder, are several loads in the code; one is what a loop of few turns needs."""
    from numba.cuda import types

    def total_of(x, out, count):
        total = out[0]
        for i in range(count):
            total += x[i]
        out[0] = total

    kinds = {"pointer": types.CPointer(types.float32), "int32": types.int32}
    texts = [cubin.compile_ptx("total_of", total_of, ("pointer", "pointer", "int32"), numba_type=kinds.get, few_turns=few)
             for few in (False, True)]
    loads = [text.count("ld.global.f32") for text in texts]
    assert loads[0] > loads[1] == 2                     # the other one is of out


# --- errors ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arch, message", [("sm_75", "sm_80 or newer"), ("hopper", "expects a name such as sm_80"), ("sm_", "a name")])
def test_architectures_that_cannot_be(arch, message):
    with pytest.raises(UsageError, match=message):
        cubin_of(SMALL, arch)


def test_errors_of_the_compilers_name_the_kernel(folder):
    with pytest.raises(BackendError, match="kernel wrong failed to compile.*doctor"):
        cubin.cubin(cubin.Source("wrong", lambda: lambda n: n.absent, ("int32",), MODULES), "sm_80")
    with pytest.raises(BackendError, match=r"kernel wrong \(sm_80\): the assembler refuses it"):
        cubin.link("wrong", ".version 8.0\n.target sm_80\nnonsense", "sm_80")


def test_arguments_match_the_types(rng):
    """What `arguments.py` passes has the lengths that the kernels were compiled for."""
    view = View(1 << 20, (1, 64, 64), (4096, 64, 1))
    for splits in (1, 4):
        for launch in gemm(KERNELS["gemm nn tf32 128x128"].tile, view, view, view, splits=splits, workspace=1 << 20):
            lengths = [int(text.partition("x")[2]) for text in argument_types(launch.program)]
            assert [len(argument) for argument in launch.arguments] == lengths


if __name__ == "__main__":
    assert sys.argv[1:2] == ["--write"], "usage: python -m tests.backends.cuda.test_cubins --write [WORD ...]"
    written = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    written = {name: budget for name, budget in written.items() if name in KERNELS}
    for name, program in sorted(KERNELS.items()):
        if not all(word in name.split() for word in sys.argv[2:]):
            continue
        made = [cubin_of(program, arch) for arch in ARCHS]
        written[name] = {"registers": min(255, int(max(m.registers for m in made) * SLACK)), "instructions": counted(made[0])}
        print(name, [m.registers for m in made], [m.spills + m.stack for m in made], flush=True)
        BUDGET.write_text(json.dumps(dict(sorted(written.items())), indent=1) + "\n")
