"""Saliency, SmoothGrad, integrated gradients, guided backpropagation, occlusion: the facts that define them."""

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import ShapeError, UsageError
from numbanet.vision import (
    METHODS,
    ClassifierOutputTarget,
    GradCAM,
    GuidedBackprop,
    IntegratedGradients,
    Occlusion,
    Saliency,
    SmoothGrad,
    explain,
)
from tests.vision.conftest import on

LINEAR = np.arange(2 * 3 * 20 * 17, dtype=np.float64).reshape(2, 3, 20, 17) % 7 - 3


class Linear(nn.Module):
    """Two classes whose scores are sums of weighted pixels."""

    def __init__(self, device="cpu"):
        super().__init__()
        self.weight = nn.Parameter(numbanet.tensor(LINEAR.astype(np.float32), device=device))

    def forward(self, x):
        return (x.unsqueeze(1) * self.weight.unsqueeze(0)).sum((2, 3, 4))


@pytest.mark.parametrize("kind", [Saliency, SmoothGrad, IntegratedGradients])
def test_a_linear_network(kind, images, backend):
    """The gradient is the weight, with noise as without; attributions of integrated gradients are weight times pixel."""
    x = on(backend, images)
    found = kind(Linear(backend)).attribute(x, [ClassifierOutputTarget(1), ClassifierOutputTarget(0)]).numpy()
    expected = LINEAR[::-1] * (images if kind is IntegratedGradients else 1)
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_saliency_is_the_gradient(network, images, backend):
    """By differences: the score changes along a direction as the attribution says."""
    model = network(backend).to(numbanet.float64)
    x, step = images.astype(np.float64), 1e-6
    direction = np.random.default_rng(1).standard_normal(x.shape)
    found = Saliency(model).attribute(on(backend, x), [ClassifierOutputTarget(4)] * 2).numpy()
    with numbanet.no_grad():
        after, before = (model(on(backend, x + s * step * direction)).numpy()[:, 4] for s in (1, -1))
    np.testing.assert_allclose((found * direction).sum((1, 2, 3)), (after - before) / (2 * step), rtol=1e-5)


@pytest.mark.parametrize("baseline", [0.0, -1.5, "noise"])
def test_integrated_gradients_are_complete(network, images, backend, baseline, rng):
    """They sum to the rise of the score; `delta` says what is missing."""
    model, x = network(backend), on(backend, images)
    start = rng.standard_normal((1, 3, 20, 17)).astype(np.float32) if baseline == "noise" else np.full((1, 3, 20, 17), baseline, np.float32)
    method = IntegratedGradients(model, n_steps=300, baseline=on(backend, start))
    targets = [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]
    sums = method.attribute(x, targets).numpy().sum((1, 2, 3))
    with numbanet.no_grad():
        rise = (model(x) - model(on(backend, start))).numpy()[[0, 1], [1, 2]]
    np.testing.assert_allclose(sums, rise, atol=0.02 * np.abs(rise).max())
    np.testing.assert_allclose(method.delta, sums - rise, atol=1e-4)


def test_integrated_gradients_ignore_what_does_not_matter(network, images):
    """A channel whose weights are 0 gets nothing."""
    model = network()
    with numbanet.no_grad():
        model[0].weight[:, 1] = 0.0
    found = IntegratedGradients(model).attribute(on("cpu", images)).numpy()
    assert not found[:, 1].any() and found[:, 0].any()


def test_smoothgrad_is_the_same_everywhere_and_again(network, images):
    maps = [SmoothGrad(network(device), n_samples=20, seed=3)(on(device, images)) for device in ("cpu", "cpu", "reference")]
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_allclose(maps[0], maps[2], atol=1e-3)
    assert np.abs(maps[0] - SmoothGrad(network(), n_samples=20, seed=4)(on("cpu", images))).max() > 0.01


