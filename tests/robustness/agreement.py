"""Prints how far small networks of every kind of layer on the CPU backend are from the reference: `python -m tests.robustness.agreement`.

Run in processes of their own, with other vector widths or without compilation.
"""

import sys

import numpy as np

import numbanet
from numbanet import nn

NETWORKS = {
    "lenet5": lambda: (numbanet.create_model("lenet5"), (1, 1, 32, 32)),
    "normalised": lambda: (nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(3, 2, 1),        # (N, 8, 5, 4)
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.GroupNorm(2, 8), nn.GELU(), nn.Conv2d(8, 20, 1), nn.ReLU6(),
        nn.AvgPool2d(2, ceil_mode=True), nn.ConvTranspose2d(20, 4, 3, 2), nn.Sigmoid(), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(),
        nn.LayerNorm(24), nn.Linear(24, 10)), (2, 3, 9, 7)),
}


def values_and_gradients(make, device: str) -> list[np.ndarray]:
    """Softmax, loss and the gradients of parameters and images, from one seed."""
    numbanet.manual_seed(1)
    model, shape = make()
    model = model.to(device)
    x = numbanet.randn(*shape, device=device, requires_grad=True)
    y = model(x)
    loss = nn.functional.cross_entropy(y, numbanet.tensor([3, 0][:shape[0]], device=device))
    loss.backward()
    return [t.detach().numpy() for t in (y.softmax(1), loss, x.grad, *(p.grad for p in model.parameters()))]


def worst_difference(name: str) -> float:
    """The largest difference between the backends, relative to the largest element of its array."""
    numbanet.set_float32_precision("strict")
    pairs = zip(*(values_and_gradients(NETWORKS[name], device) for device in ("cpu", "reference")), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


if __name__ == "__main__":
    from numbanet.backends.cpu import compile, hardware
    print(compile.JIT, hardware.simd_width(), *[worst_difference(name) for name in sys.argv[1:] or NETWORKS])
