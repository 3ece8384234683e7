"""Checkpoints: model and optimiser are saved after some steps; a new run continues as the first one did."""

import copy
import io

import numpy as np
import torch
from torch import nn


def build():
    return nn.Sequential(nn.Conv1d(2, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ELU(), nn.MaxPool1d(2), nn.Flatten(),
                         nn.Linear(24, 2))


def steps(model, optimizer, count):
    rng = np.random.default_rng(7)
    x = torch.as_tensor(rng.standard_normal((16, 2, 8)), dtype=torch.float32)
    y = torch.as_tensor(rng.standard_normal((16, 2)), dtype=torch.float32)
    losses = []
    for _ in range(count):
        loss = nn.functional.smooth_l1_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True)
    before = steps(model, optimizer, 6)
    file = io.BytesIO()
    np.savez(file, **{name: value.cpu().numpy() for name, value in model.state_dict().items()})
    memory = copy.deepcopy(optimizer.state_dict())
    after = steps(model, optimizer, 6)

    file.seek(0)
    resumed = build()
    resumed.load_state_dict({name: torch.from_numpy(value) for name, value in np.load(file).items()})
    fresh = torch.optim.Adam(resumed.parameters(), lr=0.5)
    fresh.load_state_dict(memory)
    assert fresh.param_groups[0]["lr"] == 0.01
    again = steps(resumed, fresh, 6)
    assert np.allclose(after, again, rtol=1e-4)
    return before + after + again
