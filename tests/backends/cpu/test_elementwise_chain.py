"""Elementwise chains on the CPU: the bits of the plain primitives, at every thread count and vector width, prepared and joined."""

import numpy as np
import pytest

import numbanet
from numbanet.backends import PRIMITIVES, get_backend
from numbanet.backends.contract.elementwise_chain import VALUE, Place, words_of
from numbanet.errors import DTypeError, NumbanetError, ShapeError, UsageError
from tests.backends.agreement import arguments_of, name_of
from tests.backends.cpu.narrower import on_narrower_vectors, run_narrower
from tests.cases.case import channels_last
from tests.cases.elementwise_chain import PRIMITIVE_CASES

CPU = get_backend("cpu")
STEPS = (("multiply", VALUE, Place(1)), ("silu_backward_input", VALUE, Place(0)), ("add", Place(2), VALUE))


def _given(rng, N=3, C=37, H=31, W=29):
    """Several tasks, which no vector divides."""
    x, residual = (channels_last(rng.standard_normal((N, C, H, W), dtype=np.float32)) for _ in range(2))
    return x, [rng.standard_normal((N, C, 1, 1), dtype=np.float32), residual], STEPS


@pytest.mark.parametrize("case", PRIMITIVE_CASES, ids=name_of)
def test_the_bits_of_the_plain_primitives(case):
    arguments = arguments_of(case)
    expected = PRIMITIVES["elementwise_chain"].composition(CPU, *arguments)
    received = CPU.elementwise_chain(*arguments)
    np.testing.assert_array_equal(received.view(np.int32), np.ascontiguousarray(expected).view(np.int32)
                                  if received.flags.c_contiguous else expected.copy(order="K").view(np.int32))
    assert received.strides == expected.strides or received.size <= 1


def test_the_same_bits_at_every_thread_count(rng):
    given, threads, found = _given(rng), numbanet.get_num_threads(), []
    try:
        for count in {1, threads}:
            numbanet.set_num_threads(count)
            found.append(CPU.elementwise_chain(*given).tobytes())
    finally:
        numbanet.set_num_threads(threads)
    assert len(set(found)) == 1


def test_out_may_be_an_operand(rng):
    x, operands, steps = _given(rng)
    expected = CPU.elementwise_chain(x, operands, steps)
    for k in (0, 2):
        arrays = [a.copy(order="K") for a in (x, *operands)]
        CPU.elementwise_chain(arrays[0], arrays[1:], steps, out=arrays[k])
        np.testing.assert_array_equal(arrays[k], expected)


@pytest.mark.parametrize("size", [(3, 37, 31, 29), (2, 5, 3, 3)])
def test_prepared_and_joined_calls(rng, size):
    x, operands, steps = _given(rng, *size)
    call = CPU.prepare("elementwise_chain", (x, operands, steps), frozenset())
    assert call.kernel == words_of(steps) == "multiply + silu_backward + add"
    expected, out = CPU.elementwise_chain(x, operands, steps), np.full_like(x, np.nan)
    for other in (operands, [a.copy(order="K") for a in operands], [operands[0], operands[1].transpose(0, 1, 2, 3).copy()]):
        out[...] = np.nan                       # arrays that it has seen, new ones, and one in another memory order
        call(x, other, steps, out)
        np.testing.assert_array_equal(out, expected)
    given = [None, operands, steps, out]
    other = CPU.empty(x.shape, x.dtype, (0, 2, 3, 1))
    (program, _), = CPU.joined([(call, given), (call, [out, operands, steps, other])], [(given, 0, np.empty_like(x))])
    for scale in (1, 2):
        given[0] = x * np.float32(scale)
        out[...] = other[...] = np.nan
        program()
        np.testing.assert_array_equal(out, CPU.elementwise_chain(given[0], operands, steps))
        np.testing.assert_array_equal(other, CPU.elementwise_chain(out, operands, steps))


@pytest.mark.parametrize("x, operands, steps, error, words", [
    ((3, 4), [], (), UsageError, "one step at least and 5 operands at most, received 0 steps and 0 operands"),
    ((3, 4), [(4,)] * 6, (("negative", VALUE),), UsageError, "received 1 steps and 6 operands"),
    ((3, 4), [], (("sum", VALUE),), UsageError, "step 0 is sum, expected one of absolute, add"),
    ((3, 4), [], (("negative", VALUE), ("add", VALUE)), UsageError, r"step 1 gives add 1 arguments, expected those of <primitive add"),
    ((3, 4), [(4,)], (("add", Place(0), Place(1)),), UsageError, "step 0, add, does not read the running value"),
    ((3, 4), [(4,)], (("add", VALUE, Place(2)),), UsageError, r"reads places \[-1, 2\], expected -1 to 1"),
    ((3, 1), [(4,)], (("add", VALUE, Place(1)),), ShapeError, r"step 0, add, gives shape \(3, 4\) of float32; expected x's, \(3, 1\)"),
    ((3, 4), [(5,)], (("add", VALUE, Place(1)),), ShapeError, "do not broadcast"),
    ((3, 4), [(4,)], (("relu_backward_input", VALUE, Place(1)),), ShapeError, "grad_y expects shape"),
])
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_errors(device, x, operands, steps, error, words):
    with pytest.raises(error, match=words):
        get_backend(device).elementwise_chain(np.ones(x, np.float32), [np.ones(s, np.float32) for s in operands], steps)


def test_arrays_of_one_floating_dtype():
    with pytest.raises(DTypeError, match=r"elementwise_chain: operands\[0\] expects float32 like x, received float64"):
        CPU.elementwise_chain(np.ones(3, np.float32), [np.ones(3)], (("add", VALUE, Place(1)),))
    with pytest.raises(NumbanetError, match="x expects float32 or float64, received int64"):
        CPU.elementwise_chain(np.ones(3, np.int64), [], (("add", VALUE, 1),))


@on_narrower_vectors
def test_narrower_vectors(width, cpu):
    run_narrower(__file__, "bits or joined", width, cpu, 2)
