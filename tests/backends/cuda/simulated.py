"""The CUDA backend against the reference, in Numba's simulator: run by `test_simulator.py` in a process of its own.

By hand: NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda/simulated.py
"""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import numpy as np
import pytest
from numba import cuda

import numbanet
from numbanet import dtypes
from numbanet.backends import PRIMITIVES, get_backend
from numbanet.backends.cuda import simulator
from numbanet.backends.cuda.block import REAL
from numbanet.backends.cuda.compile import kernel
from numbanet.backends.cuda.index import thread, threads
from numbanet.backends.cuda.launch import compiled, launch
from numbanet.errors import BackendError, IndexRangeError, UsageError
from numbanet.nn import functional as F
from tests.backends.agreement import CASES, agree, agree_overwriting, arguments_of, converted, name_of, outputs, overwriting
from tests.backends.cuda.wide import (  # noqa: F401
    single_elements,
    test_functions_of_elements_have_the_same_bits_either_way,
    test_wide_launches_have_the_bits_of_single_elements,
)
from tests.cases.case import channels_last
from tests.ops.test_every_operation import CASES as OPERATIONS
from tests.ops.test_every_operation import _close, _values_and_gradients

CUDA = get_backend("cuda")
OWN = CUDA.implementations
MINE = [case for case in CASES if case.primitive in OWN and not case.large]


@pytest.fixture(scope="module", autouse=True)
def launches():
    """Tells `test_simulator.py` what was launched, by the name of the kernel and the types of its arguments."""
    yield
    if "NUMBANET_TEST_LAUNCHES" in os.environ:
        made = [(kernel.name, types) for kernel, types in compiled if kernel.function.__module__ != __name__]
        Path(os.environ["NUMBANET_TEST_LAUNCHES"]).write_text(json.dumps(made))


def _of(*families) -> list:
    return [case for case in MINE if PRIMITIVES[case.primitive].family in families]


@pytest.mark.parametrize("case", MINE, ids=name_of)
def test_cuda_agrees_with_reference(case):
    agree("cuda", case, arguments_of(case), case.tolerance)


# Maps of several blocks find nothing there that float32 has not found: by the same source, but for its literals.
@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.full) if c.label.startswith("blocks") else c
                                  for c in MINE if c.float64], ids=name_of)
def test_cuda_agrees_with_reference_in_float64(case):
    agree("cuda", case, tuple(converted(a) for a in arguments_of(case)), 1e-12)


@pytest.mark.parametrize("case", overwriting(MINE), ids=name_of)
def test_a_result_may_lie_in_an_operand(case):
    agree_overwriting("cuda", case, arguments_of(case))


def test_every_primitive_of_cuda_has_a_case():
    own = {name for name in OWN if PRIMITIVES[name].specification.__module__.startswith("numbanet.")}
    assert own - {c.primitive for c in MINE} == set()


def test_no_primitive_is_missing():
    """Each has a kernel, or is a view, or is composed of others."""
    assert {name for name, p in PRIMITIVES.items() if name not in OWN and not p.view and p.composition is None} == set()


@pytest.mark.parametrize("case", OPERATIONS, ids=lambda case: case.name)
def test_operations_and_their_gradients(case):
    """Whole operations, forward and backward, in float32, against the reference in float64."""
    received = _values_and_gradients(case, "cuda", np.float32)
    for ours, theirs in zip(received, _values_and_gradients(case, "reference", np.float64)):
        assert len(ours) == len(theirs)
        for r, e in zip(ours, theirs):
            _close(r, e, case.float32_tolerance)


# 16-bit floats

@pytest.mark.parametrize("dtype, epsilon", [("float16", 2**-10), ("bfloat16", 2**-7)])
@pytest.mark.parametrize("case", [c for c in _of("elementwise", "elementwise_chain", "reduction", "shape")
                                  if c.label in ("channels", "permuted", "strided", "scalar")], ids=name_of)
