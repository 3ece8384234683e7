"""The contract between everything above and every backend.

A *primitive* is the smallest thing a backend is asked to do. It is declared once, in `contract/`, by a function whose
signature names the operands and attributes, and whose body checks them and says what comes out::

    @primitive
    def relu_forward(x: Array):
        \"\"\"max(x, 0), NaN stays NaN.\"\"\"
        return like(x)

Parameters annotated `Array`, `Array | None` or `Arrays` are operands; all others are attributes: immutable, hashable, no
arrays. The body runs before any kernel and raises on bad input; it reads only `.shape`, `.dtype` and `.strides`, so that it
also serves tracing, where no data exist. It returns an :class:`ArraySpec`, a tuple of them, or None for primitives that only
change operands (`mutates=`).

A backend implements a primitive as a function of the same parameters and a last one, `out`: the array (or tuple of arrays)
to fill, already allocated as the specification says. What it writes must not depend on what `out` held. Views
(`view=True`) take no `out`: they return another array over the same memory.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet.errors import BackendError

if __name__ != "numbanet.backends.interface":
    raise ImportError("import numbanet.backends, not backends: the folder is mapped into the package numbanet")

Array = Any             # an operand: has .shape, .strides (bytes), .dtype, .nbytes; nothing else is known above the backends
Arrays = Sequence[Any]  # several operands of one kind
_OPERAND_ANNOTATIONS = {"Array": "array", "Array | None": "optional", "Arrays": "sequence", "Array | Scalar": "scalar"}
Scalar = int | float | bool


class ArraySpec(NamedTuple):
    """Shape, dtype and memory order of an output.

    `order` lists the axes from the outermost to the innermost in memory; None is row-major. Feature maps are
    channels-last: (0, 2, 3, 1) for logical (N, C, H, W).
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    order: tuple[int, ...] | None = None


@cache
def channels_last(rank: int) -> tuple[int, ...] | None:
    """The memory order of feature maps of this rank: batch, spatial axes, channels."""
    return (0, *range(2, rank), 1) if rank > 2 else None


def dense_strides(shape: tuple[int, ...], dtype: np.dtype, order: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Strides in bytes of an array without gaps in the given memory order."""
    strides, step = [0] * len(shape), dtype.itemsize
    for axis in reversed(order or range(len(shape))):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


@lru_cache(maxsize=8192)
def _order(shape, strides):
    axes = [a for a in range(len(shape)) if shape[a] != 1]
    if all(strides[a] >= strides[b] for a, b in zip(axes, axes[1:])):
        return None
    order = sorted(range(len(shape)), key=lambda a: (-abs(strides[a]), a))
    return tuple(order)


def order_of(x: Array) -> tuple[int, ...] | None:
    """The memory order of `x` (see :class:`ArraySpec`); axes of one element do not count."""
    return _order(x.shape, x.strides)


def like(x: Array, dtype=None) -> ArraySpec:
    """An array of x's shape and memory order, and its dtype unless another is given."""
    return ArraySpec(x.shape, x.dtype if dtype is None else dtype, _order(x.shape, x.strides))


class Primitive:
    """A declared primitive: name, operands, attributes, outputs, effects. See this module's text."""

    def __init__(self, specification: Callable, view: bool, mutates: tuple[str, ...], may_overwrite: tuple[str, ...],
                 workspace: Callable | None, random: bool):
        self.name = specification.__name__
        self.specification = specification          # (operands, attributes) -> ArraySpec, tuple of them, or None
        self.parameters = tuple(inspect.signature(specification).parameters.values())
        self.view = view
        self.mutates = mutates                      # operands that are changed: running statistics, parameters, moments
        self.may_overwrite = may_overwrite          # operands whose memory the first output may take
        self.workspace = workspace                  # same parameters -> bytes of scratch a planner should set aside
        self.random = random                        # draws from the counter-based generator through its `key` attribute
        self.composition: Callable | None = None
        self.family = specification.__module__.rpartition(".")[2]
        self.operands = {p.name: _OPERAND_ANNOTATIONS[a] for p in self.parameters
                         if (a := _annotation(p)) in _OPERAND_ANNOTATIONS}
        unknown = [name for name in (*mutates, *may_overwrite) if name not in self.operands]
        if unknown:
            raise BackendError(f"{self.name}: {unknown} are not operands of it; its operands are {list(self.operands)}")
        self.__doc__ = specification.__doc__

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.parameters)

    def composed(self, function: Callable) -> Callable:
        """Give a default made of other primitives: a function (backend, operands, attributes) -> array(s)."""
        expected, received = ("backend", *self.parameter_names), tuple(inspect.signature(function).parameters)
        if received != expected:
            raise BackendError(f"{self.name}: its composition takes {received}, expected {expected}")
        self.composition = function
        return function

    def bind(self, args: tuple, kwargs: dict) -> tuple:
        """All arguments in the order of the parameters, defaults filled in."""
        values = list(args)
        if len(values) > len(self.parameters):
            raise TypeError(f"{self.name}: expected at most {len(self.parameters)} arguments, received {len(values)}")
        for p in self.parameters[len(values):]:
            if p.name in kwargs:
                values.append(kwargs.pop(p.name))
            elif p.default is not p.empty:
                values.append(p.default)
            else:
                raise TypeError(f"{self.name}: missing argument {p.name!r}")
        if kwargs:
            raise TypeError(f"{self.name}: unknown argument(s) {sorted(kwargs)}; it takes {list(self.parameter_names)}")
        return tuple(values)

    def __repr__(self):
        return f"<primitive {self.name}({', '.join(self.parameter_names)})>"


