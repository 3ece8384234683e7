"""Calls of kernels that follow each other, as one function of machine code: what Python does for a call takes as long as a small layer.

    joined(calls)       (function, arguments) pairs -> fewer of them that do the same

A function that has an attribute `kernels` tells what it would run: `kernels(*arguments, out)` gives a list of (kernel, arguments), for
the calling thread alone, or (kernel, arguments, True), for all threads, or None. Scratch memory among the arguments is one block for
all kernels, so none may find there what another has left.
Kernels take arrays as Numba's compiled functions do, field by field, so the program consists of calls with constants. Only arrays over
what a plan is given anew in each replay are addressed from arguments.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np
from numba import types

from numbanet.backends.cpu import memory, threads
from numbanet.backends.cpu.compile import JIT
from numbanet.errors import BackendError

ADDRESS, STATUS, I64, FLOAT, DOUBLE = ir.IntType(64), ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.DoubleType()


class Given:
    """An operand that each replay brings: where it stands in the arguments of a call, and an array like it."""

    def __init__(self, call: list, position: int, example: np.ndarray):
        self.call, self.position, self.example = call, position, example
        self.begin = example.__array_interface__["data"][0]


def joined(calls: Sequence[tuple[Callable, list]], givens: Sequence[Given] = ()) -> list[tuple[Callable, list]]:
    """Runs of two and more calls that say their kernels become programs; all others stay.

    Parameters
    ----------
    calls
        (function, its arguments and `out`), as a plan repeats them.
    givens
        Operands that are put into their arguments before each replay.
    """
    done, run = [], []
    for call in [*calls, None]:
        with memory.lending():
            is_known = call is not None and JIT and _kernels(call, givens) is not None
        if is_known:
            run.append(call)
            continue
        if len(run) > 1:
            done.append((Program(run, [g for g in givens if any(g.call is c[1] for c in run)]), ()))
        else:
            done += run
        run = []
        if call is not None:
            done.append(call)
    return done


def _kernels(call, givens: Sequence[Given]) -> list[tuple] | None:
    function, arguments = call
    tell = getattr(function, "kernels", None)
    if tell is None:
        return None
    arguments = list(arguments)
    for given in givens:
        if given.call is call[1]:
            arguments[given.position] = given.example
    return tell(*arguments)


class Program:
    """A sequence of kernels, as functions tell of them; called without arguments, it runs them all.

    Where the number of threads has changed since, functions are asked anew.

    Attributes
    ----------
    calls : what they tell, (kernel, arguments[, on all threads])
    scratch : what they all borrow
    """

    def __init__(self, functions: Sequence[tuple[Callable, list]], givens: Sequence[Given] = ()):
        self._sources, self._givens = functions, givens
        self._places = [(given.call, given.position) for given in givens]
        self._ask()

    def _ask(self) -> None:
        self._threads = threads.get_num_threads()
        with memory.lending() as asked:
            self._tell()
        self.scratch = memory.empty((asked.most,), np.uint8)
        with memory.lending(self.scratch):
            self.calls = self._tell()                       # the arrays live as long as the program
        self._in_parallel = any(rest and rest[0] for _, _, *rest in self.calls)
        self._functions: dict[bool, Callable] = {}
        self._engines: list = []

    def _tell(self) -> list[tuple]:
        return [told for call in self._sources for told in _kernels(call, self._givens)]

    def __call__(self):
        if not self._in_parallel:
            return self._run(False)
        if self._threads != threads.get_num_threads():
            self._ask()
        mode = threads.launch_mode()
        if mode is threads.GUARDED and threads.launch_lock().acquire(blocking=False):
            try:
                return self._run(True)
            finally:
                threads.launch_lock().release()
        return self._run(mode is threads.PARALLEL)

    def _run(self, parallel: bool) -> None:
        run = self._functions.get(parallel)
        if run is None:
            run = self._functions[parallel] = self._compiled(parallel)
        if run(*[call[position].__array_interface__["data"][0] for call, position in self._places]):
            raise BackendError("program: a kernel ran out of memory for its own small arrays")

    def _compiled(self, parallel: bool) -> Callable:
        """The function of the addresses of what is given, on all threads where a call may be."""
        givens = self._givens
        module = ir.Module()
        function = ir.Function(module, ir.FunctionType(STATUS, [ADDRESS] * len(givens)), "run")
        builder = ir.IRBuilder(function.append_basic_block())
        result, error = (builder.ptrtoint(builder.alloca(I64), ADDRESS) for _ in range(2))
        for kernel, arguments, *rest in self.calls:
            address, wanted = kernel.machine_code(arguments, bool(parallel and rest and rest[0]))
            values = [value for kind, argument in zip(wanted, arguments, strict=True)
                      for value in _fields(kind, argument, builder, list(zip(givens, function.args)))]
            kind = ir.FunctionType(STATUS, [ADDRESS, ADDRESS, *[v.type for v in values]])
            status = builder.call(builder.inttoptr(ADDRESS(address), kind.as_pointer()), [result, error, *values])
            with builder.if_then(builder.icmp_signed("!=", status, STATUS(0)), likely=False):
                builder.ret(status)
        builder.ret(STATUS(0))
        machine = llvm.Target.from_default_triple().create_target_machine()
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), machine)
        engine.finalize_object()
        self._engines.append(engine)                        # the code lives as long as the program, too
        return ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * len(givens))(engine.get_function_address("run"))


def _fields(kind, argument, builder: ir.IRBuilder, givens: list[tuple[Given, ir.Value]]):
    """What a compiled function takes for one argument."""
    if isinstance(kind, types.Array):
        yield from (ADDRESS(0), ADDRESS(0), I64(argument.size), I64(argument.itemsize))     # without an owner
        data = argument.__array_interface__["data"][0]
        for given, address in givens:
            if given.begin <= data < given.begin + max(given.example.nbytes, 1):
                yield builder.add(address, I64(data - given.begin))
                break
        else:
            yield ADDRESS(data)
        yield from map(I64, (*argument.shape, *argument.strides))
    elif kind == types.int64:
        yield I64(int(argument))
    elif kind == types.float32:
        yield FLOAT(float(argument))
    elif kind == types.float64:
        yield DOUBLE(float(argument))
    else:
        raise BackendError(f"program: expected arrays, i8, f4 and f8 as arguments of kernels, received {kind}")
