"""Convolution: bad input, edges, memory orders, and that neither threads nor memory change a bit."""

import numpy as np
import pytest

import numbanet
import numbanet.functional as F
from numbanet.autograd.grad_mode import no_grad
from numbanet.backends import get_backend
from numbanet.backends.precision import get_float32_precision, set_float32_precision
from numbanet.errors import DTypeError, ShapeError, UsageError
from numbanet.geometry import conv_geometry
from tests.cases.case import channels_last, floats, integers, strided


@pytest.fixture
def strict():
    before = get_float32_precision()
    set_float32_precision("strict")
    yield
    set_float32_precision(before)


def _zeros(*shape, dtype=np.float32, device="cpu"):
    return numbanet.tensor(np.zeros(shape, dtype), device=device)


@pytest.mark.parametrize("function, x, weight, options, message", [
    (F.conv2d, (1, 3, 5, 5), (4, 2, 3, 3), {}, r"conv2d: weight expects 2 input channels, x has 3"),
    (F.conv2d, (1, 4, 5, 5), (4, 4, 3, 3), {"groups": 2}, r"conv2d: weight expects 8 input channels, x has 4"),
    (F.conv2d, (1, 4, 5, 5), (3, 2, 3, 3), {"groups": 2}, r"groups expects a divisor of 4 input channels and of 3"),
    (F.conv2d, (1, 2, 3, 9), (4, 2, 5, 5), {}, r"output would be of size \(-1, 5\)"),
    (F.conv2d, (3, 5), (4, 3, 3, 3), {}, r"expected x \(N, C, H, W\) and weight with 4 dimensions"),
    (F.conv2d, (1, 2, 5, 5), (4, 2, 3), {}, r"weight with 4 dimensions, received \(1, 2, 5, 5\) and \(4, 2, 3\)"),
    (F.conv2d, (1, 2, 5, 5), (4, 2, 3, 3), {"stride": 0}, r"stride expects values of at least 1"),
    (F.conv2d, (1, 2, 5, 5), (4, 2, 3, 3), {"padding": -1}, r"padding expects values of at least 0"),
    (F.conv2d, (1, 2, 5, 5), (4, 2, 3, 3), {"padding": "same", "stride": 2}, r"padding='same' expects stride 1"),
    (F.conv2d, (1, 2, 5, 5), (4, 2, 3, 3), {"padding": "full"}, r"padding expects numbers, 'same' or 'valid'"),
    (F.conv2d, (1, 2, 5, 5), (4, 2, 3, 3), {"stride": (1, 2, 3)}, r"stride expects an int or 2 ints"),
    (F.conv1d, (1, 3, 5, 5), (4, 3, 3), {}, r"conv1d: expected x \(N, C, L\)"),
    (F.conv1d, (1, 3, 5), (4, 3, 3), {"dilation": 3}, r"conv1d: the output would be of size \(-1,\)"),
    (F.conv3d, (1, 3, 5, 5, 5), (4, 2, 3, 3, 3), {}, r"conv3d: weight expects 2 input channels"),
    (F.conv_transpose2d, (1, 3, 5, 5), (4, 2, 3, 3), {}, r"conv_transpose2d: weight expects 4 input channels, x has 3"),
    (F.conv_transpose2d, (1, 4, 5, 5), (4, 2, 3, 3), {"output_padding": 1}, r"output_padding expects values below"),
    (F.conv_transpose2d, (1, 4, 1, 1), (4, 2, 3, 3), {"padding": 2}, r"output would be of size \(-1, -1\)"),
    (F.conv_transpose2d, (1, 4, 3, 3), (4, 2, 3, 3), {"groups": 3}, r"groups expects a divisor"),
    (F.conv_transpose2d, (1, 2, 3, 3), (2, 2, 3, 3), {"dilation": 2, "output_padding": 1}, r"no window reaches"),
    (F.conv_transpose1d, (1, 4, 3, 3), (4, 2, 3), {}, r"conv_transpose1d: expected x \(N, C, L\)"),
])
def test_bad_shapes(function, x, weight, options, message):
    with pytest.raises(ShapeError, match=message):
        function(_zeros(*x), _zeros(*weight), **options)


@pytest.mark.parametrize("function, weight", [(F.conv2d, (4, 2, 3, 3)), (F.conv_transpose2d, (2, 4, 3, 3))])
def test_bad_bias(function, weight):
    with pytest.raises(ShapeError, match=r"bias expects shape \(4,\), received \(3,\)"):
        function(_zeros(1, 2, 5, 5), _zeros(*weight), _zeros(3))


def test_bad_dtypes():
    with pytest.raises(DTypeError, match="x expects float32 or float64, received int32"):
        F.conv2d(_zeros(1, 2, 5, 5, dtype=np.int32), _zeros(4, 2, 3, 3))
    with pytest.raises(DTypeError, match="weight expects float32 like x, received float64"):
        F.conv2d(_zeros(1, 2, 5, 5), _zeros(4, 2, 3, 3, dtype=np.float64))


