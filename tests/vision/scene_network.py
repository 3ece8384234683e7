"""A small classifier of `SyntheticScenes` for the pointing game; ``python -m tests.vision.scene_network`` trains it and writes its weights.

It answers 99% of the scenes rightly, which is what makes its maps point. Its last maps have a stride of 8 pixels and see 61, the whole
shape: a network that sees less of it, or that has not learned to tell the shapes, looks at single edges and corners, or at the clutter.
"""

from pathlib import Path

import numpy as np

import numbanet
from numbanet import nn
from numbanet.data.datasets import SyntheticScenes
from numbanet.nn import functional as F

WEIGHTS = Path(__file__).parent / "scene_network.npz"       # float16; 190 kB
LAST_MAPS = 19                                              # ReLU, 64 maps of 8 x 8
EARLIER_MAPS = 13                                           # MaxPool2d, 48 maps of 8 x 8, whose units see 29 pixels
SCENES, EPOCHS, BATCH, RATE = 5000, 12, 50, 5e-3


def make_network() -> nn.Sequential:
    def block(inputs, outputs, stride=1):
        return [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*block(3, 16, stride=2), *block(16, 32), nn.MaxPool2d(2), *block(32, 48), *block(48, 48), nn.MaxPool2d(2),
                         *block(48, 64), *block(64, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 8))


def inputs(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) to what the network takes."""
    return (np.ascontiguousarray(images.transpose(0, 3, 1, 2)) / 127.5 - 1).astype(np.float32)


def train_network() -> nn.Sequential:
    """Two minutes on two cores."""
    data = SyntheticScenes(SCENES).to_arrays()
    images, labels = inputs(data.data), data.targets
    with numbanet.random.fork_rng():
        numbanet.manual_seed(0)
        model = make_network()
        optimizer = numbanet.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.02)
        schedule = numbanet.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=SCENES // BATCH * EPOCHS)
        example = numbanet.tensor(images[:BATCH]), numbanet.tensor(labels[:BATCH])
        step = numbanet.compile(model, example, loss=F.cross_entropy, optimizer=optimizer)
        order = np.random.default_rng(0)
        for _ in range(EPOCHS):
            for batch in order.permutation(SCENES).reshape(-1, BATCH):
                x = np.rot90(images[batch], order.integers(4), (2, 3))
                x = x[..., ::-1] if order.random() < 0.5 else x
                step(numbanet.tensor(np.ascontiguousarray(x)), numbanet.tensor(labels[batch]))
                schedule.step()
    return model.eval()


def trained_network() -> nn.Sequential:
    """The network with the weights that lie beside this file."""
    model = make_network()
    with np.load(WEIGHTS) as stored:
        model.load_state_dict({name: numbanet.tensor(value.astype(np.float32) if value.dtype == np.float16 else value)
                               for name, value in stored.items()})
    return model.eval()


def main() -> None:
    state = {name: value.numpy() for name, value in train_network().state_dict().items()}
    np.savez_compressed(WEIGHTS, **{name: v.astype(np.float16) if v.dtype == np.float32 else v for name, v in state.items()})


if __name__ == "__main__":
    main()
