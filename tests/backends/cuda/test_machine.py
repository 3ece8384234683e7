"""The machine that executes PTX: it computes what the ISA says, and finds what it is there to find."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

pytest.importorskip("numba_cuda")

from numba import cuda

from numbanet.backends.cuda import cubin, ptx
from numbanet.backends.cuda.compile import float32
from numbanet.backends.cuda.launch import numba_type
from tests.backends.cuda.executed import machine as machines
from tests.backends.cuda.executed.code import Program, Unknown
from tests.backends.cuda.executed.machine import Fault, Machine, Memory
from tests.backends.cuda.executed.source import parse

BODY = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry kernel(.param .u64 kernel_param_0, .param .u64 kernel_param_1, .param .u64 kernel_param_2)
{{
    .reg .pred %p<4>;
    .reg .b16 %rs<8>;
    .reg .b32 %r<8>;
    .reg .f32 %f<8>;
    .reg .b64 %rd<16>;
    .reg .f64 %fd<8>;
    ld.param.u64 %rd1, [kernel_param_0];
    ld.param.u64 %rd2, [kernel_param_1];
    ld.param.u64 %rd3, [kernel_param_2];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd4, %r1, 8;
    add.s64 %rd5, %rd1, %rd4;
    add.s64 %rd6, %rd2, %rd4;
    add.s64 %rd7, %rd3, %rd4;
    {body}
    ret;
}}
"""
WORDS = np.array([0, 1, 2, 3, 5, 7, 31, 32, 33, 255, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFF9, 0xFFFFFFFE, 0xFFFFFFFF], np.uint32)


def _pairs():
    a, b = np.meshgrid(WORDS, WORDS)
    return a.ravel(), b.ravel()


def _run(program: Program, arrays, threads: int, grid=(1, 1, 1), shared: int = 0) -> list[np.ndarray]:
    """The arrays afterwards; an integer stands for memory of so many bytes that nobody has written."""
    memory = Memory(1 << 20)
    addresses = []
    for array in arrays:
        size = array if isinstance(array, int) else array.nbytes
        addresses.append(memory.allocate(size))
        if not isinstance(array, int):
            memory.write(addresses[-1], array.view(np.uint8).ravel())
    Machine(memory).launch(program, grid, threads, [ctypes.c_void_p(a) for a in addresses], shared)
    return [memory.read(a, x if isinstance(x, int) else x.nbytes).view(np.uint8 if isinstance(x, int) else x.dtype)
            for a, x in zip(addresses, arrays)]


def _computed(instruction: str, a, b) -> np.ndarray:
    """64-bit results in %rd10 of words in %r2 and %r3 (%rd8, %rd9), one a thread."""
    body = f"""ld.global.u32 %r2, [%rd5]; ld.global.u32 %r3, [%rd6]; ld.global.u64 %rd8, [%rd5]; ld.global.u64 %rd9, [%rd6];
    {instruction}
    st.global.u64 [%rd7], %rd10;"""
    wide = [x.astype(np.uint64) for x in (a, b)]
    return _run(Program(parse(BODY.format(body=body))), [*wide, 8 * len(a)], len(a))[2].view(np.uint64)


def _signed(x):
    return x.view(np.int32).astype(object)


