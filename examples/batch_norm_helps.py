"""What batch normalisation cures in a deep network of sigmoids, in numbers (Ioffe and Szegedy, ICML 2015).

The same network of eight sigmoid layers learns the same task twice, without and with batch norm. Lectures tell: the inputs of later layers
shift while earlier ones learn, sigmoids saturate, and gradients vanish on their way back. The numbers show it.
"""

import numpy as np

import numbanet
from numbanet import nn, optim
from numbanet.data import ArrayDataset, DataLoader
from numbanet.train import Trainer
from numbanet.train.layer_statistics import LayerStatistics

DEPTH, WIDTH, EPOCHS = 8, 32, 12


def spirals(count: int, seed: int) -> ArrayDataset:
    """Two spirals, one class each, a little noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    angle = random.uniform(0.5, 7.0, count)
    points = np.stack([np.cos(angle + np.pi * labels), np.sin(angle + np.pi * labels)], 1) * angle[:, None] / 3
    return ArrayDataset((points + 0.05 * random.standard_normal(points.shape)).astype(np.float32), labels)


def network(batch_norm: bool) -> nn.Sequential:
    layers, size = [], 2
    for _ in range(DEPTH):
        layers += [nn.Linear(size, WIDTH), *([nn.BatchNorm1d(WIDTH)] if batch_norm else []), nn.Sigmoid()]
        size = WIDTH
    made = nn.Sequential(*layers, nn.Linear(size, 2))
    for layer in made:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=1.0)          # large, as was usual once
    return made


def learn(batch_norm: bool):
    """(accuracy on new points, what happened in the layers)."""
    numbanet.manual_seed(0)
    model, train, test = network(batch_norm), spirals(1000, 1), spirals(500, 2)
    watched = LayerStatistics(*next(iter(DataLoader(test, 256))))
    trainer = Trainer(model, None, optim.SGD(model.parameters(), lr=0.02, momentum=0.9), callbacks=[watched])
    history = trainer.fit(DataLoader(train, 50, shuffle=True, seed=0), DataLoader(test, 500), EPOCHS).history
    return history["val_accuracy"][-1], watched.history, model


def tell(name: str, accuracy: float, history: list, model: nn.Sequential) -> dict:
    linear = [str(i) for i, layer in enumerate(model) if isinstance(layer, nn.Linear)]
    sigmoid = [str(i) for i, layer in enumerate(model) if isinstance(layer, nn.Sigmoid)]
    start, end = history[0]["layers"], history[-1]["layers"]
    # what the middle sigmoid is given: the layer before it
    before = str(int(sigmoid[DEPTH // 2]) - 1)
    facts = {"accuracy": accuracy, "vanishing": start[linear[-1]]["gradient"] / start[linear[0]]["gradient"],
             "saturated": np.mean([start[path]["stuck"] for path in sigmoid]),
             "shift": abs(end[before]["mean"] - start[before]["mean"]) / start[before]["std"]}
    print(f"{name}\n  accuracy on new points                        {100 * facts['accuracy']:8.1f}%\n"
          f"  gradient of the last layer / of the first     {facts['vanishing']:8.1f}   after one epoch\n"
          f"  shift of the middle sigmoid's input           {facts['shift']:8.2f}   of its spread, over the training\n"
          f"  saturated outputs of sigmoids                 {100 * facts['saturated']:8.1f}%  below 0.01 or above 0.99, after one epoch")
    return facts


without = tell("without batch norm", *learn(False))
normed = tell("with batch norm", *learn(True))
print(f"\nWith batch norm the gradient reaches the first layer {without['vanishing'] / normed['vanishing']:,.0f} times stronger, and the\n"
      f"network learns: {100 * normed['accuracy']:.0f}% instead of {100 * without['accuracy']:.0f}%.")
assert normed["accuracy"] > without["accuracy"] + 0.1 and without["vanishing"] > 10 * normed["vanishing"]
