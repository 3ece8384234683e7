"""Learning-rate schedules: one cycle per step, warm-up before a cosine, steps per epoch, and reduction on a plateau."""

import numpy as np
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, ReduceLROnPlateau, SequentialLR, StepLR


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.GELU(), nn.Linear(16, 3))


def train(model):
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.standard_normal((30, 1, 6, 6)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, 3, 30))
    losses, rates = [], []

    def run(optimizer, scheduler, steps, metric=False):
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            scheduler.step(loss.item() if metric else None) if metric else scheduler.step()
            losses.append(loss.item())
            rates.append(optimizer.param_groups[0]["lr"])

    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    run(optimizer, OneCycleLR(optimizer, max_lr=0.02, total_steps=10), 10)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    warm = LinearLR(optimizer, start_factor=0.1, total_iters=3)
    run(optimizer, SequentialLR(optimizer, [warm, CosineAnnealingLR(optimizer, T_max=7)], milestones=[3]), 10)
    optimizer = SGD(model.parameters(), lr=0.1)
    run(optimizer, StepLR(optimizer, step_size=2, gamma=0.5), 6)
    run(optimizer, ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=0.5), 6, metric=True)
    assert rates[0] != rates[1] and rates[-1] < 0.01
    return losses + rates
