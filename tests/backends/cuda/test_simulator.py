"""The CUDA backend in Numba's simulator: the report on `simulated.py`.

That run tells which kernels were launched with which types; all of them are compiled for real architectures afterwards.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from numbanet.backends.cuda.dry import compile_all, plain_launches
from tests.backends.cuda.plain_kernels import ARCHS, BUDGET, heaviest, is_wide

ROOT = Path(__file__).parents[3]
# Kernels that compute in float64 whatever their dtype, and why. Sine, cosine and tangent of libdevice do so for huge arguments.
DOUBLES = ("random.", "image.affine", "search.", "shape.arange", "pointwise.unary_sin", "pointwise.unary_cos", "pointwise.unary_tan")
# Kernels with an array that is indexed at run time: libdevice's reduction of huge angles.
STACK = ("random.normal", "pointwise.unary_sin", "pointwise.unary_cos", "pointwise.unary_tan")


SIZES = {"float32": 4, "float64": 8, "int32": 4, "int64": 8, "float16": 2, "bfloat16": 2}     # bytes; of others 1


@pytest.fixture(scope="module")
def simulation(beside):
    """The finished run and the launches that it made."""
    done = beside("simulated.py")
    found = json.loads(done.launches.read_text()) if done.launches.exists() else []
    return done, sorted((name, tuple(types)) for name, types in found)


def test_every_primitive_agrees_with_the_reference(simulation):
    done, launches = simulation
    assert done.returncode == 0 and " passed" in done.text, done.text
    assert len(launches) > 300


def test_every_kernel_compiles_within_its_budget(simulation):
    pytest.importorskip("cuda.core")
    from numbanet.backends.cuda import load_families
    from numbanet.backends.cuda.compile import KERNELS
    load_families()
    chosen, wrong = heaviest(simulation[1]), []
    assert {one.name for one in chosen.values()} == set(KERNELS), "every kernel is launched in the simulator"
    budget = json.loads(BUDGET.read_text())
    assert set(budget) == set(chosen), "python -m tests.backends.cuda.plain_kernels writes the budget"
    for arch in ARCHS:
        for (label, one), (_, made) in zip(chosen.items(), compile_all(chosen.values(), arch, os.cpu_count())):
            is_single = not any("float64" in t for t in one.types)
            if (made.spills or made.stack and not label.startswith(STACK) or made.registers > budget[label]
                    or made.instructions["float64"] and is_single and not label.startswith(DOUBLES)
                    or made.instructions["int64"] and not any("64" in t for t in one.types)
                    or not moves_16_bytes(label, one.types, made.instructions)):
                wrong.append((label, one.types, budget[label], made.report()))
    assert not wrong


def moves_16_bytes(label, types, instructions) -> bool:
    """Whether the code has an instruction of 16 bytes for each array that a launch takes in pieces."""
    pieces = [t.strip("*").split("x") for t in types if is_wide((t,))]
    least = sum(SIZES.get(dtype, 1) * int(width) >= 16 for dtype, width in pieces)
    if label.startswith("loss.elementwise") and pieces:      # the formula may leave out an operand
        least = 2
    return instructions["wide_load"] + instructions["wide_store"] >= least


def test_the_list_for_warmup_is_that_of_the_simulator(simulation):
    """Types that exist: a kernel whose arguments have changed is not compiled ahead in vain."""
    launched = {(name, types) for name, types in simulation[1]}
    assert {(one.name, one.types) for one in plain_launches()} <= launched
    assert {one.name for one in plain_launches()} == {name for name, _ in launched}


@pytest.mark.parametrize("name", ["pointwise.cast_kernel", "reduction.fold_sum", "sorting.merge_ascending", "indexing.write_targets",
                                  "optimizer.sgd_kernel", "softmax.softmax", "random.uniform_kernel",
                                  "convolution_direct.conv2d_backward_input_direct", "matrix.matrix_product", "pooling.max_pool2d_backward",
                                  "normalization.moments.moments_of_parts", "normalization.moments.moments_of_parts, wide",
                                  "pooling.max_pool2d_backward, wide", "optimizer.sgd_kernel, wide", "elementwise_chain.interpreted, wide"])
def test_arrays_of_more_elements_than_int32_counts(simulation, name):
    """What the simulator cannot try: the same kernels with 64-bit indices compile, and need no more than registers."""
    pytest.importorskip("cuda.core")
    from numbanet.backends.cuda.compile import KERNELS
    from numbanet.backends.cuda.launch import machine_code
    importlib.import_module(f"numbanet.backends.cuda.{name.partition('.')[0]}")
    types = tuple(t if t.startswith("*") else t.replace("int32", "int64").replace("size", "int64")
                  for t in heaviest(simulation[1])[name].types)
    assert machine_code(KERNELS[name.partition(",")[0]], types, "sm_80").spills == 0


def test_users_without_a_gpu_never_meet_cuda():
    """Importing numbanet, a training step on the CPU, and asking whether there is CUDA import nothing of it."""
    program = """
import sys, numbanet
x = numbanet.ones(2, 3, requires_grad=True)
(x * 2).sum().backward()
numbanet.cuda.is_available()
found = [m for m in sys.modules if m.partition(".")[0] in ("cuda", "numba_cuda") or m.startswith("numba.cuda.cudadrv")]
assert not found, found
"""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          env={**environment, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr[-3000:]
