"""Class activation maps: which of a layer's maps speak for a class, weighted by the gradient of its score, and where.

    w[k] = mean over positions of  d score / d A[k]            Grad-CAM
    L = max(0, sum over k of w[k] * A[k])

R. R. Selvaraju and others, "Grad-CAM", ICCV 2017. A. Chattopadhay and others, "Grad-CAM++", WACV 2018.
The calls are those of the package pytorch-grad-cam.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbanet._tensor import Tensor
from numbanet.autograd.grad_mode import no_grad, set_grad_enabled
from numbanet.autograd.tape import grad
from numbanet.errors import AutogradError, ShapeError, UsageError
from numbanet.nn import Module
from numbanet.nn import functional as F
from numbanet.vision.layers import evaluating, only
from numbanet.vision.targets import total


class GradCAM:
    """Grad-CAM of one or more layers: ``GradCAM(model, [model.layer4[-1]])(x, [ClassifierOutputTarget(281)])``.

    Parameters
    ----------
    model : Module
    target_layers : sequence of Module
        Whose outputs are maps (N, C, H, W); of several, the mean of their maps is taken.

    Attributes
    ----------
    outputs : Tensor
        What the network answered in the last call.
    """

    def __init__(self, model: Module, target_layers: Sequence[Module]):
        self.model, self.target_layers, self.outputs = model, list(target_layers), None
        if not self.target_layers:
            raise UsageError("Grad-CAM: expected at least one target layer, received none")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def __call__(self, input_tensor: Tensor, targets=None) -> np.ndarray:
        """Maps between 0 and 1, float32 (N, H, W) of the input's size, for each image's target (by default its first class)."""
        maps = [enlarged(m, input_tensor.shape[2:]) for m in self.maps(input_tensor, targets)]
        scaled = np.stack([scale_to_one(m) for m in maps])
        return scaled[0] if len(scaled) == 1 else scale_to_one(scaled.mean(0))

    def maps(self, input_tensor: Tensor, targets=None) -> list[Tensor]:
        """The maps of each target layer as they are, (N, h, w), none below 0."""
        activations = {}
        with evaluating(self.model), no_grad():
            handles = [layer.register_forward_hook(_Keep(activations)) for layer in self.target_layers]
            try:
                self.outputs = self.model(input_tensor)
                missing = [type(layer).__name__ for layer in self.target_layers if layer not in activations]
                if missing:
                    raise UsageError(f"Grad-CAM: the network did not run the layers {', '.join(missing)}")
                kept = [activations[layer] for layer in self.target_layers]
                gradients = self._gradients(total(self.outputs, targets), kept)
            finally:
                for handle in handles:
                    handle.remove()
        with no_grad():
            return [self._combine(a.detach(), g) for a, g in zip(kept, gradients)]

    @staticmethod
    def _gradients(score, activations):
        try:
            return grad(score, activations)
        except AutogradError as error:
            raise UsageError(f"Grad-CAM: the score does not depend on a target layer ({error}); choose a layer that it is computed from"
                             ) from None

    def weights(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """(N, C, 1, 1)"""
        return gradients.mean((2, 3), keepdim=True)

    def _combine(self, activations: Tensor, gradients: Tensor) -> Tensor:
        return F.relu((self.weights(activations, gradients) * activations).sum(1))


class GradCAMPlusPlus(GradCAM):
    """Grad-CAM++: gradients above 0, weighted so that every occurrence of the object counts alike."""

    def weights(self, activations: Tensor, gradients: Tensor) -> Tensor:
        squared = gradients * gradients
        below = 2 * squared + activations.sum((2, 3), keepdim=True) * squared * gradients + 1e-6
        return (squared / below * F.relu(gradients)).sum((2, 3), keepdim=True)


class _Keep:
    """Hook: the layer's output becomes the leaf that gradients are taken by. What came before it needs no tape."""

    def __init__(self, activations: dict):
        self.activations = activations

    def __call__(self, module, _inputs, given):
        output = only(given)
        if not isinstance(output, Tensor) or output.ndim != 4:
            received = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ShapeError(f"Grad-CAM: a target layer expects maps (N, C, H, W), {module._get_name()} gives {received}; choose a "
                             "convolution or what follows it")
        set_grad_enabled(True)                                  # the caller's no_grad block ends this
        leaf = output if output.requires_grad else output.detach().requires_grad_()
        self.activations[module] = leaf
        return tuple(leaf if o is output else o for o in given) if isinstance(given, tuple) else leaf


def enlarged(maps: Tensor, size) -> np.ndarray:
    """(N, h, w) to float32 (N, H, W), bilinearly."""
    with no_grad():
        return np.array(F.interpolate(maps.unsqueeze(1), size=tuple(size), mode="bilinear", align_corners=False).numpy()[:, 0])


def scale_to_one(maps: np.ndarray) -> np.ndarray:
    """Each map (N, H, W) from its least value to its greatest as 0 to 1; a map of one value only becomes 0."""
    low = maps.min((1, 2), keepdims=True, initial=np.inf)
    range_ = maps.max((1, 2), keepdims=True, initial=-np.inf) - low
    with np.errstate(invalid="ignore"):
        return np.where(range_ > 0, (maps - low) / np.where(range_ > 0, range_, 1), 0).astype(np.float32)


def show_cam_on_image(img: np.ndarray, mask: np.ndarray, use_rgb: bool = False, image_weight: float = 0.5) -> np.ndarray:
    """A map as a transparent layer of colour over a picture.

    Parameters
    ----------
    img : float array (H, W, 3), between 0 and 1
    mask : float array (H, W), between 0 and 1
    use_rgb : bool
        Whether `img` is in the order red, green, blue; otherwise blue, green, red, as OpenCV reads pictures.
    image_weight : float
        Between 0, the map alone, and 1, the picture alone.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W, 3), in the order of `img`
    """
    from numbanet.vision.colours import colourise
    img, mask = np.asarray(img, np.float64), np.asarray(mask, np.float64)
    if img.ndim != 3 or img.shape[2] != 3 or mask.shape != img.shape[:2]:
        raise ShapeError(f"show_cam_on_image: expected a picture (H, W, 3) and a map (H, W), received {img.shape} and {mask.shape}")
    if img.max(initial=0) > 1 or img.min(initial=0) < 0:
        raise UsageError("show_cam_on_image: expected a picture of values between 0 and 1; divide 8-bit values by 255")
    if not 0 <= image_weight <= 1:
        raise UsageError(f"show_cam_on_image: image_weight expects a number between 0 and 1, received {image_weight}")
    heat = colourise(mask, "heat", 0, 1)[..., :: 1 if use_rgb else -1] / 255
    mixed = (1 - image_weight) * heat + image_weight * img
    most = mixed.max(initial=0)
    return np.uint8(255 * mixed / most) if most > 0 else np.zeros(img.shape, np.uint8)
