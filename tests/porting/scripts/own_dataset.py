"""An own Dataset with transforms, an own collate function, several workers, subsets, and a weighted sampler."""

import numpy as np
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, Dataset, Subset, WeightedRandomSampler


class Blobs(Dataset):
    """Images with one bright blob; the target is its quadrant, and its position."""

    def __init__(self, count, transform=None):
        self.count, self.transform = count, transform

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        row, column = rng.integers(2, 14, 2)
        image = np.zeros((16, 16), np.float32)
        image[row - 1:row + 2, column - 1:column + 2] = 1.0
        image = torch.from_numpy(image).unsqueeze(0)
        if self.transform is not None:
            image = self.transform(image)
        return {"image": image, "quadrant": int(row >= 8) * 2 + int(column >= 8), "name": f"blob {index}"}


def collate(samples):
    return (torch.stack([s["image"] for s in samples]), torch.tensor([s["quadrant"] for s in samples]),
            [s["name"] for s in samples])


def build():
    return nn.Sequential(nn.Conv2d(1, 6, 5, stride=2, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
                         nn.Linear(6 * 4 * 4, 4))


def train(model):
    dataset = Blobs(80, transform=lambda image: (image - 0.1) / 0.3)
    first, rest = Subset(dataset, range(64)), Subset(dataset, range(64, 80))
    loader = DataLoader(first, batch_size=16, shuffle=False, num_workers=2, collate_fn=collate, drop_last=True)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    losses, names = [], []
    for _ in range(5):
        for images, quadrants, batch_names in loader:
            optimizer.zero_grad(set_to_none=True)
            loss = criterion(model(images), quadrants)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            names += batch_names
    assert names[:2] == ["blob 0", "blob 1"] and len(names) == 5 * 64

    # The default collate function makes tensors and lists of a dictionary's values.
    batch = next(iter(DataLoader(rest, batch_size=8)))
    assert batch["image"].shape == (8, 1, 16, 16) and batch["quadrant"].dtype == torch.int64
    assert list(batch["name"])[0] == "blob 64"
    sampler = WeightedRandomSampler([1.0] * 8 + [0.0] * 8, num_samples=20, replacement=True)
    drawn = [name for batch in DataLoader(rest, batch_size=5, sampler=sampler) for name in batch["name"]]
    assert len(drawn) == 20 and all(int(name.split()[1]) < 72 for name in drawn)
    return losses
