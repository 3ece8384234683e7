"""An autoencoder with gradient accumulation and an exponential moving average of its weights, used for evaluation."""

import copy

import numpy as np
import torch
from torch import nn


class MovingAverage:
    def __init__(self, model, decay):
        self.model, self.decay = copy.deepcopy(model).eval(), decay
        self.model.requires_grad_(False)

    @torch.no_grad()
    def update(self, model):
        for average, current in zip(self.model.parameters(), model.parameters()):
            average.mul_(self.decay).add_(current.detach(), alpha=1 - self.decay)
        for average, current in zip(self.model.buffers(), model.buffers()):
            average.copy_(current)


def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4, momentum=0.2), nn.PReLU(4),
        nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.Hardswish(),
        nn.ConvTranspose2d(8, 4, 2, stride=2), nn.PReLU(),
        nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1), nn.Sigmoid())


def train(model):
    rng = np.random.default_rng(8)
    images = torch.from_numpy((rng.random((24, 1, 8, 8)) > 0.6).astype(np.float32))
    ema = MovingAverage(model, decay=0.8)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.005, momentum=0.5, centered=True)
    criterion = nn.MSELoss()
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        total = 0.0
        for part in images.split(8):
            loss = criterion(model(part), part) / 3
            loss.backward()
            total += loss.item()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        assert torch.isfinite(norm)
        optimizer.step()
        ema.update(model)
        losses.append(total)
    with torch.no_grad():
        losses.append(criterion(ema.model(images), images).item())
    assert not any(p.requires_grad for p in ema.model.parameters())
    return losses
