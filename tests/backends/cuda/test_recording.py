"""Recorded calls on a driver over host memory: what is laid out, what is replayed, what stays a call."""

import numpy as np
import pytest

from numbanet.backends.cuda import driver, memory, recording
from numbanet.backends.cuda.constants import on_device
from numbanet.backends.philox import key_words

FLOAT32 = np.dtype(np.float32)


@pytest.fixture
def backend(fake):
    from types import SimpleNamespace
    allocator = memory.Allocator(driver.Device(0))
    return SimpleNamespace(device=allocator.device, allocator=allocator)


def launching(backend, name, *, temporary=False, told=None):
    """A primitive that launches a kernel called `name`; where it has a temporary, its address goes into `told`."""
    def primitive(*arrays):
        if temporary:
            made = backend.allocator.empty((1000,), FLOAT32)
            told.append(made.pointer)
        backend.device.launch(name, (1, 1, 1), 32, driver.Parameters((), ()))
    return primitive


def test_the_first_replay_launches_and_later_ones_are_graphs(fake, backend):
    x = backend.allocator.empty((4,), FLOAT32)
    (program, nothing), = recording.joined(backend, [(launching(backend, n), [x]) for n in "abc"], [])
    assert nothing == () and fake.launched == []
    for replay in range(3):
        program()
        assert [launch[0] for launch in fake.launched] == ["a", "b", "c"] * (replay + 1)
        assert fake.graphs == max(replay, 0)
        assert all(launch[4] == backend.device.stream for launch in fake.launched)
    assert fake.calls.count("cuGraphInstantiate") == fake.calls.count("cuGraphDestroy") == 1
    del program
    assert fake.destroyed == 1


def test_graphs_can_be_switched_off(fake, backend, monkeypatch):
    monkeypatch.setenv("NUMBANET_CUDA_GRAPHS", "0")
    (program, _), = recording.joined(backend, [(launching(backend, "a"), [backend.allocator.empty((4,), FLOAT32)])], [])
    for _ in range(3):
        program()
    assert len(fake.launched) == 3 and fake.graphs == 0


def test_what_reads_back_or_uploads_stays_a_call(fake, backend):
    x, seen = backend.allocator.empty((4,), FLOAT32), []

    def reads(array):
        backend.device.launch("forgotten", (1, 1, 1), 32, driver.Parameters((), ()))
        backend.allocator.to_numpy(array)
        seen.append(1)

    def uploads(array):
        backend.allocator.from_numpy(np.ones(4, np.float32))
        seen.append(2)
    steps = recording.joined(backend, [(launching(backend, "a"), [x]), (reads, [x]), (uploads, [x]), (launching(backend, "b"), [x])], [])
    assert len(steps) == 4 and steps[1] == (reads, [x]) and steps[2] == (uploads, [x]) and seen == []
    for function, arguments in steps:
        function(*arguments)
    assert [launch[0] for launch in fake.launched] == ["a", "forgotten", "b"] and seen == [1, 2]


def test_temporaries_are_the_programs_own(fake, backend):
    """Calls of a program share them in order, nobody else is given them, and they go back with the program."""
    told = []
    x = backend.allocator.empty((4,), FLOAT32)
    before = backend.allocator.statistics().in_use
    steps = recording.joined(backend, [(launching(backend, "a", temporary=True, told=told), [x])] * 2, [])
    assert told[0] == told[1]
    others = [backend.allocator.empty((1000,), FLOAT32) for _ in range(4)]
    assert told[0] not in [other.pointer for other in others]
    del others, steps
    assert backend.allocator.statistics().in_use == before
    assert backend.allocator.empty((1000,), FLOAT32).pointer


def test_inputs_are_copied_to_their_place(fake, backend):
    example, arguments, seen = backend.allocator.empty((4,), FLOAT32), [None], []

    def primitive(x):
        seen.append(x)
        backend.device.launch("a", (1, 1, 1), 32, driver.Parameters((), ()))
    (program, _), = recording.joined(backend, [(primitive, arguments)], [(arguments, 0, example)])
    assert seen == [example]
    for values in ([1, 2, 3, 4], [5, 6, 7, 8]):
        arguments[0] = backend.allocator.from_numpy(np.array(values, np.float32))
        program()
        np.testing.assert_array_equal(backend.allocator.to_numpy(example), values)


def test_keys_are_in_memory_before_each_replay(fake, backend):
    """All keys of a program by one upload, as a kernel finds them; one that is used between two programs stays as it is."""
    keys, found = [[None], [None], [None]], []

    def draws(key):
        found.append(key)
        backend.device.launch("draw", (1, 1, 1), 32, driver.Parameters((), ()))

    def reads(key):
        backend.device.refuse_recording("a value that is read back")
        found.append(key)
    calls = [(launching(backend, "a"), [0]), (draws, keys[0]), (draws, keys[1]), (reads, keys[2]), (draws, keys[0])]
    steps = recording.joined(backend, calls, [], [(key, 0) for key in keys])
    assert [type(step) for step, _ in steps] == [recording.Program, type(reads), recording.Program]
    for turn in range(3):
        for i, key in enumerate(keys):
            key[0] = (turn + (i << 40), (turn << 33) + i)
        uploads = fake.calls.count("cuMemcpyHtoDAsync")
        for function, arguments in steps:
            function(*arguments)
        assert fake.calls.count("cuMemcpyHtoDAsync") == uploads + 2 and found[-1] == keys[2][0]
        for array, i in zip(found[:3], (0, 1, 0)):
            np.testing.assert_array_equal(backend.allocator.to_numpy(array), key_words(keys[i][0]))
    assert fake.graphs == 4 and "cuGraphLaunch" in fake.calls


def test_checks_come_after_the_program_and_messengers_last(fake, backend):
    order, x = [], backend.allocator.empty((4,), FLOAT32)

    def checked(array):
        backend.device.launch("a", (1, 1, 1), 32, driver.Parameters((), ()))
        backend.device.check(lambda: order.append(("check", len(fake.launched))))
    steps = recording.joined(backend, [(checked, [x]), (lambda: order.append("told"), ()), (launching(backend, "b"), [x])], [])
    for function, arguments in steps:
        function(*arguments)
    assert order == [("check", 2), "told"]
    checked(x)
    assert order[-1] == ("check", 3), "at once where nothing is recorded"


def test_tables_are_uploaded_while_recording_and_kept(fake, backend):
    def primitive(x):
        table = on_device(backend.allocator, np.arange(5))
        np.testing.assert_array_equal(x, x)
        backend.device.launch("a", (1, 1, 1), 32, driver.Parameters((), ()))
        kept.append(table.pointer)
    kept = []
    (program, _), = recording.joined(backend, [(primitive, [0])], [])
    assert program.recording.kept[0].pointer == kept[0]
    np.testing.assert_array_equal(backend.allocator.to_numpy(program.recording.kept[0]), np.arange(5))


def test_errors_of_a_primitive_end_the_recording(fake, backend):
    def wrong(x):
        raise ValueError("wrong")
    with pytest.raises(ValueError, match="wrong"):
        recording.joined(backend, [(wrong, [0])], [])
    assert backend.device.recording is None