def _annotation(parameter) -> str:
    annotation = parameter.annotation
    if not isinstance(annotation, str):     # the module of an outside package may lack `from __future__ import annotations`
        return {id(Array): "Array", id(Arrays): "Arrays"}.get(id(annotation), str(annotation))
    return annotation.rpartition("interface.")[2]


PRIMITIVES: dict[str, Primitive] = {}


def primitive(specification: Callable | None = None, *, view=False, mutates=(), may_overwrite=(), workspace=None, random=False):
    """Declare a primitive (decorator). A name can be declared once."""
    def declare(function):
        made = Primitive(function, view, tuple(mutates), tuple(may_overwrite), workspace, random)
        if made.name in PRIMITIVES:
            raise BackendError(f"primitive {made.name}: declared twice, in {PRIMITIVES[made.name].family} and {made.family}")
        PRIMITIVES[made.name] = made
        return made
    return declare if specification is None else declare(specification)


class Implementations(dict):
    """The primitives that one backend implements itself, by name; calling it registers a function (decorator)."""

    def __init__(self, backend: str):
        super().__init__()
        self.backend = backend

    def __call__(self, function: Callable, name: str | None = None) -> Callable:
        name = name or function.__name__
        declared = PRIMITIVES.get(name)
        if declared is None:
            raise BackendError(f"{self.backend}: {name} is not a declared primitive; declare it with "
                               "numbanet.backends.primitive first")
        expected = declared.parameter_names if declared.view or _writes_nothing(declared) else (*declared.parameter_names, "out")
        received = tuple(inspect.signature(function).parameters)
        if received != expected:
            raise BackendError(f"{self.backend}: {name} takes {received}, the contract says {expected}")
        self[name] = function
        return function


def _writes_nothing(declared: Primitive) -> bool:
    """True where the primitive has no output of its own: its specification is annotated to return None."""
    return inspect.signature(declared.specification).return_annotation in ("None", None)