def test_16_bit_floats_are_float32_while_computing(case, dtype, epsilon):
    """The result is that of float32, on the rounded operands, rounded."""
    dtype = numbanet.dtypes.as_dtype(dtype)
    narrow = tuple(_narrow(a, dtype) for a in arguments_of(case))
    primitive = PRIMITIVES[case.primitive]
    expected = outputs(get_backend("reference"), primitive, tuple(_widened(a, dtype) for a in narrow))
    received = outputs(CUDA, primitive, narrow)
    for e, r in zip(expected, received):
        assert r.dtype == (dtype if e.dtype == np.float32 else e.dtype)
        r, finite = r.astype(np.float64), np.isfinite(e)
        assert (np.isnan(e) == np.isnan(r)).all()
        np.testing.assert_allclose(r[finite], e[finite], rtol=epsilon, atol=1e-6)


def _narrow(value, dtype):
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        narrow = np.empty_like(value, dtype=dtype)
        narrow[...] = value
        return narrow
    return [_narrow(v, dtype) for v in value] if isinstance(value, list) else value


def _widened(value, dtype):
    if isinstance(value, np.ndarray) and value.dtype == dtype:
        return value.astype(np.float32)
    return [_widened(v, dtype) for v in value] if isinstance(value, list) else value


# The same bits whatever the grid

FAMILIES_OF_NETWORKS = ("convolution", "linear", "pooling", "normalization", "loss", "fused", "fused_training")


@pytest.mark.parametrize("case", _of("reduction", "indexing", "random", "resize", "padding")[::3] + _of(*FAMILIES_OF_NETWORKS)[::17],
                         ids=name_of)
def test_bits_do_not_depend_on_the_grid(case, monkeypatch):
    arguments = arguments_of(case)
    first = outputs(CUDA, PRIMITIVES[case.primitive], arguments)
    monkeypatch.setattr(simulator, "THREADS", 1)
    monkeypatch.setattr(simulator, "BLOCKS", 5)
    second = outputs(CUDA, PRIMITIVES[case.primitive], arguments)
    assert [x.tobytes() for x in first] == [x.tobytes() for x in second]


# Statistics

@pytest.mark.parametrize("layout", [channels_last, lambda x: x], ids=["channels-last", "row-major"])
def test_variances_survive_a_mean_of_ten_thousand_deviations(rng, layout):
    """In float32, where the square of the mean has no digit left for the variance; the first element is far from the others."""
    x = layout(rng.standard_normal((5, 7, 13, 11)).astype(np.float32) + np.float32(1e4))
    x[0, :, 0, 0] = 0
    exact = x.astype(np.float64)
    for call, axes in ((lambda a: CUDA.batch_norm_forward(a, None, None, 1e-5), (0, 2, 3)),
                       (lambda a: CUDA.group_norm_forward(a, 1, None, None, 1e-5), (1, 2, 3)),
                       (lambda a: CUDA.layer_norm_forward(a, 2, None, None, 1e-5), (2, 3))):
        y, mean, variance = (CUDA.to_numpy(a) for a in call(CUDA.from_numpy(x)))
        np.testing.assert_allclose(variance.ravel(), exact.var(axes).ravel(), rtol=2e-5)
        np.testing.assert_allclose(mean.ravel(), exact.mean(axes).ravel(), rtol=2e-7)
        expected = (exact - exact.mean(axes, keepdims=True)) / np.sqrt(exact.var(axes, keepdims=True) + 1e-5)
        np.testing.assert_allclose(y, expected, rtol=0, atol=2e-3)      # the rounding of a mean of 1e4 is 5e-4