@pytest.mark.parametrize("instruction, expected", [
    ("add.s32 %r4, %r2, %r3;", lambda a, b: a + b), ("mul.lo.s32 %r4, %r2, %r3;", lambda a, b: a * b),
    ("mul.hi.s32 %r4, %r2, %r3;", lambda a, b: a * b >> 32),
    ("mul.hi.u32 %r4, %r2, %r3;", lambda a, b: (a % 2**32) * (b % 2**32) >> 32),
    ("shr.s32 %r4, %r2, %r3;", lambda a, b: a >> min(b % 2**32, 31)),
    ("shr.u32 %r4, %r2, %r3;", lambda a, b: a % 2**32 >> b % 2**32 if b % 2**32 < 32 else 0),
    ("shl.b32 %r4, %r2, %r3;", lambda a, b: a << b % 2**32 if b % 2**32 < 32 else 0),
    ("min.s32 %r4, %r2, %r3;", min), ("max.s32 %r4, %r2, %r3;", max),
    ("min.u32 %r4, %r2, %r3;", lambda a, b: min(a % 2**32, b % 2**32)),
    ("bfi.b32 %r4, %r2, %r3, 5, 7;", lambda a, b: (b & ~(127 << 5)) | (a & 127) << 5),
    ("prmt.b32 %r4, %r2, %r3, 30212;", lambda a, b: _bytes_picked(a, b, 0x7604)),
    ("setp.lt.s32 %p1, %r2, %r3; selp.b32 %r4, 1, 0, %p1;", lambda a, b: int(a < b)),
    ("setp.lt.u32 %p1, %r2, %r3; selp.b32 %r4, 1, 0, %p1;", lambda a, b: int(a % 2**32 < b % 2**32)),
    ("setp.ne.s32 %p1, %r2, %r3; @%p1 add.s32 %r4, %r2, 1; @!%p1 mov.u32 %r4, 7;", lambda a, b: a + 1 if a != b else 7),
    ("not.b32 %r4, %r2;", lambda a, b: ~a), ("neg.s32 %r4, %r2;", lambda a, b: -a), ("abs.s32 %r4, %r2;", lambda a, b: abs(a)),
    ("cvt.u16.u32 %rs1, %r2; cvt.u32.u16 %r4, %rs1;", lambda a, b: a % 2**16),
    ("{ .reg .b16 low, high; mov.b32 {low, high}, %r2; mov.b32 %r4, {high, low}; }",
     lambda a, b: (a % 2**16) << 16 | a % 2**32 >> 16)])
def test_words(instruction, expected):
    a, b = _pairs()
    received = _computed(f"{instruction} cvt.u64.u32 %rd10, %r4;", a, b)
    assert [int(x) for x in received] == [expected(x, y) % 2**32 for x, y in zip(_signed(a), _signed(b))]