class Mirror:
    """Memory of the host beside an array of a backend; where the array lies on the host, its own.

    Copies are made when they are asked for here. A backend of a device may let them go on beside Python, in the order of its work.

    Attributes
    ----------
    host : numpy.ndarray
    """

    def __init__(self, backend: Backend, array: Array):
        self.backend, self.array = backend, array
        self.host = array if isinstance(array, np.ndarray) else np.empty(array.shape, array.dtype)

    def fetch(self) -> None:
        """Begin to bring the array's numbers to the host."""
        if self.host is not self.array:
            self.host[...] = self.backend.to_numpy(self.array)

    def is_here(self) -> bool:
        """Whether what was fetched has come."""
        return True

    def wait(self) -> None:
        """Until it has come."""

    def send(self) -> None:
        """Begin to take the host's numbers to the array; work that is asked for later finds them there."""
        if self.host is not self.array:
            self.backend.copy(self.backend.from_numpy(self.host), out=self.array)


class Backend:
    """Executes primitives on its own arrays. One instance per device; `backend.relu_forward(x)` runs a primitive.

    A subclass gives `name`, `implementations` and the memory methods. Every primitive also takes `out=`.
    """

    name: str
    implementations: Implementations
    computes_16_bit = False # whether kernels take float16 and bfloat16; arrays then say so too
    joins_draws = False     # whether `joined` takes calls that draw random numbers by a key of its own in each repeat
    is_tracing = False      # True where primitives are written down instead of run; the tape then says what it is doing
    is_released = False     # True where arrays have a shape, but their numbers are gone

    def __getattr__(self, name: str):
        # Reached once per primitive: afterwards the bound callable is an attribute of the instance.
        declared = PRIMITIVES.get(name)
        if declared is None:
            raise AttributeError(f"backend {self.__dict__.get('name', type(self).__name__)!r} has no attribute {name!r}, "
                                 "and no primitive of that name is declared")
        call = self.bind(declared)
        self.__dict__[name] = call
        return call

    def bind(self, declared: Primitive) -> Callable:
        """The callable behind `backend.<name>`."""
        implementation = self.implementations.get(declared.name)
        if implementation is None and declared.composition is None:
            raise BackendError(f"{declared.name}: backend {self.name!r} does not implement this primitive; use another device "
                               f"(device='reference' has all of numbanet's own), or attach a kernel with "
                               f"numbanet.backends.register_primitive({declared.name!r}, {self.name!r})")
        if implementation is None:
            return self._bind_composition(declared)
        return _bind_implementation(self, declared, implementation)

    def _bind_composition(self, declared: Primitive) -> Callable:
        composition, specification, count = declared.composition, declared.specification, len(declared.parameters)

        def call(*args, out=None, **kwargs):
            if kwargs or len(args) != count:
                args = declared.bind(args, kwargs)
            specification(*args)
            result = composition(self, *args)
            if out is None:
                return result
            for target, value in zip(out, result) if isinstance(result, tuple) else ((out, result),):
                if value is not None:
                    self.copy(value, out=target)
            return out
        return call

    def unchecked(self, name: str) -> Callable:
        """The primitive as a function of all its arguments and, where it has outputs, a last one `out`: for calls that were checked."""
        implementation, declared = self.implementations.get(name), PRIMITIVES[name]
        if implementation is not None:
            return implementation
        call = getattr(self, name)
        return call if _writes_nothing(declared) else lambda *arguments: call(*arguments[:-1], out=arguments[-1])

    def implements(self, name: str) -> bool:
        """Whether `backend.<name>` runs, itself or as a composition."""
        return name in self.implementations or (name in PRIMITIVES and PRIMITIVES[name].composition is not None)

    # Memory: the backend's own. `device` is what users write.
    def empty(self, shape: tuple[int, ...], dtype: np.dtype, order: tuple[int, ...] | None = None) -> Array:
        """An uninitialised array in the given memory order (see :class:`ArraySpec`)."""
        raise NotImplementedError

    def carve(self, block: Array, offset: int, shape: tuple[int, ...], dtype: np.dtype, order: tuple[int, ...] | None = None) -> Array:
        """An array within `block`, bytes from `offset` on; a backend without such views may give memory of its own."""
        return self.empty(shape, dtype, order)

    def from_numpy(self, array: np.ndarray) -> Array:
        """An array of this backend with these values; shares the memory where the backend can."""
        raise NotImplementedError

    def to_numpy(self, array: Array) -> np.ndarray:
        """A NumPy array with these values, waiting for them; shares the memory where the backend can."""
        raise NotImplementedError

    def mirror(self, array: Array) -> Mirror:
        """Memory of the host beside a dense array, for numbers that travel to other processes and back."""
        return Mirror(self, array)

    def may_share_memory(self, first: Array, second: Array) -> bool:
        """False only where the two certainly do not overlap."""
        raise NotImplementedError

    def candidates(self, primitive: str, arguments: tuple, constant: frozenset[int]) -> tuple[str, ...]:
        """Names of algorithms that this call could take besides the backend's own choice; see :meth:`prepare` for the arguments."""
        return ()

    def fingerprint(self) -> str:
        """A file name for what decides how fast the algorithms are: processor and versions, never the number of threads."""
        return self.name.replace(":", "-")

    def prepare(self, primitive: str, arguments: tuple, constant: frozenset[int], choice: str | None = None) -> Callable | None:
        """A faster way to repeat one call of a primitive, or None where there is none.

        Parameters
        ----------
        primitive
            Its name.
        arguments
            All arguments of the call: attributes, and arrays with the shapes and strides of every later one. Of arrays that
            are not constant only shape, strides and dtype are read.
        constant
            Positions of operands that will be the same arrays with the same contents in every later call.
        choice
            One of :meth:`candidates`. A name that is unknown here, or forbidden by the precision, counts as none.

        Returns
        -------
        Callable or None
            A function of the same arguments and `out`, that checks nothing: shapes and attributes are as given here. It
            may hold what it made of the constant operands, so whoever changes one prepares anew. Those at the positions in
            its attribute `unread`, where it has one, need not be given again: None will do.
        """
        return None

    def consuming(self, arrays: list[Array]) -> AbstractContextManager:
        """Within it a call is prepared after which nobody reads these arrays: what is made of them may take their memory."""
        return nullcontext()

    def recovery(self, array: Array, steps: list[tuple[str, tuple]], call: Callable, operand: int | tuple[int, int],
                 known: Callable | None = None) -> Callable[[], Array] | None:
        """A function that computes an array again, to the bit, from what a prepared call holds of it, so that the array itself can go.

        Parameters
        ----------
        array
        steps
            What was made of the array before it was given to the call: primitives, whose first operand it was, and first result it
            became, and their other arguments.
        call
            What `prepare` gave, and does not read the operand any more.
        operand
            Its position, or that of a list and the position in it.
        known
            What this gave for the same array before, of a call that may have packed it in the same way.

        Returns
        -------
        Callable or None
            It holds what it needs, and gives an array of the same memory order. None where that cannot be done, or saves little.
        """
        return None

    def joined(self, calls: list[tuple[Callable, list]], givens: list[tuple[list, int, Array]],
               keys: list[tuple[list, int]] = ()) -> list[tuple[Callable, list]]:
        """Fewer calls that do the same as these, which a plan repeats; or these.

        Parameters
        ----------
        calls
            (function, arguments and `out`): what `prepare` and `unchecked` gave, with arrays that stay where they are.
        givens
            (arguments, position, array): operands that are put there, into the arguments of one of the calls, before each repeat;
            they are then like that array, which has no contents.
        keys
            (arguments, position): random keys that are put there before each repeat, in the order of the calls; none unless `joins_draws`.
        """
        return calls

    def is_unshared(self, holder: list, index: int) -> bool:
        """True only where nothing but ``holder[index]`` refers to that array, and no other array to its memory."""
        return False

    def trim(self) -> None:
        """Give memory that no array uses back to whom it came from."""

    def memory_size(self) -> int | None:
        """Bytes of memory that one process may ever have here; None where that is not known."""
        return None

    def samples_at_once(self, memory: int, results: int, work: int) -> int:
        """How many samples of a batch a plan should compute at once: as many as possible, but see the CPU's.

        Parameters
        ----------
        memory
            Bytes in use at once, a sample.
        results
            Bytes of all intermediate results, a sample.
        work
            Multiply-adds, a sample.
        """
        return sys.maxsize

    def chains(self, geometries: tuple, batch: int) -> bool:
        """Whether a plan should run these convolutions, each of which reads only the one before, as one `conv2d_chain`.

        That pays where the maps in between are better not written to memory.
        """
        return False

    def activates(self) -> bool:
        """Whether a plan should run an activation behind a convolution or linear layer with it: `conv2d_activated`, `linear_activated`.

        That pays where it is applied before a result leaves the caches.
        """
        return False

    def pools(self, geometry, pooling, for_values: bool) -> bool:
        """Whether a plan should run this convolution and the max pooling behind it as one, and, unless `for_values`, their gradients too.

        That pays where the map in between takes longer to write and read than to compute.
        """
        return False

    joins_small_calls = False       # whether a plan should make one call of many small ones: where a call costs more than its work

    def takes_statistics(self, geometry, batch: int) -> bool:
        """Whether a plan should let this convolution take the statistics for the batch norm behind it: `conv2d_with_statistics`.

        That pays where they are taken before a result leaves the caches.
        """
        return False

    def preactivates(self, geometry, batch: int, in_training: bool) -> bool:
        """Whether a plan should let this convolution normalise and limit what it reads, in training its weight gradient too.

        That pays where they do so in the caches: `conv2d_preactivated`, `conv2d_preactivated_backward_weight`.
        """
        return False

    def room_for_channels(self, shape: tuple[int, ...], dtype: np.dtype) -> int:
        """How many channels a plan should give a channels-last map (N, C, H, W) room for, C at least.

        More than C pay where pixels would otherwise lie so far apart that they meet in one set of a cache.
        """
        return shape[1]

    def synchronize(self) -> None:
        """Wait until everything asked for so far is done."""

    def __repr__(self):
        return f"<backend {self.name}>"

    def __reduce__(self):
        from numbanet.backends import get_backend
        return get_backend, (self.name,)