@pytest.mark.parametrize("layout", [channels_last, lambda x: x], ids=["channels-last", "row-major"])
def test_limits_of_what_is_computed_again_let_pass_what_those_of_the_result_do(rng, layout):
    """Bit for bit: from x, from y, and as the plain gradient of what passes; NaN lets pass, and a limit itself does not."""
    x = rng.standard_normal((3, 16, 5, 7)).astype(np.float32)
    x[0, ::4, 0, 0] = np.nan
    x, grad_y = (CUDA.from_numpy(layout(a)) for a in (x, rng.standard_normal(x.shape).astype(np.float32)))
    weight, bias, mean, variance = (CUDA.from_numpy(rng.uniform(0.5, 2, 16).astype(np.float32)) for _ in range(4))
    for limits in ((0.0, 3.0), (None, 2.0), (None, None)):
        y = CUDA.batch_norm_given_forward(x, weight, bias, None, mean, variance, 1e-5, *limits)
        low, high = (np.nan if limit is None else limit for limit in limits)
        values = CUDA.to_numpy(y)
        passed = np.where((values <= low) | (values >= high), np.float32(0), CUDA.to_numpy(grad_y))
        plain = CUDA.batch_norm_backward(CUDA.from_numpy(layout(passed)), x, weight, mean, variance, 1e-5)
        of_x = CUDA.batch_norm_fused_backward(grad_y, None, x, weight, bias, mean, variance, 1e-5, *limits)
        of_y = CUDA.batch_norm_fused_backward(grad_y, y, x, weight, bias, mean, variance, 1e-5, *limits)
        np.testing.assert_array_equal(CUDA.to_numpy(of_y[3]), passed)
        for expected, *received in zip(plain, of_x, of_y):
            for one in received:
                np.testing.assert_array_equal(CUDA.to_numpy(one), CUDA.to_numpy(expected))


def test_limits_are_those_of_the_type_of_the_map(rng):
    """0.1 is 0.1001 in bfloat16: what was limited to it lies at the limit, not inside."""
    x = CUDA.from_numpy(rng.standard_normal((9, 8)).astype(dtypes.as_dtype("bfloat16")))
    ones, zeros = (CUDA.from_numpy(np.full(8, value, np.float32)) for value in (1, 0))
    y = CUDA.batch_norm_given_forward(x, ones, zeros, x, zeros, ones, 0.0, None, 0.1)
    *_, passed = CUDA.batch_norm_fused_backward(CUDA.clamp(x, 1.0, None), y, x, ones, zeros, zeros, ones, 0.0, None, 0.1)
    at_limit = CUDA.to_numpy(y).astype(np.float32) > 0.1
    assert 0 < at_limit.sum() < at_limit.size
    np.testing.assert_array_equal(CUDA.to_numpy(passed).astype(np.float32) == 0, at_limit)


def test_batch_norm_launches_few_kernels(rng, monkeypatch):
    """A pass over a map for what needs all of it, one for what follows; of 160 parts, one merge before the last."""
    x, launched = CUDA.from_numpy(channels_last(rng.standard_normal((5, 16, 31, 33)).astype(np.float32))), []
    weight, bias = (CUDA.from_numpy(np.ones(16, np.float32)) for _ in range(2))
    submit = CUDA.device.submit
    monkeypatch.setattr(CUDA.device, "submit", lambda call: launched.append(call) or submit(call))
    y, mean, variance = CUDA.batch_norm_fused_forward(x, weight, bias, None, 1e-5, 0.0, None)
    forward = len(launched)
    CUDA.batch_norm_fused_backward(x, None, x, weight, bias, mean, variance, 1e-5, 0.0, None)
    backward = len(launched) - forward
    CUDA.batch_norm_given_forward(x, weight, bias, x, mean, variance, 1e-5, 0.0, None)
    assert (forward, backward, len(launched) - forward - backward) == (4, 5, 2)


# Errors

