"""NaN and infinities go through layers as in PyTorch: to the same elements, as the same values."""

import numpy as np
import pytest

import numbanet
from numbanet.nn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional

def _labels(functional, x):
    labels = [0, 7, 49, 3, 3, 1]
    return numbanet.tensor(labels, device=x.device) if functional is F else torch.tensor(labels)


# name: (shape of x, shapes of the parameters, function of (functional, x, *parameters))
CALLS = {
    "conv-3x3": ((2, 32, 9, 8), [(33, 32, 3, 3), (33,)], lambda f, x, w, b: f.conv2d(x, w, b, padding=1)),
    "conv-1x1": ((2, 32, 5, 7), [(17, 32, 1, 1)], lambda f, x, w: f.conv2d(x, w)),
    "conv-few-channels": ((2, 3, 11, 9), [(8, 3, 5, 5)], lambda f, x, w: f.conv2d(x, w, stride=2, padding=2)),
    "conv-grouped": ((2, 8, 7, 7), [(12, 2, 3, 3)], lambda f, x, w: f.conv2d(x, w, groups=4, dilation=2)),
    "conv-depthwise": ((2, 18, 9, 8), [(18, 1, 3, 3)], lambda f, x, w: f.conv2d(x, w, padding=1, groups=18)),
    "linear": ((5, 33), [(17, 33), (17,)], lambda f, x, w, b: f.linear(x, w, b)),
    "max-pool": ((2, 18, 9, 8), [], lambda f, x: f.max_pool2d(x, 3, 2, 1)),
    "avg-pool": ((2, 18, 9, 8), [], lambda f, x: f.avg_pool2d(x, 2)),
    "adaptive-avg-pool": ((2, 18, 9, 8), [], lambda f, x: f.adaptive_avg_pool2d(x, 4)),
    "batch-norm": ((4, 18, 5, 5), [(18,), (18,)], lambda f, x, w, b: f.batch_norm(x, None, None, w, b, True)),
    "layer-norm": ((4, 18, 33), [(33,), (33,)], lambda f, x, w, b: f.layer_norm(x, (33,), w, b)),
    "relu": ((4, 50), [], lambda f, x: f.relu(x)),
    "relu6": ((4, 50), [], lambda f, x: f.relu6(x)),
    "leaky-relu": ((4, 50), [], lambda f, x: f.leaky_relu(x)),
    "elu": ((4, 50), [], lambda f, x: f.elu(x)),
    "hardswish": ((4, 50), [], lambda f, x: f.hardswish(x)),
    "hardsigmoid": ((4, 50), [], lambda f, x: f.hardsigmoid(x)),
    "softplus": ((4, 50), [], lambda f, x: f.softplus(x)),
    "silu": ((4, 50), [], lambda f, x: f.silu(x)),
    "softmax": ((6, 50), [], lambda f, x: f.softmax(x, 1)),
    "log-softmax": ((6, 50), [], lambda f, x: f.log_softmax(x, 1)),
    "cross-entropy": ((6, 50), [], lambda f, x: f.cross_entropy(x, _labels(f, x), reduction="none")),
}


@pytest.fixture
def strict():
    """Winograd's transforms, allowed otherwise, spread a NaN over their tile."""
    precision = numbanet.get_float32_precision()
    numbanet.set_float32_precision("strict")
    yield
    numbanet.set_float32_precision(precision)


def _inputs(rng, shape, parameters, bad):
    x = rng.standard_normal(shape).astype(np.float32)
    x.reshape(-1)[rng.choice(x.size, 3, replace=False)] = bad
    return [x, *(rng.standard_normal(s).astype(np.float32) for s in parameters)]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", CALLS)
def test_forward_and_backward(backend, rng, strict, name, bad):
    shape, parameters, call = CALLS[name]
    arrays = _inputs(rng, shape, parameters, bad)
    ours = [numbanet.tensor(a, device=backend, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    received, expected = call(F, *ours), call(TF, *theirs)
    weights = rng.standard_normal(tuple(expected.shape)).astype(np.float32)
    received.backward(numbanet.tensor(weights, device=backend))
    expected.backward(torch.tensor(weights))
    for r, e in zip([received, *(t.grad for t in ours)], [expected, *(t.grad for t in theirs)], strict=True):
        np.testing.assert_allclose(r.detach().numpy(), e.detach().numpy(), rtol=1e-4, atol=1e-4)
