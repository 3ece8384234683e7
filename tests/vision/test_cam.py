"""Grad-CAM and Grad-CAM++ beside formulas written with PyTorch's autograd, and what they refuse."""

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import ShapeError, UsageError
from numbanet.vision import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget, GradCAM, GradCAMPlusPlus, show_cam_on_image
from numbanet.vision.layers import last_maps
from tests.vision.conftest import on


def in_torch(model, x, layer: int, classes, plus: bool):
    """Both methods from their formulas."""
    torch = pytest.importorskip("torch")
    twin = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(6, 8, 3),
                               torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(32, 5))
    twin.load_state_dict({name: torch.tensor(value.numpy()) for name, value in model.state_dict().items()})
    activations = twin[:layer + 1](torch.tensor(x)).detach().requires_grad_()
    scores = twin[layer + 1:](activations)
    gradient, = torch.autograd.grad(sum(scores[i, k] for i, k in enumerate(classes)), activations)
    if plus:
        below = 2 * gradient ** 2 + (activations.sum((2, 3), keepdim=True) * gradient ** 3) + 1e-6
        weights = (gradient ** 2 / below * gradient.clamp(min=0)).sum((2, 3), keepdim=True)
    else:
        weights = gradient.mean((2, 3), keepdim=True)
    maps = torch.relu((weights * activations).sum(1, keepdim=True))
    maps = torch.nn.functional.interpolate(maps, size=x.shape[2:], mode="bilinear", align_corners=False)[:, 0].detach().numpy()
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / (high - low)


@pytest.mark.parametrize("plus", [False, True], ids=["gradcam", "gradcam++"])
@pytest.mark.parametrize("layer", [1, 3, 4])
def test_formula(network, images, backend, plus, layer):
    model = network(backend)
    cam = (GradCAMPlusPlus if plus else GradCAM)(model, [model[layer]])
    maps = cam(on(backend, images), [ClassifierOutputTarget(3), ClassifierOutputTarget(0)])
    assert maps.dtype == np.float32 and maps.shape == (2, 20, 17) and maps.max() == 1 and maps.min() == 0
    np.testing.assert_allclose(maps, in_torch(model, images, layer, (3, 0), plus), atol=2e-4)


def test_call_shape_of_pytorch_grad_cam(network, images):
    model = network()
    x = on("cpu", images)
    with GradCAM(model=model, target_layers=[model[4]]) as cam:
        by_default = cam(input_tensor=x)
        first = cam.outputs.argmax(1).numpy()
        np.testing.assert_array_equal(by_default, cam(input_tensor=x, targets=[ClassifierOutputTarget(int(k)) for k in first]))
    both = GradCAM(model, [model[1], model[4]])(x)
    mean = (GradCAM(model, [model[1]])(x) + GradCAM(model, [model[4]])(x)) / 2
    low, high = mean.min((1, 2), keepdims=True), mean.max((1, 2), keepdims=True)
    np.testing.assert_allclose(both, (mean - low) / (high - low), atol=1e-6)


def test_nothing_is_left_behind(network, images):
    model = network().train()
    x = on("cpu", images)
    GradCAM(model, [model[4]])(x)
    assert model.training and model[4].training and numbanet.is_grad_enabled()
    assert all(p.grad is None for p in model.parameters()) and x.grad is None
    with pytest.raises(UsageError):
        GradCAM(model, [model[4]])(x, [ClassifierOutputTarget(5)] * 2)
    assert numbanet.is_grad_enabled() and not model[4]._hooks or not any(model[4]._hooks.values())


def test_a_target_of_ones_own(network, images):
    """The gradient of 2 * score is the same map; of a probability it is another."""
    model, x = network(), on("cpu", images)
    cam = GradCAM(model, [model[1]])
    plain = cam(x, [ClassifierOutputTarget(2)] * 2)
    np.testing.assert_allclose(cam(x, [lambda output: 2 * output[2]] * 2), plain, atol=1e-6)
    assert np.abs(cam(x, [ClassifierOutputSoftmaxTarget(2)] * 2) - plain).max() > 0.05


def test_what_is_refused(network, images):
    model, x = network(), on("cpu", images)
    with pytest.raises(UsageError, match="class from 0 to 4, received 5"):
        GradCAM(model, [model[4]])(x, [ClassifierOutputTarget(5)] * 2)
    with pytest.raises(UsageError, match="one for each of 2 images, received 1"):
        GradCAM(model, [model[4]])(x, [ClassifierOutputTarget(0)])
    with pytest.raises(ShapeError, match=r"maps \(N, C, H, W\), Linear gives shape \(2, 5\)"):
        GradCAM(model, [model[7]])(x)
    with pytest.raises(UsageError, match="did not run the layers Conv2d"):
        GradCAM(model, [nn.Conv2d(3, 3, 1)])(x)
    with pytest.raises(UsageError, match="at least one target layer"):
        GradCAM(model, [])
    with pytest.raises(UsageError, match="with convolutions, Sequential has none"):
        last_maps(nn.Sequential(nn.Flatten(), nn.Linear(1020, 2)), x)


def test_overlay():
    picture, heat = np.zeros((2, 3, 3)), np.array([[0, 0.5, 1], [0, 0, 0]])
    picture[0, 0] = (1, 0.5, 0)
    rgb, bgr = show_cam_on_image(picture, heat, use_rgb=True), show_cam_on_image(picture[..., ::-1], heat)
    np.testing.assert_array_equal(rgb, bgr[..., ::-1])
    assert rgb.max() == 255 and rgb[0, 0, 0] > rgb[0, 0, 1] > rgb[0, 0, 2] and rgb[0, 2].sum() > rgb[0, 1].sum() > rgb[1, 0].sum()
    with pytest.raises(UsageError, match="divide 8-bit values by 255"):
        show_cam_on_image(picture * 255, heat)
    with pytest.raises(ShapeError, match=r"\(2, 3, 3\) and \(3, 2\)"):
        show_cam_on_image(picture, heat.T)
