"""A small network of all kinds of layers, and what one training step leaves behind."""

import numpy as np

import numbanet
from numbanet import nn


class SmallNetwork(nn.Module):
    """Ordinary, depthwise, pointwise and Winograd-sized convolutions, batch norm, both poolings, dropout and a linear layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),      # (N, 32, 16, 16)
            nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Conv2d(32, 64, 1), nn.ReLU6(),
            nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.SiLU(), nn.AvgPool2d(2),     # (N, 64, 8, 8)
        )
        self.classifier = nn.Sequential(nn.Dropout2d(0.2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 8 * 8, 10))

    def forward(self, x):
        return self.classifier(self.features(x))


def training_step(seed: int, batch: int = 16, device: str = "cpu") -> dict[str, np.ndarray]:
    """Forward, backward and an optimiser's update from a seed: loss, all gradients, parameters and buffers by name."""
    numbanet.seed_everything(seed)
    model = SmallNetwork().to(device)
    optimizer = numbanet.optim.AdamW(model.parameters(), lr=0.01)
    x = numbanet.randn(batch, 3, 32, 32, device=device, requires_grad=True)
    target = numbanet.randint(0, 10, (batch,), device=device)
    loss = nn.functional.cross_entropy(model(x), target, label_smoothing=0.1)
    loss.backward()
    optimizer.step()
    values = {"loss": loss, "x.grad": x.grad}
    values |= {f"{name}.grad": p.grad for name, p in model.named_parameters()}
    values |= model.state_dict()
    return {name: np.array(v.detach().numpy()) for name, v in values.items()}
