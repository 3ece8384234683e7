"""A small classifier: TensorDataset, DataLoader, SGD with momentum, accuracy on held-out images."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, kernel_size=3)
        self.fc = nn.Linear(16 * 2 * 2, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(x.size(0), -1) if x.is_contiguous() else torch.flatten(x, 1)
        return F.log_softmax(self.fc(x), dim=1)


def data():
    """Stripes of four directions under noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:12, :12]
    patterns = [np.sin(rows), np.sin(columns), np.sin(rows + columns), np.sin(rows - columns)]
    labels = rng.integers(0, 4, 96)
    images = np.stack([patterns[label] for label in labels]) + 0.3 * rng.standard_normal((96, 12, 12))
    return torch.from_numpy(images[:, None].astype(np.float32)), torch.from_numpy(labels)


def build():
    return Net()


def train(model):
    device = torch.device("cpu")
    images, labels = data()
    train_loader = DataLoader(TensorDataset(images[:64], labels[:64]), batch_size=16, shuffle=False)
    test_loader = DataLoader(TensorDataset(images[64:], labels[64:]), batch_size=32)
    model.to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    losses = []
    for _ in range(6):
        model.train()
        for x, y in train_loader:
            x, y = x.to(device), y.to(device)
            optimizer.zero_grad()
            loss = F.nll_loss(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    model.eval()
    correct = 0
    with torch.no_grad():
        for x, y in test_loader:
            pred = model(x.to(device)).argmax(dim=1, keepdim=True)
            correct += pred.eq(y.to(device).view_as(pred)).sum().item()
    assert correct / len(test_loader.dataset) > 0.8
    return losses
