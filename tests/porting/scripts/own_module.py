"""Own modules: residual blocks in a ModuleList, a buffer, a parameter of its own, initialisation by `apply`."""

import math

import numpy as np
import torch
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, channels: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))
        self.shortcut = nn.Identity() if stride == 1 else nn.AvgPool2d(stride)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.body(x) * (1 + self.gate))

    def extra_repr(self) -> str:
        return f"gate={self.gate.item():.2f}"


class Net(nn.Module):
    def __init__(self, depth: int = 2):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1))
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList([Residual(8, stride=1 + i % 2) for i in range(depth)])
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x - self.mean)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(2, 3)))


def initialise(module):
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
        nn.init.constant_(module.bias, 0.0)


def build():
    model = Net()
    model.apply(initialise)
    assert "gate=0.00" in repr(model)
    assert [name for name, _ in model.named_children()] == ["stem", "blocks", "head"]
    return model


def train(model):
    rng = np.random.default_rng(1)
    labels = torch.tensor(rng.integers(0, 3, 24).tolist())
    images = torch.zeros(24, 3, 8, 8)
    for i, label in enumerate(labels.tolist()):
        images[i, label] = 1.0
    images = images + 0.1 * torch.tensor(rng.standard_normal((24, 3, 8, 8)), dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    losses = []
    for _ in range(12):
        output = model(images)
        loss = criterion(output, labels)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    state = model.state_dict()
    assert state["blocks.0.body.1.num_batches_tracked"].item() == 12
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2621
    return losses