def test_guided_backpropagation(network, images, backend):
    """As PyTorch's autograd with the gradients cut below 0 at every ReLU."""
    torch = pytest.importorskip("torch")
    model = network(backend)
    found = GuidedBackprop(model).attribute(on(backend, images), [ClassifierOutputTarget(2)] * 2).numpy()
    x = torch.tensor(images, requires_grad=True)
    state = {name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()}

    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            ctx.save_for_backward(a)
            return a.clamp(min=0)

        @staticmethod
        def backward(ctx, g):
            return g.clamp(min=0) * (ctx.saved_tensors[0] > 0)

    F = torch.nn.functional
    y = F.max_pool2d(Guided.apply(F.conv2d(x, state["0.weight"], state["0.bias"], padding=1)), 2)
    y = F.adaptive_avg_pool2d(Guided.apply(F.conv2d(y, state["3.weight"], state["3.bias"])), 2).flatten(1)
    F.linear(y, state["7.weight"], state["7.bias"])[:, 2].sum().backward()
    np.testing.assert_allclose(found, x.grad.numpy(), atol=1e-6)
    plain = Saliency(model).attribute(on(backend, images), [ClassifierOutputTarget(2)] * 2).numpy()
    assert np.abs(plain - found).max() > 1e-3, "guiding changes something"
    with pytest.raises(UsageError, match="a network with ReLU, Linear runs none"):
        GuidedBackprop(Linear())(on("cpu", images))


def test_occlusion_of_a_linear_network(images, backend):
    """Covering a square takes away what its pixels add: the fall is the mean of those sums, by brute force."""
    x = on(backend, images)
    found = Occlusion(Linear(backend), window=5, stride=2).attribute(x, [ClassifierOutputTarget(0)] * 2).numpy()
    assert found.shape == (2, 1, 20, 17)
    parts, expected, count = (images * LINEAR[0]).sum(1), np.zeros((2, 20, 17)), np.zeros((20, 17))
    for top in range(-4, 20, 2):
        for left in range(-4, 17, 2):
            square = np.s_[max(top, 0):top + 5, max(left, 0):left + 5]
            expected[(slice(None), *square)] += parts[(slice(None), *square)].sum((1, 2))[:, None, None]
            count[square] += 1
    np.testing.assert_allclose(found[:, 0], expected / count, rtol=1e-3, atol=1e-3)


def test_every_method_on_every_backend(network, images):
    for method in METHODS:
        maps = [explain(network(device), on(device, images[:1]), method, 2).map for device in ("cpu", "reference")]
        assert maps[0].shape == (20, 17) and 0 <= maps[0].min() and maps[0].max() <= 1
        np.testing.assert_allclose(*maps, atol=5e-3, err_msg=method)


def test_empty_batches(network):
    model, x = network(), numbanet.zeros(0, 3, 20, 17)
    for method in (Saliency(model), GuidedBackprop(model), SmoothGrad(model), IntegratedGradients(model), Occlusion(model),
                   GradCAM(model, [model[4]])):
        assert method(x).shape == method(x, []).shape == (0, 20, 17)


def test_what_is_refused(network, images):
    model, x = network(), on("cpu", images)
    for make, message in ((lambda: SmoothGrad(model, n_samples=0), "n_samples: expected an integer of at least 1, received 0"),
                          (lambda: IntegratedGradients(model, n_steps=1.5), "n_steps"),
                          (lambda: Occlusion(model, window=4, stride=5), "leaves gaps"),
                          (lambda: Occlusion(model, window=0), "window expects an integer of at least 1"),
                          (lambda: Saliency(model)(x, [ClassifierOutputTarget(0)]), "one for each of 2 images, received 1"),
                          (lambda: explain(model, x[:1], "gradcamm"), "expected one of gradcam, .* received 'gradcamm'"),
                          (lambda: explain(model, x[:1], "saliency", layer="4"), "has no layer"),
                          (lambda: explain(model, x[:1], layer="44"), "layer '44' does not exist in Sequential"),
                          (lambda: explain(model, x[:1], category=7), "class from 0 to 4, received 7")):
        with pytest.raises(UsageError, match=message):
            make()
    with pytest.raises(ShapeError, match=r"images \(N, C, H, W\), received \(3, 20, 17\)"):
        Saliency(model)(x[0])
