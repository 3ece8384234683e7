"""What is measured: for each case and engine a function without arguments that does the work once.

An engine is "numbanet" (device cpu), "reference" (NumPy), or a peer: "torch" (eager, channels-last), "onnxruntime".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CONVOLUTIONS = {f"{k}x{k} {c}@{size}": (8, c, size, c, k) for k in (3, 1) for c, size in ((64, 56), (128, 28), (256, 14), (512, 7))}
PASSES = ("forward", "backward-input", "backward-weight")


def convolution_operands(batch, channels, size, filters, kernel):
    """x, weight, grad_y as channels-last float32 NumPy arrays of logical NCHW."""
    rng = np.random.default_rng(0)

    def channels_last(*shape):
        n, c, h, w = shape
        return rng.standard_normal((n, h, w, c), dtype=np.float32).transpose(0, 3, 1, 2)
    weight = (rng.standard_normal((filters, channels, kernel, kernel)) / np.sqrt(channels * kernel**2)).astype(np.float32)
    return channels_last(batch, channels, size, size), weight, channels_last(batch, filters, size, size)


def convolution(engine: str, name: str, direction: str) -> Callable[[], object]:
    """One pass of a convolution of stride 1 and padding "same"."""
    batch, channels, size, filters, kernel = CONVOLUTIONS[name]
    x, weight, grad_y = convolution_operands(batch, channels, size, filters, kernel)
    if engine == "torch":
        return _torch_convolution(direction, x, weight, grad_y, kernel // 2)
    from numbanet.backends import get_backend
    from numbanet.geometry import conv_geometry
    backend = get_backend("cpu" if engine == "numbanet" else engine)
    geometry = conv_geometry(channels, filters, (size, size), (kernel, kernel), 1, kernel // 2)
    return {"forward": lambda: backend.conv2d_forward(x, weight, None, geometry),
            "backward-input": lambda: backend.conv2d_backward_input(grad_y, weight, geometry),
            "backward-weight": lambda: backend.conv2d_backward_weight(grad_y, x, geometry)}[direction]


def _torch_convolution(direction, x, weight, grad_y, padding):
    import torch
    x, grad_y = torch.from_numpy(x), torch.from_numpy(grad_y)
    weight = torch.from_numpy(weight).contiguous(memory_format=torch.channels_last)
    if direction == "forward":
        return lambda: torch.nn.functional.conv2d(x, weight, padding=padding)
    mask = [direction == "backward-input", direction == "backward-weight", False]
    return lambda: torch.ops.aten.convolution_backward(grad_y, x, weight, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], 1, mask)


def lenet5_step(engine: str, batch: int) -> Callable[[], object]:
    """A whole eager training step of LeNet-5: forward, cross-entropy, backward, AdamW."""
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((batch, 1, 32, 32), dtype=np.float32), rng.integers(0, 10, batch)
    if engine == "torch":
        import torch
        nn = torch.nn
        model = nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
                              nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
        x, y, optim, cross_entropy = torch.from_numpy(images), torch.from_numpy(labels), torch.optim, nn.functional.cross_entropy
    else:
        import numbanet
        device = "cpu" if engine == "numbanet" else engine
        numbanet.set_default_device(device)
        model = numbanet.create_model("lenet5").to(device)
        x, y = numbanet.tensor(images, device=device), numbanet.tensor(labels, device=device)
        optim, cross_entropy = numbanet.optim, numbanet.functional.cross_entropy
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)

    def step():
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    return step


def lenet5_inference(engine: str, batch: int) -> Callable[[], object]:
    """LeNet-5's logits of a batch, eager."""
    images = np.random.default_rng(0).standard_normal((batch, 1, 32, 32), dtype=np.float32)
    import numbanet
    device = "cpu" if engine == "numbanet" else engine
    model, x = numbanet.create_model("lenet5").to(device).eval(), numbanet.tensor(images, device=device)

    def infer():
        with numbanet.no_grad():
            return model(x)
    return infer


CASES: dict[str, Callable[[str], Callable[[], object]]] = {
    **{f"LeNet-5 training step, batch {b}": lambda engine, b=b: lenet5_step(engine, b) for b in (64, 256)},
    **{f"conv {name}, {direction}": lambda engine, name=name, direction=direction: convolution(engine, name, direction)
       for name in CONVOLUTIONS for direction in PASSES},
}
