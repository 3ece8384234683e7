"""The models that can be made by name: numbanet's own and those of installed packages.

A package adds models through the entry-point group ``numbanet.models``: each entry point names a module (or any object)
whose loading registers them with :func:`register_model`.
"""

from __future__ import annotations

import difflib
import fnmatch
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points

from numbanet.errors import UsageError
from numbanet.nn import init
from numbanet.nn.matching import without_prefix
from numbanet.weights import load_weights
from numbanet.zoo.network import FeatureExtractor, Network

ENTRY_POINT_GROUP = "numbanet.models"
# Of the pixels of ImageNet's training set, scaled to 0..1: what published weights of its networks expect subtracted and divided by.
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model before it is made."""

    name: str
    create: Callable = field(repr=False)
    input_size: tuple[int, int, int]        # (C, H, W)
    num_classes: int
    mean: tuple[float, ...]                 # of pixels scaled to 0..1, per channel: what the model expects subtracted
    std: tuple[float, ...]
    description: str                        # the first line of the function's docstring
    paper: str
    parameters: int | None = None           # trainable, at the model's own number of classes
    multiply_adds: int | None = None        # of one input of `input_size`, border taps included; tests check both
    interpolation: str = "bilinear"         # how pictures are scaled
    channel_order: str = "rgb"              # or "bgr"; mean and std are in this order
    crop_pct: float = 1.0                   # the part of the scaled picture's shorter side that the network sees

    @property
    def family(self) -> str:
        """The networks of one paper, or of one reading of it: the module that makes them."""
        return self.create.__module__.rpartition(".")[2]


_models: dict[str, ModelInfo] = {}


def register_model(function: Callable | None = None, *, input_size=(3, 224, 224), num_classes: int = 1000, mean=None,
                   std=None, paper: str = "", **facts):
    """Register a function ``(num_classes=..., in_chans=..., **options) -> Module`` under its name (decorator).

    `facts` are further fields of :class:`ModelInfo`. `mean` and `std` default to 0 and 1.

    Raises
    ------
    UsageError
        The name is taken.
    """
    def register(create: Callable) -> Callable:
        name = create.__name__
        if name in _models:
            raise UsageError(f"register_model: {name} is already registered by {_models[name].create.__module__}; "
                             "choose another name")
        channels = input_size[0]
        _models[name] = ModelInfo(name, create, tuple(input_size), num_classes,
                                  tuple(mean or (0.0,) * channels), tuple(std or (1.0,) * channels),
                                  (create.__doc__ or "").strip().partition("\n")[0], paper, **facts)
        return create
    return register if function is None else register(function)


@cache
def _load_plugins() -> None:
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry_point.load()
        except Exception as error:      # a broken package must not hide all other models
            logging.getLogger(__name__).warning("models of %s could not be loaded: %s", entry_point.value, error)


def model_info(name: str) -> ModelInfo:
    """What is known of a model.

    Raises
    ------
    UsageError
        No model has that name; the message names the nearest.
    """
    _load_plugins()
    if name not in _models:
        close = difflib.get_close_matches(name, _models, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"list_models() names all {len(_models)}"
        raise UsageError(f"create_model: there is no model {name!r}; {hint}")
    return _models[name]


def list_models(filter: str = "*") -> list[str]:
    """The names of all models that match a shell pattern, sorted."""
    _load_plugins()
    return sorted(fnmatch.filter(_models, filter))


def create_model(name: str, num_classes: int | None = None, in_chans: int | None = None, features_only: bool = False,
                 out_indices=None, weights=None, **options):
    """A new model, with random weights or those of a file.

    Parameters
    ----------
    name : str
        One of :func:`list_models`.
    num_classes, in_chans : int, optional
        Other than the model's own numbers of classes and input channels; by default those of the weights.
    features_only : bool
        The maps of the trunk's stages (those of `out_indices`, by default all) instead of a classifier.
    weights : path or (arrays, metadata), optional
        What :func:`numbanet.load_weights` reads, or has read. The model is made without initial values and adopts the arrays of the
        file, which are mapped into memory and read when they are used. What the file tells of its classes and of how pictures become
        input stands in ``model.class_names`` (a list) and ``model.preprocessing`` (a dict), None where it does not.
    options
        Passed to the model's function.

    Raises
    ------
    UsageError
        No model has that name; `features_only` of a model without stages.
    CheckpointError
        The weights cannot be read, or are not those of this model.
    """
    info = model_info(name)
    if weights is None:
        model = _make(info, num_classes, in_chans, options)
    else:
        model = _make_with(weights if isinstance(weights, tuple) else load_weights(weights), info, num_classes, in_chans, options)
    if not features_only:
        return model
    if not isinstance(model, Network):
        raise UsageError(f"create_model: features_only expects a network with stages, {name} has none; call its forward_features")
    return FeatureExtractor(model, out_indices)


def _make(info: ModelInfo, num_classes: int | None, in_chans: int | None, options: dict):
    model = info.create(num_classes=info.num_classes if num_classes is None else num_classes,
                        in_chans=info.input_size[0] if in_chans is None else in_chans, **options)
    model.__dict__["input_size"] = info.input_size[1:]
    return model


def _make_with(loaded: tuple[dict, dict], info: ModelInfo, num_classes: int | None, in_chans: int | None, options: dict):
    """A model around the arrays of a file of weights."""
    arrays, metadata = loaded
    stored = {key: metadata[key] for key in ("num_classes", "in_chans") if type(metadata.get(key)) is int}
    given = stored.get("num_classes") if num_classes is None else num_classes
    with init.skip():
        model = _make(info, given, stored.get("in_chans") if in_chans is None else in_chans, options)
        arrays = without_prefix(arrays, model.state_dict())
        if given is None and isinstance(model, Network):
            last = arrays.get(f"{model.classifier_path}.weight")
            if last is not None and last.ndim and len(last) not in (0, model.num_classes):
                model.reset_classifier(len(last))
    model.load_state_dict(arrays, assign=True)
    model.class_names, model.preprocessing = metadata.get("classes"), metadata.get("preprocessing")
    return model
