"""A GPU that executes PTX, in NumPy: all threads of many blocks at once, one element of an array a thread.

Threads that stand at the same place run together, those that are furthest behind first, so that branches meet again where they can. What a
GPU would answer with an error, or with other numbers on another day, is a `Fault` here:

- global memory: accesses outside of an allocation, misaligned ones, reads of what nobody wrote; a place that two threads of a launch
  write with different values, or that one writes and another reads;
- shared memory: the same, and what one thread writes and another reads or writes with no barrier between; a copy that is on its way
  (`cp.async`) is a write from its start, and what it brings is there once its thread has waited;
- barriers that some threads of a block never reach, warps that do not come to `mma` or `ldmatrix` together;
- registers that are read before they are written, unless the number does not matter.

Addresses are above 2**32, so that one that was cut to 32 bits is found. A machine that `measures` counts, by kernel, what global memory
accesses cost (`traffic`: requests of warps, the sectors of 32 bytes that they touch, the bytes that threads asked for), and how many warps
ran each of its blocks of instructions (`runs`); `costs.py` makes a table of both.
"""

from __future__ import annotations

import numpy as np

from tests.backends.cuda.executed.code import DTYPES, NUMBERS, Program
from tests.backends.cuda.words import LANE, ROW, WORD, matrix_words, mma

BASE = 7 << 32              # the address of the first byte of global memory
GUARD = 512                 # bytes between allocations
SHARED_BASE = 1024          # as on sm_90, where the first kilobyte is the system's
WINDOWS = {"shared": 1 << 60, "local": 1 << 61}         # of generic addresses
AT_ONCE = 1 << 15           # threads
LONGEST = 10**6             # blocks of instructions, until a launch is taken for endless
EXISTS, WRITTEN = 1, 2      # of a byte
SEVERAL = -1


class Fault(AssertionError):
    """What a real GPU would answer with an error, or with wrong numbers."""


