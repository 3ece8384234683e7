"""Small layers as one function: the same numbers as one call after the other, over whatever each replay brings."""

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.backends import get_backend
from numbanet.backends.cpu import threads
from numbanet.backends.cpu.compile import JIT
from numbanet.backends.cpu.fused import max_pool2d_values_vectors
from numbanet.backends.cpu.program import Given, Program, joined
from numbanet.geometry import pool_geometry
from tests.backends.agreement import CASES, arguments_of

pytestmark = pytest.mark.skipif(not JIT, reason="needs compilation")


def images(*shape, seed=0):
    return numbanet.tensor(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def programs(compiled):
    return [function for function, _ in compiled.plan()._joined if isinstance(function, Program)]


def agrees(model, *shape):
    """The compiled model, which gives eager's numbers for several inputs, one in another memory order."""
    compiled = numbanet.compile(model.eval(), images(*shape))
    for seed in range(3):
        x = images(*shape, seed=seed)
        if seed == 2 and len(shape) == 4:
            x = numbanet.tensor(np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1))).permute(0, 3, 1, 2)
        with numbanet.no_grad():
            expected = model(x).numpy()
        np.testing.assert_allclose(compiled(x).numpy(), expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    return compiled


def test_lenet5_is_one_program():
    compiled = agrees(numbanet.create_model("lenet5"), 1, 1, 32, 32)
    (program,) = programs(compiled)
    assert len(program.calls) == 6 and len(compiled.plan()._joined) == 1


def test_bit_for_bit_what_the_single_calls_give():
    model, x = numbanet.create_model("lenet5").eval(), images(1, 1, 32, 32)
    compiled = numbanet.compile(model, x)
    together = compiled(x).numpy().copy()
    compiled.plan()._joined = compiled.plan()._steps
    assert compiled(x).numpy().tobytes() == together.tobytes()


def test_changed_weights_are_noticed():
    model, x = numbanet.create_model("lenet5").eval(), images(1, 1, 32, 32)
    compiled = numbanet.compile(model, x)
    before = compiled(x).numpy().copy()
    with numbanet.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
        np.testing.assert_allclose(compiled(x).numpy(), model(x).numpy(), rtol=0, atol=1e-5)
    assert np.abs(compiled(x).numpy() - before).max() > 1e-3 and len(programs(compiled)) == 1


def test_what_stands_in_between_is_called_in_its_place():
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 20, 3, padding=1), nn.Conv2d(20, 20, 3, stride=2)
            self.c, self.d = nn.Linear(20 * 9, 33), nn.Linear(33, 5)

        def forward(self, x):
            y = numbanet.relu(self.b(numbanet.relu(self.a(x))))
            y = numbanet.tanh(y)                            # no kernel of few elements
            return self.d(numbanet.relu(self.c(nn.functional.max_pool2d(y, 3, 2, 1).flatten(1))))
    compiled = agrees(Between(), 2, 3, 12, 11)
    assert len(programs(compiled)) == 2 and len(compiled.plan()._joined) > 2


def test_a_residual_a_dense_block_and_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(2, 18, 3, padding=1), nn.Conv2d(18, 18, 1), nn.Conv2d(36, 7, 1)

        def forward(self, x, other):
            y = numbanet.relu(self.b(self.a(x)) + self.a(other))
            return self.c(numbanet.cat([y, self.a(other)], 1))
    model, x, other = Two().eval(), images(1, 2, 6, 5), images(1, 2, 6, 5, seed=1)
    compiled = numbanet.compile(model, (x, other))
    for first, second in ((x, other), (other, x), (x, x)):
        with numbanet.no_grad():
            expected = model(first, second).numpy()
        np.testing.assert_allclose(compiled(first, second).numpy(), expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_large_layers_share_scratch_memory():
    """Of Winograd's algorithm and of gathered windows, on all threads."""
    layers = nn.Conv2d(20, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 48, 3, 2), nn.AvgPool2d(3), nn.Conv2d(48, 16, 3), nn.MaxPool2d(2)
    (program,) = programs(agrees(nn.Sequential(*layers), 3, 20, 50, 41))
    assert [in_parallel for *_, in_parallel in program.calls].count(True) == 3
    borrowed = [array for _, arguments, _ in program.calls for array in arguments
                if isinstance(array, np.ndarray) and array.ctypes.data == program.scratch.ctypes.data]
    assert len(borrowed) == 2 and max(array.nbytes for array in borrowed) == program.scratch.nbytes


def test_joined_leaves_single_and_unknown_calls():
    backend = get_backend("cpu")
    geometry = pool_geometry((5, 5), 2, 2)
    x, y = (np.ones((1, 3, n, n), np.float32).transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2) for n in (5, 2))
    pool, other = (backend.unchecked("max_pool2d_values"), [x, geometry, y]), (print, [])
    assert joined([pool]) == [pool] and joined([other, pool, other]) == [other, pool, other]
    first, (program, arguments), last = joined([other, pool, pool, other])
    assert first is other and last is other and arguments == () and [k for k, *_ in program.calls] == [max_pool2d_values_vectors] * 2


