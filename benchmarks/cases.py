"""What is measured: for each case and engine a function without arguments that does the work once.

An engine is "numbanet" (device cpu), "reference" (NumPy), or a peer: "torch" (eager, channels-last), "onnxruntime".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# name: (batch, channels, filters, input size, kernel, stride, padding, groups)
SIZES = ((64, 56), (128, 28), (256, 14), (512, 7))
CONVOLUTIONS = {f"{k}x{k} {c}@{size}": (8, c, c, size, k, 1, k // 2, 1) for k in (3, 1) for c, size in SIZES}
OTHER_CONVOLUTIONS = {
    **{f"1x1 {c}-{4 * c}@{size}": (8, c, 4 * c, size, 1, 1, 0, 1) for c, size in SIZES},
    **{f"1x1 {4 * c}-{c}@{size}": (8, 4 * c, c, size, 1, 1, 0, 1) for c, size in SIZES},
    **{f"LeNet-5 C1, batch {b}": (b, 1, 6, 32, 5, 1, 0, 1) for b in (64, 256)},
    **{f"LeNet-5 C3, batch {b}": (b, 6, 16, 14, 5, 1, 0, 1) for b in (64, 256)},
    "3x3 64@112": (8, 64, 64, 112, 3, 1, 1, 1),
    "3x3 512@28": (4, 512, 512, 28, 3, 1, 1, 1),
    "3x3 512@14": (8, 512, 512, 14, 3, 1, 1, 1),
    "3x3 96-128@28": (8, 96, 128, 28, 3, 1, 1, 1),
    "3x3 160-320@14": (8, 160, 320, 14, 3, 1, 1, 1),
    "3x3 384-256@13": (8, 384, 256, 13, 3, 1, 1, 1),
    "3x3 3-64@224": (8, 3, 64, 224, 3, 1, 1, 1),
    "1x1/2 256-512@56": (8, 256, 512, 56, 1, 2, 0, 1),
    "3x3/2 64-128@56": (8, 64, 128, 56, 3, 2, 1, 1),
    "7x7/2 3-64@224": (8, 3, 64, 224, 7, 2, 3, 1),
    "11x11/4 3-64@224": (8, 3, 64, 224, 11, 4, 2, 1),
    "3x3/2 128@56": (8, 128, 128, 56, 3, 2, 1, 1),
    "5x5 64-192@27": (8, 64, 192, 27, 5, 1, 2, 1),
    "depthwise 96@56": (8, 96, 96, 56, 3, 1, 1, 96),
    "32 groups 128@56": (8, 128, 128, 56, 3, 1, 1, 32),
}
PASSES = ("forward", "backward-input", "backward-weight")


def convolution(engine: str, shape: tuple, direction: str) -> Callable[[], object]:
    """One pass of a convolution, float32 in channels-last memory."""
    from numbanet.geometry import conv_geometry
    batch, channels, filters, size, kernel, stride, padding, groups = shape
    geometry = conv_geometry(channels, filters, (size, size), (kernel, kernel), stride, padding, 1, groups)
    rng = np.random.default_rng(0)
    x, grad_y = (rng.standard_normal((batch, *s, c), np.float32).transpose(0, 3, 1, 2)
                 for c, s in ((channels, geometry.input_size), (filters, geometry.output_size)))
    weight = rng.standard_normal(geometry.weight_shape, np.float32)
    if engine == "torch":
        return _torch_convolution(direction, x, weight, grad_y, stride, padding, groups)
    from numbanet.backends import get_backend
    backend = get_backend("cpu" if engine == "numbanet" else engine)
    return {"forward": lambda: backend.conv2d_forward(x, weight, None, geometry),
            "backward-input": lambda: backend.conv2d_backward_input(grad_y, weight, geometry),
            "backward-weight": lambda: backend.conv2d_backward_weight(grad_y, x, geometry)}[direction]


def _torch_convolution(direction, x, weight, grad_y, stride, padding, groups):
    import torch
    x, grad_y = torch.from_numpy(x), torch.from_numpy(grad_y)
    weight = torch.from_numpy(weight).contiguous(memory_format=torch.channels_last)
    if direction == "forward":
        return lambda: torch.nn.functional.conv2d(x, weight, None, stride, padding, 1, groups)
    mask = [direction == "backward-input", direction == "backward-weight", False]
    return lambda: torch.ops.aten.convolution_backward(grad_y, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0],
                                                       groups, mask)


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


def _convolutions(shapes: dict) -> dict:
    return {f"conv {name}, {direction}": lambda engine, shape=shape, direction=direction: convolution(engine, shape, direction)
            for name, shape in shapes.items() for direction in PASSES}


CASES: dict[str, Callable[[str], Callable[[], object]]] = {
    **{f"LeNet-5 training step, batch {b}": lambda engine, b=b: lenet5_step(engine, b) for b in (64, 256)},
    **_convolutions(CONVOLUTIONS),
}
MORE_CASES = _convolutions(OTHER_CONVOLUTIONS)