def test_empty_batch(backend):
    x = numbanet.tensor(np.zeros((0, 2, 5, 5), np.float32), device=backend, requires_grad=True)
    weight = numbanet.tensor(np.ones((3, 2, 3, 3), np.float32), device=backend, requires_grad=True)
    bias = numbanet.tensor(np.ones(3, np.float32), device=backend, requires_grad=True)
    y = F.conv2d(x, weight, bias)
    assert y.shape == (0, 3, 3, 3)
    y.backward(numbanet.tensor(np.zeros(y.shape, np.float32), device=backend))
    assert x.grad.shape == x.shape
    assert not weight.grad.numpy().any() and not bias.grad.numpy().any()


def test_gradients_that_nobody_needs_are_not_computed(rng, monkeypatch):
    x = numbanet.tensor(floats(rng, 1, 2, 4, 4))
    weight = numbanet.tensor(floats(rng, 3, 2, 3, 3), requires_grad=True)
    y = F.conv2d(x, weight)

    def fail(*_):
        raise AssertionError("the image's gradient was computed")
    monkeypatch.setattr(get_backend("cpu"), "conv2d_backward_input", fail)
    y.backward(numbanet.tensor(np.ones(y.shape, np.float32)))
    assert weight.grad is not None and x.grad is None


def test_nan_and_infinity_stay_in_the_windows_that_read_them(backend):
    x = np.zeros((1, 17, 8, 9), np.float32)
    x[0, 3, 2, 5], x[0, 16, 7, 0] = np.nan, np.inf
    with no_grad():
        y = F.conv2d(numbanet.tensor(x, device=backend),
                     numbanet.tensor(np.ones((5, 17, 3, 3), np.float32), device=backend), padding=1).numpy()
    expected = np.zeros(y.shape, np.float32)
    expected[:, :, 1:4, 4:7], expected[:, :, 6:, :2] = np.nan, np.inf
    np.testing.assert_array_equal(y, expected)


def test_outputs_are_channels_last(backend, rng):
    with no_grad():
        y = F.conv2d(numbanet.tensor(floats(rng, 2, 3, 6, 5), device=backend),
                     numbanet.tensor(floats(rng, 4, 3, 3, 3), device=backend))
    assert y.shape == (2, 4, 4, 3) and y.stride() == (48, 1, 12, 4)


@pytest.mark.parametrize("geometry", [
    conv_geometry(17, 20, (6, 7), (3, 3), 2, 1), conv_geometry(18, 18, (6, 7), (3, 3), 1, 1, groups=18),
    conv_geometry(20, 17, (6, 7), (3, 3), 1, 1)], ids=["strided", "depthwise", "mirrored"])
def test_any_output_memory(geometry, rng):
    """A slice of a larger map and a row-major array, both full of NaN, receive the same bits as a fresh array."""
    cpu = get_backend("cpu")
    weight = floats(rng, *geometry.weight_shape)
    x = channels_last(floats(rng, 2, geometry.channels, *geometry.input_size))
    grad_y = channels_last(floats(rng, 2, geometry.filters, *geometry.output_size))
    for call in (lambda **out: cpu.conv2d_forward(x, weight, None, geometry, **out),
                 lambda **out: cpu.conv2d_backward_input(grad_y, weight, geometry, **out),
                 lambda **out: cpu.conv2d_backward_weight(grad_y, x, geometry, **out)):
        expected = call()
        wide = np.full((expected.shape[0], *expected.shape[2:], expected.shape[1] + 5), np.nan, np.float32)
        slot = np.moveaxis(wide, -1, 1)[:, 2:-3]
        for out in (slot, np.full(expected.shape, np.nan, np.float32)):
            np.testing.assert_array_equal(call(out=out), expected)
        assert np.isnan(wide[..., :2]).all() and np.isnan(wide[..., -3:]).all()


def test_inputs_of_any_memory_order_give_the_same_bits(rng):
    cpu, g = get_backend("cpu"), conv_geometry(19, 21, (7, 6), (3, 3), 1, 1)
    x, weight, grad_y = floats(rng, 2, 19, 7, 6), floats(rng, *g.weight_shape), floats(rng, 2, 21, 7, 6)
    expected = cpu.conv2d_forward(channels_last(x), weight, None, g), cpu.conv2d_backward_weight(grad_y, x, g)
    backwards = np.ascontiguousarray(x[::-1, :, ::-1, ::-1])[::-1, :, ::-1, ::-1]
    padded = channels_last(np.pad(x, ((0, 0), (1, 2), (1, 1), (0, 3))))[:, 1:-2, 1:-1, :-3]
    for same in (x, strided(x), backwards, padded):
        np.testing.assert_array_equal(cpu.conv2d_forward(same, strided(weight), None, g), expected[0])
        np.testing.assert_array_equal(cpu.conv2d_backward_weight(strided(grad_y), same, g), expected[1])


