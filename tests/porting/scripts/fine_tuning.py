"""Fine-tuning: a trained body is loaded by name, frozen, given a new head, then thawed with a smaller learning rate."""

import copy

import numpy as np
import torch
import torch.nn as nn


class Body(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
                                      nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.LeakyReLU(0.1))
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(p=0.0)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        x = torch.flatten(self.pool(self.features(x)), 1)
        return self.fc(self.dropout(x))


def build():
    return Body(5)


def train(model):
    pretrained = copy.deepcopy(model.state_dict())
    # The new head starts from fixed numbers, so that both runs begin alike.
    model.fc = nn.Linear(model.fc.in_features, 2)
    with torch.no_grad():
        model.fc.weight.copy_(torch.linspace(-0.3, 0.3, 16).reshape(2, 8))
        model.fc.bias.zero_()
    matching = {k: v for k, v in pretrained.items() if k in model.state_dict() and not k.startswith("fc.")}
    missing, unexpected = model.load_state_dict(matching, strict=False)
    assert sorted(missing) == ["fc.bias", "fc.weight"] and not unexpected

    for p in model.features.parameters():
        p.requires_grad = False
    rng = np.random.default_rng(4)
    y = torch.tensor(rng.integers(0, 2, 20))
    x = torch.tensor(rng.standard_normal((20, 1, 10, 10)), dtype=torch.float32) * (1 + 2 * y).reshape(20, 1, 1, 1)
    optimizer = torch.optim.SGD(filter(lambda p: p.requires_grad, model.parameters()), lr=0.1)
    frozen = model.features[0].weight.clone()
    losses = []

    def epoch():
        model.train()
        model.features.eval()           # the statistics of the frozen layers stay
        loss = nn.functional.cross_entropy(model(x), y, weight=torch.tensor([1.0, 1.5]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    for _ in range(6):
        epoch()
    assert torch.equal(frozen, model.features[0].weight) and model.features[0].weight.grad is None
    for p in model.features.parameters():
        p.requires_grad_(True)
    groups = [{"params": model.features.parameters(), "lr": 1e-3},
              {"params": [*model.fc.parameters()], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1)
    for _ in range(6):
        epoch()
    assert not torch.allclose(frozen, model.features[0].weight)
    assert model.features[1].num_batches_tracked == 0
    return losses
