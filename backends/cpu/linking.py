"""Compile a kernel's code once, not once a level.

Numba builds a library for every function, and a parallel kernel has four around its loop body. Each is optimised,
turned into machine code and then linked, as LLVM code, into the next, where all of it is optimised and turned into
machine code again. While `compiled_as` is active only the outermost library of the kernel is treated so; the
libraries below stay plain LLVM code to be linked. A parallel kernel compiles in about a third of the time, and to no
worse code, as everything is inlined and optimised together.
"""
import contextlib
from collections.abc import Iterator

from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.environment import lookup_environment
from numba.core.registry import cpu_target

PYTHON_WRAPPER = "_ZN7cpython"       # what symbols of functions that Python may call begin with


class LinkedLibrary(JITCodeLibrary):
    """A library whose code only exists inside of those it is linked into."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """The address of a function, for which the library becomes machine code; 0 for what only Python would call."""
        if name.startswith(PYTHON_WRAPPER) or name not in [function.name for function in self.get_defined_functions()]:
            return 0
        if not self._codegen._engine.is_symbol_defined(name):
            super()._optimize_final_module()
            super()._finalize_final_module()
            _set_environments(self)
        return super().get_pointer_to_function(name)


class KernelLibrary(JITCodeLibrary):
    """The outermost library. It holds the code of the linked ones, and the addresses of their constants."""

    def _finalize_final_module(self) -> None:
        super()._finalize_final_module()
        _set_environments(self)


def _set_environments(library: JITCodeLibrary) -> None:
    for variable in library._final_module.global_variables:
        environment = lookup_environment(variable.name)
        if environment is not None:
            JITCPUCodegen.set_env(library._codegen, variable.name, environment)


@contextlib.contextmanager
def compiled_as(name: str) -> Iterator[None]:
    """Let only the library `name` become machine code; to be held under Numba's compiler lock."""
    codegen = cpu_target.target_context.codegen()

    def create_library(library: str, **options):
        return (KernelLibrary if library == name else LinkedLibrary)(codegen, library, **options)

    def set_env(variable: str, environment) -> None:
        if codegen._engine.is_symbol_defined(variable):
            JITCPUCodegen.set_env(codegen, variable, environment)

    codegen.create_library, codegen.set_env = create_library, set_env
    try:
        yield
    finally:
        del codegen.create_library, codegen.set_env
