"""Recipes: everything a training is asked for, as a checked table that stands in a YAML file.

The published ones lie in ``recipes/``. A field that is not set has the default below; an unknown one is an error.
"""

from __future__ import annotations

import difflib
import math
import typing
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Self

import yaml

from numbanet import optim
from numbanet.data import transforms
from numbanet.data.transforms.affine import AffineRanges
from numbanet.errors import NumbanetError, UsageError
from numbanet.optim import lr_scheduler
from numbanet.train.freezing import parameter_groups
from numbanet.train.mixing import CutMix, MixUp
from numbanet.train.preprocessing import DISTORTIONS

# class, learning rate, other options: what counts where a recipe does not say it
OPTIMIZERS = {
    "adamw": (optim.AdamW, 4e-3, {"weight_decay": 1e-2}),
    "adam": (optim.Adam, 4e-3, {}),
    "sgd": (optim.SGD, 8e-2, {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    "rmsprop": (optim.RMSprop, 1e-3, {"momentum": 0.9}),
    "levenberg_marquardt": (optim.DiagonalLevenbergMarquardt, 5e-3, {}),
}
OF_ONE_OPTIMIZER = ("lr", "momentum", "nesterov", "alpha", "eps", "weight_decay")
# What a run learns, and the name of what its epochs are judged by, as columns of metrics.csv and in words.
MEASURES = {"classification": ("accuracy", "accuracy"), "segmentation": ("iou", "mean IoU"), "detection": ("AP", "average precision")}
SCHEDULES = ("onecycle", "constant", "step", "multistep", "cosine", "poly", "plateau", "table")


def recipe_field(default, help: str, low=None, high=None, choices=None, must=None):
    """A field of a recipe, with what it means and what it may be; `must`: (predicate, what it says), where limits do not say it."""
    facts = {"help": help, "low": low, "high": high, "choices": choices, "must": must}
    return field(default_factory=lambda: type(default)(default), metadata=facts) if isinstance(default, (dict, list)) else field(
        default=default, metadata=facts)


class Fields:
    """What the recipes of all kinds of training have in common; each is a dataclass of fields, those below among them.

    What a kind of recipe has no field for is as here.
    """

    later = ()                      # fields that older runs do not have
    early_stopping = None
    sync_batch_norm = False

    def check(self) -> None:
        """Bring each field to its type, or raise."""
        types = typing.get_type_hints(type(self))
        for known in fields(self):
            setattr(self, known.name, _checked(known, getattr(self, known.name), types[known.name]))
        if self.warmup_epochs and self.schedule in ("onecycle", "poly", "plateau"):
            raise UsageError(f"--warmup-epochs: the schedule {self.schedule} has no warm-up; use step, multistep, "
                             "cosine, table or constant")

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """Of a mapping of fields.

        Raises
        ------
        UsageError
            An unknown field, or a value that does not fit.
        """
        if not isinstance(values, dict):
            raise UsageError(f"recipe: expected a mapping of fields, received {type(values).__name__}")
        names = [known.name for known in fields(cls)]
        for name in values:
            if name not in names:
                close = difflib.get_close_matches(str(name), names, 1)
                raise UsageError(f"recipe: unknown field {name!r}" + (f"; did you mean {close[0]!r}?" if close else
                                                                     f"; the fields are {', '.join(names)}"))
        return cls(**values)

    @classmethod
    def load(cls, name) -> Self:
        """A published recipe by name, or a YAML file by path."""
        return cls.from_dict(read_recipe(name))

    def changed(self, values: dict) -> Self:
        """With other values; with another optimizer its options, which were of the old one, are defaults again."""
        kept = asdict(self)
        if values.get("optimizer", self.optimizer) != self.optimizer:
            kept |= dict.fromkeys(OF_ONE_OPTIMIZER)
        if values.get("schedule", self.schedule) != self.schedule:
            kept["schedule_options"] = {}
        return self.from_dict({**kept, **values})

    def as_yaml(self) -> str:
        return yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True, width=100)

    def as_asked(self) -> dict:
        """The fields as a run's checkpoints keep them: what came later is left out at its default, so that older runs go on."""
        new = type(self)()
        return {name: value for name, value in asdict(self).items() if name not in self.later or value != getattr(new, name)}

    # What it stands for
    def trainer_options(self) -> dict:
        """Of :class:`~numbanet.train.Trainer`."""
        return {"accumulate": self.accumulate, "clip_norm": self.clip_norm, "ema_decay": self.ema_decay}

    def make_optimizer(self, model):
        """The optimiser of a model, with its groups of parameters."""
        kind, lr, defaults = OPTIMIZERS[self.optimizer]
        own = {name: value for name in OF_ONE_OPTIMIZER[1:] if (value := getattr(self, name)) is not None}
        options = {**defaults, **own}
        if options.get("momentum") == 0 and self.nesterov is None:
            options.pop("nesterov", None)
        known = kind([next(iter(model.parameters()))]).defaults
        for name in own:
            if name not in known:
                raise UsageError(f"--{name}: {self.optimizer} has no {name}; it takes {', '.join(known)}")
        decay = options.pop("weight_decay", None)
        groups = parameter_groups(model, self.lr or lr, layer_lr=self.layer_lr, weight_decay=decay,
                                  norm_weight_decay=self.norm_weight_decay, bias_weight_decay=self.bias_weight_decay)
        return kind(groups, lr=self.lr or lr, **options)

    def make_schedule(self, optimizer, steps_per_epoch: int):
        """(scheduler or None, "epoch" or "step")."""
        try:
            made, interval = self._schedule(optimizer, steps_per_epoch)
        except (TypeError, ValueError, NumbanetError) as error:
            raise UsageError(f"--schedule-options: {self.schedule} cannot be made of {self.schedule_options} ({error})") from error
        if self.warmup_epochs:
            warm = lr_scheduler.LinearLR(optimizer, 0.01, total_iters=self.warmup_epochs)
            made = lr_scheduler.SequentialLR(optimizer, [warm, made or lr_scheduler.ConstantLR(optimizer, 1.0)], [self.warmup_epochs])
        return made, interval

    def _schedule(self, optimizer, steps: int):
        options = dict(self.schedule_options)
        rates = [group["lr"] for group in optimizer.param_groups]
        match self.schedule:
            case "onecycle":
                return lr_scheduler.OneCycleLR(optimizer, rates, epochs=self.epochs, steps_per_epoch=steps,
                                               **{"cycle_momentum": False, **options}), "step"
            case "constant":
                if options:
                    raise ValueError("it has none")
                return None, "epoch"
            case "step":
                return lr_scheduler.StepLR(optimizer, **options), "epoch"
            case "multistep":
                return lr_scheduler.MultiStepLR(optimizer, **options), "epoch"
            case "cosine":
                return lr_scheduler.CosineAnnealingLR(optimizer, self.epochs - self.warmup_epochs, **options), "epoch"
            case "poly":
                return lr_scheduler.PolynomialLR(optimizer, self.epochs * steps, **options), "step"
            case "plateau":
                return lr_scheduler.ReduceLROnPlateau(optimizer, **options), "epoch"
            case "table":               # [[epochs, factor of lr], ...]; the last factor stays
                factors = [float(factor) for epochs, factor in options.pop("factors") for _ in range(int(epochs))]
                if options:
                    raise ValueError(f"it has no {', '.join(options)}")
                return lr_scheduler.LambdaLR(optimizer, lambda epoch: factors[min(epoch, len(factors) - 1)]), "epoch"


@dataclass
class Recipe(Fields):
    """What a run is asked for; written into its config.yaml."""

    later: ClassVar = ("task", "loss", "data_options", "precision", "distortions")

    model: str = recipe_field("", "a name from 'numbanet models'")
    model_options: dict = recipe_field({}, "options of the model, such as {dropout: 0.5}")
    task: str = recipe_field("classification", "what is learned", choices=("classification", "segmentation"))
    data: str | None = recipe_field(None, "folder of IDX files or class folders (default: the MNIST sample of the package); of a "
                                          "segmenter one of images/ and masks/, or a data set's name (default: synthetic_scenes); of a "
                                          "detector one of pictures with COCO's annotations")
    data_options: dict = recipe_field({}, "of a data set by name, such as {count: 2000, size: 64}")
    val_fraction: float = recipe_field(0.2, "share held out of class folders without val/ or test/",
                                 must=(lambda v: 0 < v < 1, "a number between 0 and 1"))
    epochs: int = recipe_field(25, "passes over the training images", 1)
    batch_size: int = recipe_field(64, "images per step", 1)
    accumulate: int = recipe_field(1, "batches for each update", 1)
    optimizer: str = recipe_field("sgd", "sgd (Nesterov by default), adam, adamw, rmsprop, or levenberg_marquardt (its diagonal)",
                                  choices=tuple(OPTIMIZERS))
    lr: float | None = recipe_field(None, "learning rate, of onecycle the peak (default: by optimiser)",
                              must=(lambda v: 0 < v < math.inf, "a number above 0"))
    momentum: float | None = recipe_field(None, "of sgd and rmsprop", 0)
    nesterov: bool | None = recipe_field(None, "of sgd")
    alpha: float | None = recipe_field(None, "decay of rmsprop's mean square", 0)
    eps: float | None = recipe_field(None, "of adam, adamw and rmsprop; levenberg_marquardt's mu", 0)
    weight_decay: float | None = recipe_field(None, "of all weights", 0)
    norm_weight_decay: float | None = recipe_field(None, "of normalisation layers (default: weight_decay)", 0)
    bias_weight_decay: float | None = recipe_field(None, "of biases (default: weight_decay)", 0)
    layer_lr: dict = recipe_field({}, "factors of the learning rate by layer, such as {fc: 10}")
    schedule: str = recipe_field("onecycle", "onecycle, constant, step, multistep, cosine, poly, plateau or table", choices=SCHEDULES)
    schedule_options: dict = recipe_field({}, "of the schedule, such as {step_size: 30, gamma: 0.1}, in epochs")
    warmup_epochs: int = recipe_field(0, "epochs in which the rate rises to its value", 0)
    loss: str | None = recipe_field(None, "of a segmenter: cross_entropy, dice, or dice+cross_entropy")
    clip_norm: float | None = recipe_field(None, "largest common norm of the gradients", 0)
    label_smoothing: float = recipe_field(0.0, "share of each target spread over all classes", 0, 0.999)
    mixup: float = recipe_field(0.0, "alpha of MixUp; 0 is none", 0)
    cutmix: float = recipe_field(0.0, "alpha of CutMix; 0 is none", 0)
    ema_decay: float | None = recipe_field(None, "decay of the moving average of the weights", 0, 0.999999)
    early_stopping: int | None = recipe_field(None, "epochs without a better validation loss after which it ends", 1)
    sync_batch_norm: bool = recipe_field(False, "on several processes, normalise by the statistics of the whole batch")
    weights: str | None = recipe_field(None, "weights to begin with; a last layer of other classes is made anew")
    freeze_until: str | None = recipe_field(None, "layer before which nothing learns, such as layer4")
    distort: bool = recipe_field(True, "small random affine distortions, where there are no train_transforms")
    distortions: dict = recipe_field({}, "their ranges, as RandomAffine's: degrees, translate, scale, shear (default: {degrees: 12, "
                                         "translate: [0.08, 0.08], scale: [0.85, 1.15], shear: 10})")
    train_transforms: list = recipe_field([], "of each training picture, such as [RandomHorizontalFlip, {RandomCrop: {size: 32}}]")
    resize: int | None = recipe_field(None, "shorter side that test pictures are scaled to before their centre is cut out", 1)
    checkpoint_every: int | None = recipe_field(None, "updates between checkpoints within an epoch", 1)
    keep_checkpoints: int = recipe_field(2, "newest checkpoints that are kept, besides the best", 1)
    workers: int = recipe_field(0, "threads that load pictures", 0)
    on_error: str = recipe_field("raise", "what a picture that cannot be read does: raise ends the run, skip leaves it out",
                           choices=("raise", "skip"))
    seed: int = recipe_field(0, "of weights, order and distortions")
    device: str = recipe_field("cpu", "cpu, cuda or reference")
    precision: str = recipe_field("float32", "mixed precision on cuda: bf16, or fp16 with a scaled loss",
                                  choices=("float32", "bf16", "fp16"))
    eager: bool = recipe_field(False, "record every step anew instead of replaying a compiled one")
    source: str = recipe_field("", "where the recipe is published, and what differs here")

    def __post_init__(self):
        self.check()
        make_transforms(self.train_transforms)
        try:
            AffineRanges(**self.distortions)
        except (TypeError, UsageError) as error:
            raise UsageError(f"--distortions: expected ranges of degrees, translate, scale and shear, received {self.distortions} "
                             f"({error})") from error

    def trainer_options(self) -> dict:
        return super().trainer_options() | {"label_smoothing": self.label_smoothing, "mixing": self.make_mixing(),
                                            "precision": self.precision}

    def make_distortions(self) -> dict | None:
        """Ranges of the affine maps that move training pictures, as :class:`~numbanet.data.transforms.RandomAffine` takes them."""
        return (self.distortions or DISTORTIONS) if self.distort else None

    def make_mixing(self) -> list:
        return [kind(alpha=alpha) for kind, alpha in ((MixUp, self.mixup), (CutMix, self.cutmix)) if alpha]


def make_transforms(listed: list) -> list:
    """Transforms of :mod:`numbanet.data.transforms` from names and options: ``["RandomHorizontalFlip", {"RandomCrop": {"size": 32}}]``."""
    made = []
    for entry in listed:
        name, options = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else (entry, {})
        if not isinstance(name, str) or not isinstance(options or {}, dict):
            raise UsageError(f"--train-transforms: expected a name, or {{name: {{option: value}}}}, received {entry!r}")
        kind = getattr(transforms, name, None)
        if not isinstance(kind, type) or name.startswith("_"):
            known = [n for n in transforms.__all__ if isinstance(getattr(transforms, n), type)]
            close = difflib.get_close_matches(name, known, 1)
            raise UsageError(f"--train-transforms: no transform {name!r}" + (f"; did you mean {close[0]}?" if close else
                                                                            f"; there are {', '.join(known)}"))
        try:
            made.append(kind(**(options or {})))
        except (TypeError, ValueError) as error:
            raise UsageError(f"--train-transforms: {name} cannot be made of {options} ({error})") from error
    return made


def list_recipes() -> list[str]:
    """The names of the published recipes."""
    return sorted(entry.name.removesuffix(".yaml") for entry in files("numbanet.train.recipes").iterdir() if entry.name.endswith(".yaml"))


def read_recipe(name) -> dict:
    """The fields of a published recipe, or of a YAML file."""
    path, known = Path(name), list_recipes()
    if str(name) in known:
        text, origin = (files("numbanet.train.recipes") / f"{name}.yaml").read_text(encoding="utf-8"), f"recipe {name}"
    elif path.suffix.lower() in (".yaml", ".yml") or path.is_file():
        try:
            text, origin = path.read_text(encoding="utf-8"), str(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"--recipe: {path} cannot be read ({error})") from error
    else:
        close = difflib.get_close_matches(str(name), known, 1)
        raise UsageError(f"--recipe: no recipe {str(name)!r}" + (f"; did you mean {close[0]}?" if close else "")
                         + f"; there are {', '.join(known)}, or give a .yaml file")
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{origin}: not YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{origin}: expected a mapping of fields, received {type(values).__name__}")
    return values


def _checked(known, value, kind):
    """A field's value, or an error that names it as the command line does."""
    flag, facts = f"--{known.name.replace('_', '-')}", known.metadata
    allowed = typing.get_args(kind) or (kind,)
    if value is None and type(None) in allowed:
        return None
    if float in allowed and not isinstance(value, bool):
        try:
            value = float(value)                        # YAML reads 1e-3 as a string
        except (TypeError, ValueError):
            pass
    kinds = tuple(kind for kind in allowed if kind is not type(None))
    if not isinstance(value, kinds) or isinstance(value, bool) and bool not in kinds:
        raise UsageError(f"{flag}: expected {' or '.join(WORDS[kind] for kind in kinds)}, received {value!r}")
    if facts["must"] is not None and not facts["must"][0](value):
        raise UsageError(f"{flag}: expected {facts['must'][1]}, received {value}")
    low, high, choices = facts["low"], facts["high"], facts["choices"]
    if low is not None and not value >= low:
        raise UsageError(f"{flag}: expected at least {low}, received {value}")
    if high is not None and not value <= high:
        raise UsageError(f"{flag}: expected at most {high}, received {value}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{flag}: expected a number, received {value}")
    if choices is not None and value not in choices:
        raise UsageError(f"{flag}: expected one of {', '.join(choices)}, received {value!r}")
    return value


WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false", dict: "a mapping", list: "a list"}