@pytest.mark.parametrize("geometry", [
    conv_geometry(1, 6, (16, 16), (5, 5)), conv_geometry(32, 40, (14, 14), (3, 3), 1, 1),
    conv_geometry(40, 24, (15, 14), (3, 3), 2, 1), conv_geometry(32, 32, (14, 14), (3, 3), 1, 1, groups=32),
    conv_geometry(32, 32, (14, 14), (3, 3), 1, 1, groups=8), conv_geometry(32, 40, (20, 20), (3, 3), 1, 1)],
    ids=["first-layer", "mirrored", "strided", "depthwise", "small-groups", "winograd"])
def test_same_bits_at_every_thread_count(geometry, rng):
    from numbanet.backends.cpu import threads
    cpu = get_backend("cpu")
    x, weight = floats(rng, 5, geometry.channels, *geometry.input_size), floats(rng, *geometry.weight_shape)
    bias, grad_y = floats(rng, geometry.filters), floats(rng, 5, geometry.filters, *geometry.output_size)

    def passes():
        return (cpu.conv2d_forward(x, weight, bias, geometry), cpu.conv2d_backward_input(grad_y, weight, geometry),
                cpu.conv2d_backward_weight(grad_y, x, geometry), cpu.conv2d_backward_bias(grad_y))
    before, results = threads.get_num_threads(), []
    try:
        for count in range(1, threads.maximum() + 1):
            threads.set_num_threads(count)
            results.append(passes())
    finally:
        threads.set_num_threads(before)
    for other in results[1:]:
        for first, second in zip(results[0], other):
            np.testing.assert_array_equal(first, second)


def test_torch_at_the_size_of_real_layers(rng, strict):
    """Several panels, jobs and parts of every kernel; small integers, so bit for bit."""
    torch = pytest.importorskip("torch")
    for g in (conv_geometry(64, 96, (28, 28), (3, 3), 1, 1), conv_geometry(96, 64, (28, 28), (3, 3), 2, 1),
              conv_geometry(3, 32, (64, 64), (7, 7), 2, 3), conv_geometry(64, 64, (20, 20), (3, 3), 1, 1, groups=8)):
        x, weight = integers(rng, 4, g.channels, *g.input_size), integers(rng, *g.weight_shape)
        bias, grad_y = integers(rng, g.filters), integers(rng, 4, g.filters, *g.output_size)
        mine = [numbanet.tensor(a, requires_grad=True) for a in (x, weight, bias)]
        theirs = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
        options = {"stride": g.stride, "padding": g.padding[0][0], "groups": g.groups}
        y, expected = F.conv2d(*mine, **options), torch.nn.functional.conv2d(*theirs, **options)
        y.backward(numbanet.tensor(grad_y))
        expected.backward(torch.tensor(grad_y))
        np.testing.assert_array_equal(y.detach().numpy(), expected.detach().numpy())
        for a, b in zip(mine, theirs):
            np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())


@pytest.mark.parametrize("batch, geometry", [
    (6, conv_geometry(33, 45, (17, 22), (3, 3), 1, 1)), (7, conv_geometry(64, 32, (15, 17), (3, 3), 1, ((0, 2), (2, 0)))),
    (6, conv_geometry(32, 65, (20, 18), (3, 3))), (5, conv_geometry(33, 45, (15, 18), (5, 5), 1, 2)),
    (4, conv_geometry(40, 32, (19, 16), (5, 5), 1, ((1, 2), (3, 0)))),
    (5, conv_geometry(16, 16, (15, 18), (3, 3), 1, 1)), (3, conv_geometry(17, 48, (15, 17), (5, 5), 1, 2))])
def test_winograd_agrees_with_the_direct_product(batch, geometry, rng, strict):
    """Ragged tiles, lanes and strips, padding on any side; in both passes that have the algorithm."""
    cpu = get_backend("cpu")
    x, weight = channels_last(floats(rng, batch, geometry.channels, *geometry.input_size)), floats(rng, *geometry.weight_shape)
    bias, grad_y = floats(rng, geometry.filters), channels_last(floats(rng, batch, geometry.filters, *geometry.output_size))

    def passes():
        outs = (np.full((batch, geometry.filters, *geometry.output_size), np.nan, np.float32),
                np.full(x.shape, np.nan, np.float32))
        return (cpu.conv2d_forward(x, weight, bias, geometry, out=outs[0]),
                cpu.conv2d_backward_input(grad_y, weight, geometry, out=outs[1]))
    direct = passes()
    set_float32_precision("fast")
    for fast, exact in zip(passes(), direct):
        assert (fast != exact).any(), "the algorithm was not used"
        assert np.linalg.norm(fast - exact) <= 4e-6 * np.linalg.norm(exact)


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="expected 'strict' or 'fast', received 'double'"):
        set_float32_precision("double")