def _bind_implementation(backend: Backend, declared: Primitive, implementation: Callable) -> Callable:
    specification, empty, count = declared.specification, backend.empty, len(declared.parameters)
    if declared.view or _writes_nothing(declared):
        def call(*args, out=None, **kwargs):
            if kwargs or len(args) != count:
                args = declared.bind(args, kwargs)
            specification(*args)
            result = implementation(*args)
            return result if out is None else backend.copy(result, out=out)
        return call

    def call(*args, out=None, **kwargs):
        if kwargs or len(args) != count:
            args = declared.bind(args, kwargs)
        spec = specification(*args)
        if type(spec) is ArraySpec:
            if out is None:
                out = empty(*spec)
            elif out.shape != spec.shape or out.dtype != spec.dtype:
                _check_out(declared, out, spec)
        elif out is None:
            out = tuple([None if s is None else empty(*s) for s in spec])
        else:
            for target, expected in zip(out, spec, strict=True):
                _check_out(declared, target, expected)
        implementation(*args, out)
        return out
    return call


def _check_out(declared: Primitive, out: Array, spec: ArraySpec | None) -> None:
    from numbanet.errors import ShapeError
    if spec is not None and (out is None or out.shape != spec.shape or out.dtype != spec.dtype):
        received = None if out is None else f"{out.shape} of {out.dtype}"
        raise ShapeError(f"{declared.name}: out expects shape {spec.shape} of {spec.dtype}, received {received}")
