"""Every registered model, compiled, gives what it gives eagerly; so does a compiled training step of one of each family."""

import copy

import numpy as np
import pytest

import numbanet
from numbanet import zoo
from numbanet.nn import functional as F
from tests.zoo.inputs import LARGE, filled_model, small_size

# Of each family a small one; all of them with -m full.
REPRESENTATIVE = ("alexnet_2012", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "lenet5",
                  "lenet5_1998", "mnasnet0_5", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18",
                  "resnet50_v1", "resnet20_cifar", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "vgg11_bn")


def _models(names):
    return [pytest.param(name, marks=() if name in REPRESENTATIVE else pytest.mark.full) for name in names]


def _distance(received: np.ndarray, expected: np.ndarray) -> float:
    """Relative, in the L2 norm."""
    return float(np.linalg.norm(received - expected) / np.linalg.norm(expected))


def _first(outputs):
    return outputs[0] if isinstance(outputs, tuple) else outputs


def test_representatives_exist():
    assert set(REPRESENTATIVE) <= set(zoo.list_models())


@pytest.mark.parametrize("name", _models(zoo.list_models()))
def test_inference(name):
    numbanet.manual_seed(1)
    model = filled_model(name).eval()
    shape = zoo.model_info(name).input_size[0], *small_size(model, zoo.model_info(name))
    x = numbanet.randn(3, *shape)
    with numbanet.no_grad():
        expected = _first(model(x)).numpy()
    compiled = numbanet.compile(model, numbanet.randn(2, *shape))
    assert _distance(_first(compiled(x)).numpy(), expected) < 1e-5
    assert not any(node.primitive == "batch_norm_inference_forward" for node in compiled.plan().graph.nodes)


SMALL = [n for n in zoo.list_models() if zoo.model_info(n).parameters < LARGE]


@pytest.mark.parametrize("name", _models(SMALL))
def test_training_step(name, same_kernels):
    """Loss, gradients and running statistics; the same random masks are drawn by both."""
    # DenseNet's last maps are one pixel here: batch norm by four numbers a channel multiplies roundings
    _compare_steps(name, np.float32, 1e-5, 3e-3 if name.startswith("densenet") else 1e-4)


@pytest.mark.parametrize("name", _models([n for n in SMALL if n not in ("convnext_tiny", "inception_v3")]))
def test_training_step_in_float64(name):
    """The same with statistics that convolutions take: in float32 one rounding of them can turn a ReLU, and with it a gradient, over."""
    _compare_steps(name, np.float64, 1e-12, 1e-8)


def _compare_steps(name, dtype, loss_tolerance, tolerance):
    numbanet.manual_seed(1)
    eager, info = filled_model(name).to(dtype), zoo.model_info(name)
    x = numbanet.randn(4, info.input_size[0], *small_size(eager, info, training=True)).to(dtype)
    y = numbanet.tensor(np.arange(4) % info.num_classes)

    def loss(outputs, y):
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return sum(F.cross_entropy(o, y) for o in outputs)
    compiled = copy.deepcopy(eager)
    step = numbanet.compile(compiled, (x, y), loss=loss, optimizer=numbanet.optim.SGD(compiled.parameters(), lr=0.1))
    eager.train()
    numbanet.manual_seed(2)
    expected = loss(eager(x), y)
    expected.backward()
    numbanet.manual_seed(2)
    received = step.forward_backward(x, y)
    assert received.item() == pytest.approx(expected.item(), rel=loss_tolerance)
    gradients = [(a.grad.numpy(), b.grad.numpy()) for a, b in zip(compiled.parameters(), eager.parameters(), strict=True)]
    assert _distance(*(np.concatenate([pair[i].ravel() for pair in gradients]) for i in (0, 1))) < tolerance
    for (key, a), (_, b) in zip(compiled.named_buffers(), eager.named_buffers(), strict=True):
        received, wanted = a.numpy().astype(np.float64), b.numpy().astype(np.float64)       # means of 0 differ by roundings alone
        assert np.linalg.norm(received - wanted) <= tolerance * (np.linalg.norm(wanted) + 1e-3 * np.sqrt(wanted.size)), key