class Memory:
    """Global memory: allocations at addresses, with guard zones between."""

    def __init__(self, size: int = 1 << 29):
        self.bytes, self.state = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        self.words = {n: self.bytes.view(f"u{n}") for n in (1, 2, 4, 8)}
        self.states = {n: self.state.view(f"u{n}") for n in (1, 2, 4, 8)}
        self.shadows = {"word": Shadow(size // 4, 2), "byte": Shadow(size, 0)}
        self.used, self.sizes, self.unused = GUARD, {}, {}

    def allocate(self, size: int) -> int | None:
        """An address, None where there is no room."""
        room = -(-size // 256) * 256
        free = self.unused.get(room)
        if free:
            start = free.pop()
        else:
            start = -(-self.used // 256) * 256
            if start + room + GUARD > len(self.bytes):
                return None
            self.used = start + room + GUARD
        self.sizes[start], self.state[start:start + size] = size, EXISTS
        return BASE + start

    def free(self, address: int) -> None:
        start = address - BASE
        size = self.sizes.pop(start)
        self.state[start:start + size] = 0
        self.unused.setdefault(-(-size // 256) * 256, []).append(start)

    def range(self, address: int, size: int) -> slice:
        """Bytes that the host reads or writes."""
        start = address - BASE
        if size and not (self.state[start:start + size] & EXISTS).all():
            raise Fault("the host touches global memory outside of an allocation")
        return slice(start, start + size)

    def write(self, address: int, data: np.ndarray) -> None:
        place = self.range(address, data.nbytes)
        self.bytes[place], self.state[place] = data, EXISTS | WRITTEN

    def read(self, address: int, size: int) -> np.ndarray:
        return self.bytes[self.range(address, size)].copy()

    def copy(self, source: int, target: int, size: int) -> None:
        place = self.range(source, size)
        self.bytes[self.range(target, size)], self.state[self.range(target, size)] = self.bytes[place].copy(), self.state[place].copy()


class Shadow:
    """Who wrote and who read each granule of memory since a moment: numbers of threads from 1 on, `SEVERAL`."""

    def __init__(self, granules: int, shift: int):
        self.writer, self.reader, self.shift = np.zeros(granules, np.int32), np.zeros(granules, np.int32), shift
        self.touched = []

    def granules(self, place, size: int, thread) -> tuple[np.ndarray, np.ndarray]:
        """(granules of the accesses, whose they are), flat."""
        count = max(1, size >> self.shift)
        first = place >> self.shift
        return (first, thread) if count == 1 else ((first[:, None] + np.arange(count)).reshape(-1), np.repeat(thread, count))

    def reads(self, granules, thread) -> np.ndarray:
        """Note reads; which of them meet another thread's write."""
        writer, reader = self.writer[granules], self.reader[granules]
        self.touched.append(granules)
        self.reader[granules] = np.where((reader == 0) | (reader == thread), thread, SEVERAL)
        self.reader[granules[self.reader[granules] != thread]] = SEVERAL
        return (writer != 0) & (writer != thread)

    def writes(self, granules, thread) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Note writes; which of them meet another thread's read, its earlier write, its write by the same instruction."""
        writer, reader = self.writer[granules], self.reader[granules]
        self.touched.append(granules)
        self.writer[granules] = thread
        return (reader != 0) & (reader != thread), (writer != 0) & (writer != thread), self.writer[granules] != thread

    def forget(self, which=None) -> None:
        """Begin anew; `which` picks granules."""
        for granules in self.touched:
            granules = granules if which is None else granules[which(granules)]
            self.writer[granules] = self.reader[granules] = 0
        if which is None:
            self.touched = []


class Machine:
    """Runs launches of programs on a memory."""

    def __init__(self, memory: Memory, racing: set[str] = frozenset()):
        self.memory, self.symbols = memory, {}
        self.racing = racing                    # kernels whose threads may read what others write in the same launch
        self.measures, self.traffic, self.runs = False, {}, {}

    # --- launches ---

    def launch(self, program: Program, grid: tuple[int, int, int], threads: int, words, shared: int = 0) -> None:
        """Run all blocks of a grid. `words` are C numbers or their bytes, one a parameter."""
        kernel = program.kernel
        if len(words) != len(kernel.parameters):
            raise Fault(f"{kernel.name} has {len(kernel.parameters)} parameters, received {len(words)}")
        if not 0 < threads <= 1024 or min(grid) < 1 or grid[0] >= 1 << 31 or max(grid[1:]) > 65535:
            raise Fault(f"{kernel.name}: a grid of {grid} blocks of {threads} threads")
        self.program, self.threads = program, threads
        self.parameters = [np.frombuffer(bytes(w), NUMBERS[DTYPES[kind]])[0] for (kind, _), w in zip(kernel.parameters, words)]
        self.ntid, self.nctaid = np.uint32(threads), tuple(np.uint32(n) for n in grid)
        self._place_arrays(kernel, shared)
        count = grid[0] * grid[1] * grid[2]
        at_once = max(1, min(AT_ONCE // threads, (1 << 24) // max(self.shared_size, 1)))
        try:
            with np.errstate(all="ignore"):
                for first in range(0, count, at_once):
                    self._run(first, min(at_once, count - first), grid)
        finally:
            for shadow in self.memory.shadows.values():
                shadow.forget()

    def _place_arrays(self, kernel, dynamic: int) -> None:
        self.addresses, self.shared_size = {}, 0
        for name, array in sorted(kernel.arrays["shared"].items(), key=lambda item: item[1].size == 0):     # the dynamic one last
            start = -(-self.shared_size // array.align) * array.align
            self.addresses[name] = SHARED_BASE + start
            self.shared_size = start + (array.size or dynamic)
        self.shared_size, self.local_size = -(-self.shared_size // 16) * 16, 0
        for name, array in kernel.arrays["local"].items():
            start = -(-self.local_size // array.align) * array.align
            self.addresses[name], self.local_size = start, start + array.size
        self.local_size = -(-self.local_size // 16) * 16
        for name, array in kernel.arrays["global"].items():
            if array.content is not None:
                key = kernel.name, name
                if key not in self.symbols:
                    self.symbols[key] = self.memory.allocate(array.size)
                    self.memory.write(self.symbols[key], np.frombuffer(array.content.ljust(array.size, b"\0"), np.uint8))
                self.addresses[name] = self.symbols[key]

    def _run(self, first: int, blocks: int, grid) -> None:
        threads, T = self.threads, blocks * self.threads
        self.T, self.all = T, np.arange(T)
        self.number = (first * threads + 1 + self.all).astype(np.int32)            # of a thread in the launch, from 1 on
        self.tid, self.lane = np.tile(np.arange(threads, dtype=np.uint32), blocks), (self.all & 31).astype(np.uint32)
        self.block = np.repeat(np.arange(blocks), threads)
        block = first + self.block
        self.ctaid = tuple(x.astype(np.uint32) for x in (block % grid[0], block // grid[0] % grid[1], block // (grid[0] * grid[1])))
        self.shared, self.shared_state = np.zeros(blocks * self.shared_size, np.uint8), np.zeros(blocks * self.shared_size, np.uint8)
        self.local, self.local_state = np.zeros(T * self.local_size, np.uint8), np.zeros(T * self.local_size, np.uint8)
        self.shadow = Shadow(len(self.shared) // 2, 1)
        self.pending, self.group = [], np.zeros(T, np.int64)
        self.carry, self.passed = np.int64(0), {}
        registers = [None] * len(self.program.places)
        at, ends, functions = np.zeros(T, np.int64), self.program.ends, self.program.functions
        done = len(functions)
        waiting = np.zeros(T, bool)
        for _ in range(LONGEST):
            ready = np.where(waiting, done, at)
            here = int(ready.min())
            if here == done:
                if not waiting.any():
                    break
                self._pass_barrier(at, waiting, done)
                continue
            m = ready == here
            m = None if m.all() else m
            if self.measures:
                count = -(-T // 32) if m is None else len(np.unique(np.flatnonzero(m) >> 5))
                self.runs[self.program, here] = self.runs.get((self.program, here), 0) + count
            try:
                functions[here](registers, m, self)
            except (AttributeError, TypeError) as error:
                if "NoneType" in str(error):
                    raise Fault(f"{self.program.name}: a register is read before it is written") from error
                raise
            kind, guard, target = ends[here]
            taken = slice(None) if m is None else m
            if guard is not None:
                condition = np.broadcast_to(registers[guard[0]], (T,))
                condition = ~condition if guard[1] else condition
                at[taken] = here + 1
                taken = condition if m is None else condition & m
            if kind == "barrier":
                at[taken] = target
                waiting[taken] = True
            else:
                at[taken] = done if kind == "end" else target
        else:
            raise Fault(f"{self.program.name} does not end")
        if self.pending:
            raise Fault(f"{self.program.name}: a block ended while copies were on their way")

    def _pass_barrier(self, at, waiting, done) -> None:
        """All that can run have come to a barrier: those of a block have to be the same one, and all of them."""
        places, who = at.reshape(-1, self.threads), waiting.reshape(-1, self.threads)
        some = who.any(1)
        if not who[some].all():
            raise Fault(f"{self.program.name}: a barrier that {int((~who[some]).sum())} threads never reach")
        if (places[some] != places[some][:, :1]).any():
            raise Fault(f"{self.program.name}: threads of a block wait at different barriers")
        waiting[:] = False
        granules = self.shared_size // 2
        self.shadow.forget(None if some.all() else lambda g: some[g // granules])

    def unwritten(self, kind: str):
        """What a register holds that no thread has written."""
        return np.broadcast_to(NUMBERS[kind](0x5A if kind != "b1" else 0), (self.T,))

    # --- addresses ---

    def address_of(self, name: str) -> np.uint64:
        if name not in self.addresses:
            raise Fault(f"{self.program.name}: {name} is not declared")
        return np.uint64(self.addresses[name])

    def generic(self, space: str, address):
        return address + address.dtype.type(WINDOWS[space])

    def specific(self, space: str, address):
        return address - address.dtype.type(WINDOWS[space])

    def _threads_of(self, m) -> np.ndarray:
        return self.all if m is None else np.flatnonzero(m)

    def _resolve(self, space: str, address, who) -> tuple[str, np.ndarray]:
        address = np.broadcast_to(address, (self.T,))[who]
        if space == "generic":
            space = "global"
            for name in ("local", "shared"):
                if len(address) and address.min() >= WINDOWS[name]:
                    space, address = name, address - WINDOWS[name]
                    break
        return space, address

    def _in_place(self, space: str, address, size: int, who, what: str) -> np.ndarray:
        """Indices of bytes, checked but for whether they were written."""
        if (address % size).any():
            raise Fault(f"{self.program.name}: misaligned {what} of {size} bytes of {space} memory")
        if space == "global":
            place, limit = address - BASE, len(self.memory.bytes)
        elif space == "shared":
            place, limit = address - SHARED_BASE, self.shared_size
        else:
            place, limit = address, self.local_size
        wrong = (place < 0) | (place + size > limit)
        if space == "global" and not wrong.any():
            wrong = (self.memory.state[place] & self.memory.state[place + size - 1] & EXISTS) == 0
        if wrong.any():
            raise Fault(f"{self.program.name}: {what} of {size} bytes of {space} memory at {int(address[wrong][0]):#x}, outside of an "
                        f"array, by thread {int(who[wrong][0])}")
        if space == "shared":
            return place + self.block[who] * self.shared_size
        return place + who * self.local_size if space == "local" else place

    def _arrays(self, space: str) -> tuple[np.ndarray, np.ndarray]:
        if space == "global":
            return self.memory.bytes, self.memory.state
        return (self.shared, self.shared_state) if space == "shared" else (self.local, self.local_state)

    # --- loads and stores ---

    def load(self, space: str, address, kind, count: int, m) -> np.ndarray:
        """(count, threads): numbers at addresses."""
        who = self._threads_of(m)
        space, address = self._resolve(space, address, who)
        item = np.dtype(kind).itemsize
        size = item * count
        place = self._in_place(space, address, size, who, "load")
        self._note_read(space, place, size, who, "load")
        memory, state = self._arrays(space)
        index = (place // item) if count == 1 else (place // item)[None] + np.arange(count)[:, None]
        if (state.view(f"u{item}")[index] != _all_written(item)).any():
            raise Fault(f"{self.program.name}: load of {space} memory that nobody wrote")
        values = memory.view(kind)[index].reshape(count, len(who))
        if m is None:
            return values
        full = np.zeros((count, self.T), kind)
        full[:, who] = values
        return full

    def store(self, space: str, address, values: tuple, kind, m) -> None:
        """Numbers of threads to addresses."""
        who = self._threads_of(m)
        space, address = self._resolve(space, address, who)
        item, count = np.dtype(kind).itemsize, len(values)
        place = self._in_place(space, address, item * count, who, "store")
        values = np.stack([np.broadcast_to(v, (self.T,))[who] for v in values], 1)
        self._write(space, place, np.ascontiguousarray(values), who, "store")

    def _note_read(self, space: str, place, size: int, who, what: str) -> None:
        if space == "local":
            return
        if space == "global":
            self._measure(what, place, size, who)
            shadow = self.memory.shadows["word" if size >= 4 else "byte"]
        else:
            shadow = self.shadow
        if shadow.reads(*shadow.granules(place, size, self.number[who])).any() and self.program.name not in self.racing:
            raise Fault(f"{self.program.name}: {what} of {space} memory that another thread of the "
                        + ("launch writes" if space == "global" else "block wrote, with no barrier between"))

    def _note_write(self, space: str, place, size: int, who, what: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Of global memory, which accesses meet another thread's earlier write, and its write at once; None where none does."""
        if space == "global":
            self._measure(what, place, size, who)
            shadow = self.memory.shadows["word" if size >= 4 else "byte"]
        else:
            shadow = self.shadow
        read, earlier, at_once = shadow.writes(*shadow.granules(place, size, self.number[who]))
        if read.any() and self.program.name not in self.racing:
            raise Fault(f"{self.program.name}: {what} to {space} memory that another thread of the "
                        + ("launch reads" if space == "global" else "block has read, with no barrier between"))
        if not (earlier.any() or at_once.any()):
            return None
        if space == "shared":
            raise Fault(f"{self.program.name}: two threads of a block write to one place of shared memory with no barrier between")
        return earlier.reshape(len(who), -1).any(1), at_once.reshape(len(who), -1).any(1)

    def _write(self, space: str, place, values, who, what: str) -> None:
        """values (accesses, numbers of one dtype). Threads may write the same value to one place of global memory."""
        size, item = values.itemsize * values.shape[1], values.itemsize
        met = None if space == "local" else self._note_write(space, place, size, who, what)
        memory, state = self._arrays(space)
        index = (place // item)[:, None] + np.arange(values.shape[1])
        words, bits = memory.view(f"u{item}"), values.view(f"u{item}")
        differs = met is not None and (words[index] != bits)[met[0]].any()
        words[index], state.view(f"u{item}")[index] = bits, _all_written(item)
        if differs or met is not None and (words[index] != bits)[met[1]].any():
            raise Fault(f"{self.program.name}: two threads write different values to one place of global memory")

    def _measure(self, what: str, place, size: int, who) -> None:
        if self.measures and len(who):
            sectors = len(np.unique(((who >> 5) << 40) + (place >> 5)))
            found = self.traffic.setdefault((self.program.name, what), [0, 0, 0])
            for i, n in enumerate((len(np.unique(who >> 5)), sectors, size * len(who))):
                found[i] += n

    # --- asynchronous copies ---

    def copy_async(self, address, source, size: int, absent, m) -> None:
        """cp.async: bytes of global memory, or zeros for threads whose source is `absent`."""
        who = self._threads_of(m)
        target = self._in_place("shared", np.broadcast_to(address, (self.T,))[who], size, who, "copy")
        data = np.zeros((len(who), size), np.uint8)
        some = np.flatnonzero(~np.broadcast_to(absent, (self.T,))[who])
        if len(some):
            place = self._in_place("global", np.broadcast_to(source, (self.T,))[who][some], size, who[some], "copy")
            index = place[:, None] + np.arange(size)
            if (self.memory.state[index] != EXISTS | WRITTEN).any():
                raise Fault(f"{self.program.name}: copy of global memory that nobody wrote")
            data[some] = self.memory.bytes[index]
            self._note_read("global", place, size, who[some], "copy")
        self._note_write("shared", target, size, who, "copy")
        self.shared_state[target[:, None] + np.arange(size)] = EXISTS          # not there yet
        self.pending.append((who, self.group[who], target, data))

    def commit(self, m) -> None:
        self.group[self._threads_of(m)] += 1

    def wait(self, left: int, m) -> None:
        """Until all groups of a thread but the youngest `left` have arrived."""
        waits = np.zeros(self.T, bool)
        waits[self._threads_of(m)] = True
        still = []
        for who, group, target, data in self.pending:
            arrives = waits[who] & (group < self.group[who] - left)
            if arrives.any():
                index = target[arrives][:, None] + np.arange(data.shape[1])
                self._note_write("shared", target[arrives], data.shape[1], who[arrives], "copy")
                self.shared[index], self.shared_state[index] = data[arrives], EXISTS | WRITTEN
            if not arrives.all():
                stays = ~arrives
                still.append((who[stays], group[stays], target[stays], data[stays]))
        self.pending = still

    # --- warps ---

    def _whole_warps(self, m, what: str) -> np.ndarray:
        """The warps that run, whole."""
        if self.threads % 32:
            raise Fault(f"{self.program.name}: {what} in blocks of {self.threads} threads")
        if m is None:
            return np.arange(self.T // 32)
        lanes = m.reshape(-1, 32)
        if (lanes.any(1) != lanes.all(1)).any():
            raise Fault(f"{self.program.name}: {what} that some lanes of a warp do not come to")
        return np.flatnonzero(lanes[:, 0])

    def mma(self, kind: str, words: tuple, m) -> list:
        self._whole_warps(m, "mma")
        each = [np.ascontiguousarray(np.broadcast_to(w, (self.T,))) for w in words]
        return mma(kind, each[:4], each[4:6], each[6:])

    def of_other_lane(self, words, distance, m) -> np.ndarray:
        """shfl.bfly: each lane's word is that of the lane whose number differs by the bits of `distance`."""
        self._whole_warps(m, "shfl")
        giver = (self.all & ~31) + ((self.lane ^ np.broadcast_to(distance, (self.T,))) & 31).astype(np.int64)
        return np.broadcast_to(words, (self.T,))[giver]

    def ldmatrix(self, address, count: int, trans: bool, m) -> np.ndarray:
        warps = self._whole_warps(m, "ldmatrix")
        givers = (32 * warps[:, None] + np.arange(8 * count)).reshape(-1)                 # the other lanes' addresses are not used
        place = self._in_place("shared", np.broadcast_to(address, (self.T,))[givers], 16, givers, "ldmatrix")
        if (self.shared_state[place[:, None] + np.arange(16)] != EXISTS | WRITTEN).any():
            raise Fault(f"{self.program.name}: ldmatrix of shared memory that nobody wrote")
        start = place.reshape(len(warps), count, 8)
        readers = np.broadcast_to(32 * warps[:, None, None] + LANE, (len(warps), count, 32)).reshape(-1)
        for half in range(2):                                                              # whoever receives a number reads it
            row, column = (2 * WORD + half, ROW) if trans else (ROW, 2 * WORD + half)
            self._note_read("shared", (start[:, :, row] + 2 * column).reshape(-1), 2, readers, "ldmatrix")
        rows = self.shared[place[:, None] + np.arange(16)].view(np.uint16).reshape(len(warps), count, 8, 8)
        words = np.zeros((count, self.T // 32, 32), np.uint32)
        words[:, warps] = matrix_words(rows, trans).transpose(1, 0, 2)
        return words.reshape(count, self.T)


def _all_written(item: int) -> int:
    return int.from_bytes(bytes([EXISTS | WRITTEN] * item), "little")
