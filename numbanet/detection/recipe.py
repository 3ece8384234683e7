"""What the training of a detector is asked for. The fields' defaults are the published recipe of scenes of digits."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Self

from numbanet.detection.augment import Augmentation
from numbanet.errors import UsageError
from numbanet.train.recipe import Fields, Recipe, recipe_field

TASK = "detection"
SCENES = ("digits", "shapes")


def _as_of_classifiers(name: str, **changed):
    """A field that stands in the recipes of classifiers too, perhaps with another default."""
    known = {f.name: f for f in fields(Recipe)}[name]
    if "default" in changed:
        return field(default=changed["default"], metadata=known.metadata)
    return field(default=known.default, metadata=known.metadata) if known.default is not MISSING else field(
        default_factory=known.default_factory, metadata=known.metadata)


@dataclass
class DetectorRecipe(Fields):
    """What a run is asked for; written into its config.yaml."""

    task: str = recipe_field(TASK, "what is trained", choices=(TASK,))
    trunk: str = recipe_field("resnet18", "a name from 'numbanet models'")
    trunk_options: dict = recipe_field({"width": 32}, "options of the trunk, such as {width: 32}")
    weights: str | None = recipe_field(None, "trained weights of the trunk to begin with")
    data: str | None = recipe_field(None, "folder of pictures with COCO annotations, or of MNIST's files for scenes of digits "
                                          "(default: the MNIST sample of the package)")
    scenes: str = recipe_field("digits", "what is made up where there are no annotations: digits or shapes", choices=SCENES)
    train_scenes: int = recipe_field(6000, "made-up pictures to train on", 1)
    scenes_anew: bool = recipe_field(True, "whether each epoch has made-up pictures of its own")
    test_scenes: int = recipe_field(500, "made-up pictures to judge by", 1)
    size: int = recipe_field(128, "height and width of the network's input", 32, 4096)
    strides: list = recipe_field([], "input pixels between positions, of each level (default: 8, 16 and as many more as the size asks "
                                     "for)")
    channels: int = recipe_field(64, "of the pyramid and the head", 1)
    convolutions: int = recipe_field(2, "of the head, before classes and before boxes", 0)
    flip: float = recipe_field(0.0, "probability of a mirror image, in training", 0, 1)
    zoom: list = recipe_field([1.0, 1.0], "smallest and largest scale in training, such as [0.8, 1.25]")
    epochs: int = _as_of_classifiers("epochs", default=16)
    batch_size: int = _as_of_classifiers("batch_size", default=16)
    accumulate: int = _as_of_classifiers("accumulate")
    optimizer: str = _as_of_classifiers("optimizer", default="adamw")
    lr: float | None = _as_of_classifiers("lr", default=2e-3)
    momentum: float | None = _as_of_classifiers("momentum")
    nesterov: bool | None = _as_of_classifiers("nesterov")
    alpha: float | None = _as_of_classifiers("alpha")
    eps: float | None = _as_of_classifiers("eps")
    weight_decay: float | None = _as_of_classifiers("weight_decay")
    norm_weight_decay: float | None = _as_of_classifiers("norm_weight_decay")
    bias_weight_decay: float | None = _as_of_classifiers("bias_weight_decay")
    layer_lr: dict = _as_of_classifiers("layer_lr")
    schedule: str = _as_of_classifiers("schedule")
    schedule_options: dict = _as_of_classifiers("schedule_options")
    warmup_epochs: int = _as_of_classifiers("warmup_epochs")
    clip_norm: float | None = _as_of_classifiers("clip_norm", default=5.0)
    ema_decay: float | None = _as_of_classifiers("ema_decay")
    checkpoint_every: int | None = _as_of_classifiers("checkpoint_every")
    keep_checkpoints: int = _as_of_classifiers("keep_checkpoints")
    workers: int = _as_of_classifiers("workers")
    on_error: str = _as_of_classifiers("on_error")
    seed: int = _as_of_classifiers("seed")
    device: str = _as_of_classifiers("device")
    eager: bool = _as_of_classifiers("eager")

    def __post_init__(self):
        self.check()
        for name, kinds in (("strides", int), ("zoom", (int, float))):
            value = getattr(self, name)
            if name == "strides" and value == []:
                continue
            if not value or not all(isinstance(v, kinds) and not isinstance(v, bool) for v in value):
                raise UsageError(f"--{name}: expected a list of numbers, received {value}")
        self.make_augmentation()

    def changed(self, values: dict) -> Self:
        """With other values; the options of another trunk are its own."""
        if values.get("trunk", self.trunk) != self.trunk:
            values = {"trunk_options": {}, **values}
        return super().changed(values)

    def make_augmentation(self) -> Augmentation | None:
        made = Augmentation(self.flip, tuple(map(float, self.zoom)))
        return None if made == Augmentation() else made