def test_operands_that_are_given_anew():
    backend = get_backend("cpu")
    geometry = pool_geometry((6, 6), 3, 1)
    y = backend.empty((2, 19, 4, 4), np.dtype(np.float32), (0, 2, 3, 1))
    example = backend.empty((2, 19, 6, 6), np.dtype(np.float32), (0, 2, 3, 1))
    call = [None, geometry, y]
    ((program, _),) = joined([(backend.unchecked("max_pool2d_values"), call)] * 2, [Given(call, 0, example)])
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((2, 6, 6, 19), dtype=np.float32).transpose(0, 3, 1, 2)
        call[0] = x
        program()
        np.testing.assert_array_equal(y, get_backend("reference").max_pool2d_values(x, geometry))


def lenet5_step(batch=9):
    numbanet.manual_seed(0)
    model = numbanet.create_model("lenet5")
    x, y = images(batch, 1, 32, 32), numbanet.tensor(np.arange(batch) % 10)
    optimizer = numbanet.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    step = numbanet.compile(model, (x, y), loss=nn.functional.cross_entropy, optimizer=optimizer)
    return model, step, (x, y)


def trained(steps=3, before_each=lambda i: None):
    model, step, inputs = lenet5_step()
    losses = []
    for i in range(steps):
        before_each(i)
        losses.append(step(*inputs).item())
    return losses, [p.detach().numpy().copy() for p in model.parameters()], step


def same_bits(a, b):
    assert a[0] == b[0] and all(x.tobytes() == y.tobytes() for x, y in zip(a[1], b[1], strict=True))


def test_training_is_programs_around_the_loss():
    *_, step = trained()
    found = programs(step)
    assert len(found) == 2 and len(step.plan()._joined) <= 6
    assert all(any(rest and rest[0] for _, _, *rest in program.calls) for program in found)


def test_training_gives_what_single_calls_give():
    together = trained()
    model, step, inputs = lenet5_step()
    step.plan().run_steps = lambda steps, nodes, backend: [function(*arguments) for function, arguments in steps]
    losses = [step(*inputs).item() for _ in range(3)]
    same_bits(together, (losses, [p.detach().numpy() for p in model.parameters()]))


def test_training_agrees_with_eager():
    losses, parameters, _ = trained()
    numbanet.manual_seed(0)
    model, x, y = numbanet.create_model("lenet5"), images(9, 1, 32, 32), numbanet.tensor(np.arange(9) % 10)
    optimizer = numbanet.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for expected in losses:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)
    for received, p in zip(parameters, model.parameters(), strict=True):
        np.testing.assert_allclose(received, p.detach().numpy(), rtol=0, atol=1e-5 * np.abs(received).max())


def test_the_number_of_threads_may_change_between_replays():
    one = trained()
    most = threads.maximum()
    try:
        same_bits(one, trained(before_each=lambda i: threads.set_num_threads(1 + i % most)))
    finally:
        threads.set_num_threads(most)


def test_a_serial_region_runs_programs_on_one_thread():
    one = trained()
    with threads.serial_region():
        same_bits(one, trained())


def test_callbacks_come_and_go():
    model, step, inputs = lenet5_step()
    step(*inputs)
    joined_before = len(step.plan()._joined)
    seen = []
    end = step.on_gradient(lambda p: seen.append(p.grad.numpy().copy()))
    step(*inputs)
    assert len(seen) == 10 and len(step.plan()._joined) > joined_before
    end()
    step(*inputs)
    assert len(seen) == 10 and len(step.plan()._joined) == joined_before


CPU = get_backend("cpu")
TELLING = sorted({case.primitive for case in CASES if hasattr(CPU.implementations.get(case.primitive), "kernels")})


@pytest.mark.parametrize("name", TELLING)
def test_programs_give_the_bits_of_calls(name):
    """Each primitive that tells its kernels, on each case whose kernels it tells, with results in their own order and in rows."""
    implementation, told = CPU.implementations[name], 0
    for case in CASES:
        arguments = arguments_of(case) if case.primitive == name else None
        if arguments is None or case.large:
            continue
        expected = getattr(CPU, name)(*arguments)
        wanted = expected if isinstance(expected, tuple) else (expected,)
        for order in "KC":
            made = tuple([None if a is None else np.full_like(a, 7, order=order) for a in wanted])
            out = made if isinstance(expected, tuple) else made[0]
            if implementation.kernels(*arguments, out) is None:
                continue
            Program([(implementation, [*arguments, out])])()
            assert all(a is None or a.tobytes() == b.tobytes() for a, b in zip(made, wanted)), (case.label, order)
            told += 1
    assert told
