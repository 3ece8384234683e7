"""Calls of primitives written down once and replayed: what a compiled plan runs in place of Python.

    joined(backend, calls, givens, keys)        (function, arguments) pairs -> fewer of them that do the same

While a thread records, its launches are kept instead of done (`driver.Queue`), arguments and addresses laid out; a replay hands them to the
driver one after the other, or, from the second one on, as one CUDA graph. What a primitive allocates meanwhile comes from a pool that
belongs to the program, so that nobody else is given that memory between two replays. What a plan is given anew in each replay is copied to
a place of its own first, since a graph holds addresses. So are the keys of random numbers: kernels find them in the GPU's memory, where
each replay puts the plan's new ones, so that it draws what an eager run would draw.

What cannot be written down stays a call: a primitive that reads a value back or uploads one. Learning rates and steps are the optimiser's,
which is no part of a plan. Checks of losses, whether a label is a class, are made after the program instead of amid it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager

import numpy as np

from numbanet.backends.cuda.driver import NotRecordable
from numbanet.backends.cuda.memory import Allocator
from numbanet.backends.philox import key_words

WORD = np.dtype(np.uint64)          # of a key, see `key_words`


class Pool(Allocator):
    """Memory of a program's own: blocks that another allocator lends it as long as it lives."""

    def __init__(self, parent: Allocator):
        super().__init__(parent.device)
        self._parent, self._lent = parent, []

    def _allocate(self, size: int):
        self._lent.append(self._parent.take(size))
        return self._lent[-1].handle

    def trim(self) -> int:
        """Nothing: the memory is the parent's."""
        return 0


class Recording:
    """What one thread asks of a device, in order."""

    def __init__(self, pool: Pool):
        self.pool, self.calls, self.checks, self.kept = pool, [], [], []

    def keep(self, array) -> None:
        """Let an array live as long as the recording."""
        self.kept.append(array)

    @contextmanager
    def of(self, device):
        """Record what the calling thread asks of a device; what was asked for in vain is forgotten."""
        before = len(self.calls), len(self.checks)
        device.recording = self
        try:
            yield
        except BaseException:
            del self.calls[before[0]:], self.checks[before[1]:]
            raise
        finally:
            device.recording = None


class Program:
    """Recorded calls, replayed by a call without arguments.

    Parameters
    ----------
    device
    recording : Recording
    inputs : list of (arguments of a call, position, array)
        Where each replay finds an operand, and the array that stands for it in the recorded calls.
    keys : list of (arguments of a call, position)
        Where each replay finds its random keys.
    words : DeviceArray (keys, 4)
        Where the recorded calls read them.
    """

    def __init__(self, device, recording: Recording, inputs: list[tuple[list, int, object]], keys=(), words=None):
        self.device, self.recording, self._keys, self._words = device, recording, keys, words
        self._inputs = [(arguments, position, array) for arguments, position, array in inputs if array.size]
        self._replays, self._graph, self._stream = 0, None, device.stream

    def __call__(self) -> None:
        device = self.device
        device.activate()
        if device.stream != self._stream:               # its memory is in use there
            device.wait_for(self._stream, device.stream)
            self._stream = device.stream
        for arguments, position, array in self._inputs:
            given = arguments[position]
            device.copy(device.address(given.lease.handle) + given.offset, device.address(array.lease.handle) + array.offset, array.nbytes)
        if self._keys:
            words = np.array([key_words(arguments[position]) for arguments, position in self._keys])
            device.upload(self._words.lease.handle, self._words.offset, words.reshape(-1).view(np.uint8))
        if self._graph is None and self._replays and use_graphs():
            self._graph = device.capture(self.recording.calls)
        self._replays += 1
        if self._graph is not None:
            device.submit(self._graph)
        else:
            for call in self.recording.calls:
                device.submit(call)
        for check in self.recording.checks:
            check()


def joined(backend, calls: Sequence[tuple[Callable, Sequence]], givens: Sequence[tuple[list, int, object]],
           keys: Sequence[tuple[list, int]] = ()) -> list[tuple]:
    """Runs of calls that can be recorded become programs; the others stay. See `Backend.joined`.

    Calls without arguments tell others that a result is known. They come last: a program does not stop for them.
    """
    device, pool = backend.device, Pool(backend.allocator)
    done, told, recording, inputs, drawn = [], [], Recording(pool), [], []
    words = backend.allocator.empty((len(keys), 4), WORD) if keys else None     # of all keys; a program has those of rows on end
    rows = {id(arguments): row for row, (arguments, _) in enumerate(keys)}

    def finish():
        nonlocal recording, inputs, drawn
        if recording.calls or recording.checks:
            mine = words.view((len(drawn), 4), words.strides, rows[id(drawn[0][0])] * words.strides[0]) if drawn else None
            done.append((Program(device, recording, list({id(a): (g, p, a) for g, p, a in inputs}.values()), drawn, mine), ()))
        recording, inputs, drawn = Recording(pool), [], []

    for function, arguments in calls:
        if not len(arguments):
            told.append((function, arguments))
            continue
        mine = [given for given in givens if given[0] is arguments]
        operands = list(arguments)
        for _, position, array in mine:
            operands[position] = array
        row = rows.get(id(arguments))
        if row is not None:
            operands[keys[row][1]] = words.view((4,), words.strides[1:], row * words.strides[0])
        try:
            with recording.of(device):
                function(*operands)
            inputs += mine
            drawn += [keys[row]] if row is not None else []
        except NotRecordable:
            finish()
            done.append((function, arguments))
    finish()
    return done + told


def use_graphs() -> bool:
    """Whether programs are replayed as CUDA graphs: unless NUMBANET_CUDA_GRAPHS is 0."""
    return os.environ.get("NUMBANET_CUDA_GRAPHS") != "0"