def _bytes_picked(a, b, selector):
    both = a % 2**32 | b % 2**32 << 32
    return sum((both >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i for i in range(4))


@pytest.mark.parametrize("instruction, expected", [
    ("div.s32 %r4, %r2, %r3;", lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)),
    ("div.u32 %r4, %r2, %r3;", lambda a, b: a % 2**32 // (b % 2**32)), ("rem.u32 %r4, %r2, %r3;", lambda a, b: a % 2**32 % (b % 2**32)),
    ("rem.s32 %r4, %r2, %r3;", lambda a, b: abs(a) % abs(b) * (1 if a >= 0 else -1))])
def test_divisions_round_toward_zero(instruction, expected):
    a, b = _pairs()
    a, b = a[b != 0], b[b != 0]
    received = _computed(f"{instruction} cvt.u64.u32 %rd10, %r4;", a, b)
    assert [int(x) for x in received] == [expected(x, y) % 2**32 for x, y in zip(_signed(a), _signed(b))]


@pytest.mark.parametrize("instruction, expected", [
    ("mul.wide.s32 %rd10, %r2, %r3;", lambda a, b: a * b), ("mul.wide.u32 %rd10, %r2, %r3;", lambda a, b: (a % 2**32) * (b % 2**32)),
    ("cvt.s64.s32 %rd10, %r2;", lambda a, b: a), ("mul.lo.s64 %rd10, %rd8, %rd9;", lambda a, b: (a % 2**32) * (b % 2**32)),
    ("clz.b64 %r4, %rd8; cvt.u64.u32 %rd10, %r4;", lambda a, b: 64 - (a % 2**32).bit_length()),
    ("mov.b64 %rd10, {%r2, %r3};", lambda a, b: a % 2**32 | b % 2**32 << 32),
    ("add.cc.u32 %r4, %r2, %r3; addc.u32 %r5, 0, 0; mov.b64 %rd10, {%r4, %r5};", lambda a, b: a % 2**32 + b % 2**32),
    ("mad.lo.cc.u32 %r4, %r2, %r3, %r3; madc.hi.u32 %r5, %r2, %r3, 0; mov.b64 %rd10, {%r4, %r5};",
     lambda a, b: (a % 2**32) * (b % 2**32) + b % 2**32)])
def test_double_words(instruction, expected):
    a, b = _pairs()
    received = _computed(instruction, a, b)
    assert [int(x) for x in received] == [expected(x, y) % 2**64 for x, y in zip(_signed(a), _signed(b))]


@pytest.mark.parametrize("value, rounded", [
    (2.5, {"rni": 2, "rzi": 2, "rmi": 2, "rpi": 3}), (-2.5, {"rni": -2, "rzi": -2, "rmi": -3, "rpi": -2}),
    (3e9, {"rzi": 2**31 - 1}), (-np.inf, {"rzi": -2**31}), (np.nan, {"rzi": 0})])
def test_floats_become_integers(value, rounded):
    bits = np.full(4, np.float32(value).view(np.uint32))
    for how, expected in rounded.items():
        received = _computed(f"mov.b32 %f1, %r2; cvt.{how}.s32.f32 %r4, %f1; cvt.u64.u32 %rd10, %r4;", bits, bits)
        assert {int(x) for x in received} == {expected % 2**32}


def test_unordered_comparisons():
    a, b = (x.astype(np.float32) for x in np.meshgrid([0.0, 1.0, np.nan, np.inf], [0.0, 1.0, np.nan, np.inf]))
    a, b = a.ravel(), b.ravel()
    for name, expected in (("lt", a < b), ("ltu", ~(a >= b)), ("neu", a != b), ("ne", (a < b) | (a > b)), ("equ", ~((a < b) | (a > b))),
                           ("num", ~np.isnan(a) & ~np.isnan(b)), ("nan", np.isnan(a) | np.isnan(b))):
        received = _computed(f"mov.b32 %f1, %r2; mov.b32 %f2, %r3; setp.{name}.f32 %p1, %f1, %f2; selp.u64 %rd10, 1, 0, %p1;",
                             a.view(np.uint32), b.view(np.uint32))
        np.testing.assert_array_equal(received.astype(bool), expected, err_msg=name)


def test_a_fused_product_is_rounded_once(rng):
    a, b = rng.standard_normal((2, 200)).astype(np.float32)
    received = _computed("mov.b32 %f1, %r2; mov.b32 %f2, %r3; mul.f32 %f3, %f1, %f2; neg.f32 %f3, %f3; fma.rn.f32 %f4, %f1, %f2, %f3; "
                         "mov.b32 %r4, %f4; cvt.u64.u32 %rd10, %r4;", a.view(np.uint32), b.view(np.uint32))
    exact = a.astype(np.float64) * b - (a * b).astype(np.float64)           # what rounding took from the product
    np.testing.assert_array_equal(received.astype(np.uint32).view(np.float32), exact.astype(np.float32))


def test_loops_of_different_lengths():
    """Thread t adds 1 to t; those that are done wait for nobody."""
    body = """ld.global.u64 %rd8, [%rd5]; mov.u64 %rd10, 0; mov.u64 %rd11, 0;
    L1: setp.ge.u64 %p1, %rd11, %rd8; @%p1 bra L2; add.s64 %rd11, %rd11, 1; add.s64 %rd10, %rd10, %rd11; bra.uni L1;
    L2: st.global.u64 [%rd7], %rd10;"""
    counts = np.arange(70, dtype=np.uint64)[::-1].copy()
    received = _run(Program(parse(BODY.format(body=body))), [counts, counts, 8 * 70], 70)[2].view(np.uint64)
    np.testing.assert_array_equal(received, counts * (counts + 1) // 2)


@pytest.mark.parametrize("instructions, words", [
    ("add.s32 %r4, %r2, %r7; cvt.u64.u32 %rd10, %r4;", "a register is read before it is written"),
    ("and.b64 %rd7, %rd7, 4294967295; mov.u64 %rd10, 0;", "store of 8 bytes of global memory at .* outside of an array"),
    ("setp.lt.u32 %p1, %r1, 40; @%p1 bra L1; bar.sync 0; bra.uni L2; L1: bar.sync 0; L2: mov.u64 %rd10, 0;",
     "threads of a block wait at different barriers")])
def test_faults_of_registers_addresses_and_barriers(instructions, words):
    with pytest.raises(Fault, match=words):
        _computed(instructions, WORDS.repeat(4), WORDS.repeat(4))


@pytest.mark.parametrize("distance", [1, 5, 16, 31])
def test_lanes_exchange_words(distance):
    words = np.arange(96, dtype=np.uint32) * 7
    received = _computed(f"shfl.sync.bfly.b32 %r4, %r2, {distance}, 31, -1; cvt.u64.u32 %rd10, %r4;", words, words)
    np.testing.assert_array_equal(received, words.reshape(3, 32)[:, np.arange(32) ^ distance].ravel())


def test_costs_are_those_of_bytes_and_instructions(capsys):
    """A sum reads and writes each byte once; a global mean is one addition an element, its gradient a division each."""
    from tests.backends.cuda.executed import costs
    costs.main(["add", "adaptive_avg"])
    rows = {line[:48].strip(): line[48:].split() for line in capsys.readouterr().out.splitlines()[1:]}
    assert rows["add"][0] == rows["add, bfloat16"][0] == "1.00" and rows["add"][2] == "1"
    assert 0 < float(rows["add"][1]) < 0.5 and float(rows["adaptive_avg_pool2d_forward"][1]) < 0.2
    assert float(rows["adaptive_avg_pool2d_backward_input"][1]) > 4 * float(rows["adaptive_avg_pool2d_forward"][1])


def test_lanes_that_others_wait_for():
    with pytest.raises(Fault, match="shfl that some lanes of a warp do not come to"):
        _computed("setp.lt.u32 %p1, %r1, 40; @%p1 bra L1; shfl.sync.bfly.b32 %r2, %r2, 1, 31, -1; L1: mov.u64 %rd10, 0;", WORDS.repeat(4),
                  WORDS.repeat(4))
    with pytest.raises(Fault, match="shfl in blocks of 16 threads"):
        _computed("shfl.sync.bfly.b32 %r2, %r2, 1, 31, -1; mov.u64 %rd10, 0;", WORDS, WORDS)


def test_a_warp_comes_whole():
    """To ldmatrix, and so to mma."""
    names = {"ptx": ptx}
    exec("def partly(x, out, limit):\n    shared = ptx.shared_memory()\n    thread = ptx.thread_index()\n"
         "    ptx.store_shared_float(shared + thread * 4, ptx.float32(1), thread >= 0)\n    ptx.barrier()\n    word = ptx.uint32(0)\n"
         "    if thread < limit:\n        word = ptx.ldmatrix_x1(shared + (thread & 7) * 16)\n"
         "    ptx.store_word(out + thread * 4, word, thread >= 0)\n", names)
    program = Program(parse(cubin.compile_ptx("partly", names["partly"], ("int64", "int64", "int32"))))
    memory = Memory(1 << 20)
    out = memory.allocate(256)
    for limit in (32, 64, 0):
        Machine(memory).launch(program, (1, 1, 1), 64, [ctypes.c_int64(out), ctypes.c_int64(out), ctypes.c_int32(limit)], 1024)
    with pytest.raises(Fault, match="ldmatrix that some lanes of a warp do not come to"):
        Machine(memory).launch(program, (1, 1, 1), 64, [ctypes.c_int64(out), ctypes.c_int64(out), ctypes.c_int32(40)], 1024)


def test_unknown_instructions_are_named():
    with pytest.raises(Unknown, match="vote.sync"):
        Program(parse(BODY.format(body="vote.sync.all.pred %p1, %p2, 0xffffffff;")))


# --- faults -----------------------------------------------------------------------------------------------------------

def _compiled(function, *types: str) -> Program:
    return Program(parse(cubin.compile_ptx(function.__name__, function, types, numba_type=numba_type)))


def past_the_end(x, out):
    out[cuda.threadIdx.x + 1] = x[cuda.threadIdx.x]


def before_the_begin(x, out):
    out[cuda.threadIdx.x] = x[cuda.threadIdx.x - 1]


def same_place(x, out):
    out[0] = x[cuda.threadIdx.x]


def reads_a_neighbours_result(x, out):
    i = cuda.threadIdx.x
    out[i] = x[i]
    if i > 0:
        out[i] = out[i - 1]


def overwrites_what_others_read(x, out):
    i = cuda.threadIdx.x
    out[i] = x[(i + 1) % 64]
    x[i] = out[i]


def no_barrier(x, out):
    shared = cuda.shared.array(64, float32)
    i = cuda.threadIdx.x
    shared[i] = x[i]
    out[i] = shared[63 - i]


def one_barrier_too_few(x, out):
    shared = cuda.shared.array(64, float32)
    i = cuda.threadIdx.x
    for k in range(3):
        shared[i] = x[i] + float32(k)
        cuda.syncthreads()
        out[i] = shared[63 - i]


def barrier_for_some(x, out):
    i = cuda.threadIdx.x
    if i < 40:
        cuda.syncthreads()
    out[i] = x[i]


def shared_that_nobody_wrote(x, out):
    shared = cuda.shared.array(128, float32)
    i = cuda.threadIdx.x
    shared[i] = x[i]
    cuda.syncthreads()
    out[i] = shared[i + 1]


def past_the_end_of_shared(x, out):
    shared = cuda.shared.array(64, float32)
    i = cuda.threadIdx.x
    shared[i] = x[i]
    cuda.syncthreads()
    out[i] = shared[i + 1]


def forever(x, out):
    i = cuda.threadIdx.x
    while x[i] < x[i] + x[i]:
        out[i] = x[i]


def swaps_through_shared(x, out):
    shared = cuda.shared.array(64, float32)
    i = cuda.threadIdx.x
    for _ in range(3):
        shared[i] = x[i]
        cuda.syncthreads()
        out[i] = shared[63 - i]
        cuda.syncthreads()


VALUES = np.arange(1, 65, dtype=np.float32)


@pytest.mark.parametrize("function, words", [
    (past_the_end, "store of 4 bytes of global memory at .* outside of an array, by thread 63"),
    (before_the_begin, "load of 4 bytes of global memory at .* outside of an array, by thread 0"),
    (same_place, "two threads write different values"),
    (reads_a_neighbours_result, "load of global memory that another thread of the launch writes"),
    (overwrites_what_others_read, "store to global memory that another thread of the launch reads"),
    (no_barrier, "load of shared memory that another thread of the block wrote, with no barrier between"),
    (one_barrier_too_few, "store to shared memory that another thread of the block has read, with no barrier between"),
    (barrier_for_some, "a barrier that 24 threads never reach"),
    (shared_that_nobody_wrote, "load of shared memory that nobody wrote"),
    (past_the_end_of_shared, "load of 4 bytes of shared memory at .* outside of an array"),
    (forever, "does not end")], ids=lambda x: getattr(x, "__name__", ""))
def test_faults(function, words, monkeypatch):
    monkeypatch.setattr(machines, "LONGEST", 1000)
    with pytest.raises(Fault, match=words):
        _run(_compiled(function, "*float32", "*float32"), [VALUES, VALUES.copy()], 64)


def test_what_is_right_is_no_fault():
    received = _run(_compiled(swaps_through_shared, "*float32", "*float32"), [VALUES, VALUES.copy()], 64)[1]
    np.testing.assert_array_equal(received, VALUES[::-1])
    received = _run(_compiled(same_place, "*float32", "*float32"), [np.full(64, 2, np.float32), VALUES.copy()], 64)[1]
    assert received[0] == 2, "threads may write the same value"


def copies_pieces(x, out):
    out[4 * cuda.threadIdx.x] = x[4 * cuda.threadIdx.x]


def test_pieces_have_to_be_aligned():
    program = _compiled(copies_pieces, "*float32x4", "*float32x4")
    np.testing.assert_array_equal(_run(program, [VALUES, VALUES.copy() * 0], 16)[1], VALUES)
    memory = Memory(1 << 20)
    first, second = memory.allocate(256), memory.allocate(512)
    memory.write(first, VALUES.view(np.uint8))
    with pytest.raises(Fault, match="misaligned store of 16 bytes"):
        Machine(memory).launch(program, (1, 1, 1), 16, [ctypes.c_void_p(first), ctypes.c_void_p(second + 4)])


def reads_rows(x, out):
    out[cuda.threadIdx.x] = x[8 * cuda.threadIdx.x % 64]


def test_traffic_is_counted_in_sectors():
    """Of a warp that reads and writes 512 bytes on end, and of one that reads four bytes of each sector."""
    counted = {}
    for function, x in ((copies_pieces, "*float32x4"), (reads_rows, "*float32")):
        memory = Memory(1 << 20)
        first, second = memory.allocate(512), memory.allocate(512)
        memory.write(first, np.zeros(512, np.uint8))
        machine = Machine(memory)
        machine.measures = True
        machine.launch(_compiled(function, x, x), (1, 1, 1), 32, [ctypes.c_void_p(first), ctypes.c_void_p(second)])
        counted |= machine.traffic
    assert counted == {("copies_pieces", "load"): [1, 16, 512], ("copies_pieces", "store"): [1, 16, 512],
                       ("reads_rows", "load"): [1, 8, 128], ("reads_rows", "store"): [1, 4, 128]}


def test_memory_that_nobody_wrote():
    program = _compiled(swaps_through_shared, "*float32", "*float32")
    with pytest.raises(Fault, match="load of global memory that nobody wrote"):
        _run(program, [256, VALUES.copy()], 64)


def _copying(steps):
    """A kernel that copies 16 bytes a thread to shared memory, takes `steps`, and reads words."""
    names = {"ptx": ptx}
    lines = ["shared = ptx.shared_memory()", "thread = ptx.thread_index()",
             "ptx.copy_async_16(shared + thread * 16, x + thread * 16, thread >= 0)", *steps,
             "value = ptx.load_shared_float(shared + (thread ^ other) * 16)", "ptx.store_float(out + thread * 4, value, thread >= 0)"]
    exec("def copying(x, out, other):\n" + "".join(f"    {line}\n" for line in lines), names)
    return Program(parse(cubin.compile_ptx("copying", names["copying"], ("int64", "int64", "int32"))))


@pytest.mark.parametrize("steps, other, words", [
    (["ptx.commit_copies()", "ptx.wait_copies_0()", "ptx.barrier()"], 1, ""),
    (["ptx.commit_copies()", "ptx.wait_copies_0()"], 0, ""),
    (["ptx.commit_copies()", "ptx.wait_copies_0()"], 1, "another thread of the block wrote, with no barrier between"),
    (["ptx.commit_copies()", "ptx.barrier()"], 0, "shared memory that nobody wrote"),                  # it is on its way
    (["ptx.commit_copies()", "ptx.wait_copies_1()", "ptx.barrier()"], 0, "shared memory that nobody wrote"),
    (["ptx.wait_copies_0()", "ptx.barrier()"], 0, "shared memory that nobody wrote")])                  # of no group
def test_asynchronous_copies(steps, other, words):
    memory = Memory(1 << 20)
    x, out = memory.allocate(64 * 16), memory.allocate(256)
    memory.write(x, np.repeat(VALUES, 4).view(np.uint8))
    arguments = [ctypes.c_int64(x), ctypes.c_int64(out), ctypes.c_int32(other)]
    if words:
        with pytest.raises(Fault, match=words):
            Machine(memory).launch(_copying(steps), (1, 1, 1), 64, arguments, 1024)
    else:
        Machine(memory).launch(_copying(steps), (1, 1, 1), 64, arguments, 1024)
        np.testing.assert_array_equal(memory.read(out, 256).view(np.float32), VALUES[np.arange(64) ^ other])