@pytest.mark.parametrize("call, error, words", [
    (lambda x: x.long() // 0, UsageError, "integer is divided by zero"),
    (lambda x: x.long() % numbanet.zeros(3, dtype=numbanet.int64, device="cuda"), UsageError, "integer is divided by zero"),
    (lambda x: x.long() ** numbanet.full((3,), -1, device="cuda"), UsageError, "integer to a negative power"),
    (lambda x: x[numbanet.tensor([0, 3], device="cuda")], IndexRangeError, "index 3 at position .1,. is out of range"),
    (lambda x: x.gather(0, numbanet.tensor([-1], device="cuda")), IndexRangeError, "index -1"),
    (lambda x: F.cross_entropy(x[None], numbanet.tensor([3], device="cuda")), IndexRangeError, "cross_entropy: target.0. is 3, expected"),
    (lambda x: F.nll_loss(x[None], numbanet.tensor([-1], device="cuda")), IndexRangeError, "nll_loss: target.0. is -1"),
    (lambda x: F.binary_cross_entropy(x, x), UsageError, "probabilities from 0 to 1, received 2"),
    (lambda x: x + numbanet.ones(3, device="cpu"), Exception, "cuda:0.*cpu|cpu.*cuda:0"),
    (lambda x: x + numbanet.ones(3, device="cuda:1"), Exception, "cuda:0.*cuda:1|cuda:1.*cuda:0"),
    (lambda x: x.to("cuda:7"), BackendError, "there are 2 GPUs here, numbered from 0"),
])
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call(numbanet.tensor([1.0, 2.0, 3.0], device="cuda"))


def test_arrays_of_two_devices_never_meet_in_a_kernel():
    x, y = (get_backend(f"cuda:{i}").from_numpy(np.ones(3, np.float32)) for i in range(2))
    with pytest.raises(BackendError, match=r"arrays of cuda:0 and cuda:1 meet; move one with .to\('cuda:0'\)"):
        CUDA.add(x, y)


@kernel
def reads_past_the_end(x, out, total):
    for i in range(thread(), total, threads()):
        out[i] = x[i + 1]


@kernel
def reads_before_the_start(x, out, total):
    for i in range(thread(), total, threads()):
        out[i] = x[i - 1]


def test_the_simulator_sees_what_a_gpu_would_not():
    x, out = CUDA.from_numpy(np.ones(3, np.float32)), CUDA.empty((3,), np.float32)
    for wrong in (reads_past_the_end, reads_before_the_start):
        with pytest.raises(IndexError):
            launch(wrong, 3, x, out, 3)
    with pytest.raises(BackendError, match="received float"):
        launch(reads_past_the_end, 3, x, out, 3.0)


@kernel
def two_arrays_in_a_line(out, total):
    first, second = cuda.shared.array(4, REAL), cuda.shared.array(4, REAL)
    t = cuda.threadIdx.x
    first[t] = 1.0
    cuda.syncthreads()
    out[t] = first[3 - t] + (0.0 if second[t] == second[t] else 1.0)        # what nobody wrote is NaN


def test_shared_memory_of_simulated_threads():
    """All threads of a block meet in the same array, however they take turns."""
    for _ in range(20):
        out = CUDA.empty((4,), np.dtype(np.float32))
        launch(two_arrays_in_a_line, 4, out, 4, blocks=1, threads=4)
        np.testing.assert_array_equal(CUDA.to_numpy(out), 2)


@kernel
def fails_amid_a_block(x, out, total):
    t = cuda.threadIdx.x
    if t < 2:
        cuda.syncthreads()
        if t == 1:
            out[t] = x[17]
        cuda.syncthreads()
    out[t] = 5.0                                        # of a thread that has ended nobody waits at a barrier


@kernel
def asks_its_neighbour(out, total):
    scratch = cuda.shared.array(4, REAL)
    t = cuda.threadIdx.x
    scratch[t] = 1.0
    out[t] = scratch[3 - t]                             # without waiting for it


def test_threads_that_wait_for_each_other():
    x, out = CUDA.from_numpy(np.ones(4, np.float32)), CUDA.from_numpy(np.zeros(4, np.float32))
    for _ in range(2):
        with pytest.raises(IndexError):
            launch(fails_amid_a_block, 4, x, out, 4, blocks=1, threads=4)
        assert CUDA.to_numpy(out)[3] in (0, 5)
    x, seen = CUDA.from_numpy(np.ones(18, np.float32)), []
    launch(fails_amid_a_block, 4, x, out, 4, blocks=1, threads=4)
    np.testing.assert_array_equal(CUDA.to_numpy(out), 5)
    for _ in range(2):                                  # from the first on, and from the last on
        launch(asks_its_neighbour, 4, out, 4, blocks=1, threads=4)
        seen.append(np.isnan(CUDA.to_numpy(out)).tolist())
    assert sorted(seen) == [[False, False, True, True], [True, True, False, False]], "a missing barrier is seen"


# What users see

def test_devices_by_index():
    assert numbanet.ones(2, device="cuda").device == "cuda:0" and numbanet.ones(2, device="cuda:1").is_cuda
    x = numbanet.arange(4, device="cuda:1")
    assert x.to("cuda:0").tolist() == x.cuda(0).tolist() == x.cpu().tolist() == [0, 1, 2, 3] and x.device.index == 1
    assert numbanet.cuda.is_available() and numbanet.cuda.device_count() == 2
    assert numbanet.backends.available_backends()["cuda"] == ""


def test_own_kernels_serve_every_gpu():
    original = OWN["softsign_forward"]
    inputs = [numbanet.ones(2, device=device) for device in ("cuda:0", "cuda:1")]
    assert [numbanet.nn.functional.softsign(x).tolist() for x in inputs] == [[0.5, 0.5]] * 2

    def mine(x, out):
        CUDA.implementations["full"](out.shape, 7.0, out.dtype, out)
    try:
        numbanet.backends.register_primitive("softsign_forward", "cuda")(mine)
        assert [numbanet.nn.functional.softsign(x).tolist() for x in inputs] == [[7.0, 7.0]] * 2
    finally:
        numbanet.backends.register_primitive("softsign_forward", "cuda")(original)
    assert [numbanet.nn.functional.softsign(x).tolist() for x in inputs] == [[0.5, 0.5]] * 2


def test_memory_queries():
    numbanet.cuda.empty_cache()
    gc.collect()
    before = numbanet.cuda.memory_allocated()
    numbanet.cuda.reset_peak_memory_stats()
    x = numbanet.empty(1 << 20, device="cuda")
    assert numbanet.cuda.memory_allocated() == before + (4 << 20) == numbanet.cuda.max_memory_allocated()
    assert numbanet.cuda.memory_reserved() >= numbanet.cuda.memory_allocated()
    del x
    assert numbanet.cuda.memory_allocated() == before and numbanet.cuda.max_memory_allocated() == before + (4 << 20)
    held = numbanet.cuda.memory_reserved()
    numbanet.cuda.empty_cache()
    assert numbanet.cuda.memory_reserved() <= held - (4 << 20)
    assert numbanet.cuda.memory_allocated(1) >= 0 and numbanet.cuda.get_device_capability() == (9, 0)
    with pytest.raises(BackendError, match="expected a GPU"):
        numbanet.cuda.synchronize("cpu")


def test_views_copies_and_dlpack():
    x = numbanet.arange(24, device="cuda").reshape(2, 3, 4)
    view = x.transpose(0, 2)[1:, ::2]
    expected = np.arange(24).reshape(2, 3, 4).transpose(2, 1, 0)[1:, ::2]
    np.testing.assert_array_equal(view.numpy(), expected)
    np.testing.assert_array_equal(np.from_dlpack(view), expected)
    view[0] = -1
    assert (x[:, ::2, 1].numpy() == -1).all()
    assert CUDA.may_share_memory(x.array, view.array) and not CUDA.may_share_memory(x.array, CUDA.copy(x.array))
    np.testing.assert_array_equal(view.reshape(-1).numpy(), view.numpy().reshape(-1))
