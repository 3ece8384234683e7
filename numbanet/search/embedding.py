"""Pictures as vectors: what a layer of a network makes of them, averaged over positions and brought to length 1."""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path

import numpy as np

import numbanet
from numbanet import nn
from numbanet._tensor import Tensor
from numbanet.errors import DataError, UsageError
from numbanet.train.prediction import Classifier, load_classifier
from numbanet.train.preprocessing import Preprocessing
from numbanet.vision.layers import Activation, find_layer, only, record_activations
from numbanet.zoo import create_model, list_models, model_info
from numbanet.zoo.network import Network

logger = logging.getLogger("numbanet.search")

BATCH_SIZE = 32


class _Reached(Exception):
    """The layer has been computed; what follows it is not needed."""


class Features(nn.Module):
    """The features of a network (N, C, H, W) -> (N, D): a layer's output, or what is put into it, averaged over positions; of length 1.

    Features that are all 0 stay so.

    Parameters
    ----------
    model : Module
    layer : str
        Its path.
    side : "output" or "input"
    """

    def __init__(self, model: nn.Module, layer: str, side: str = "output"):
        super().__init__()
        find_layer(model, layer)
        self.model, self.layer, self.side = model, layer, side

    def forward(self, x):
        features = self._tapped(x)
        if not isinstance(features, Tensor) or features.ndim not in (2, 4):
            what = f"a tensor of shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
            raise UsageError(f"embed: layer {self.layer} gives {what}; expected maps (N, C, H, W) or features (N, D): choose another layer")
        if features.ndim == 4:
            features = features.mean((2, 3))                            # (N, C)
        length = (features * features).sum(1, keepdim=True).sqrt()
        return features / length.clamp(min=1e-12)

    def _tapped(self, x):
        found = []

        def before(_module, inputs):
            found.append(inputs[0])
            raise _Reached

        def after(_module, _inputs, output):
            found.append(only(output))
            raise _Reached

        module = self.model.get_submodule(self.layer)
        handle = module.register_forward_pre_hook(before) if self.side == "input" else module.register_forward_hook(after)
        try:
            self.model(x)
        except _Reached:
            pass
        finally:
            handle.remove()
        if not found:
            raise UsageError(f"embed: the network did not run layer {self.layer}; choose another one")
        return found[0]


class Embedder:
    """Makes vectors of pictures with one layer of a network.

    Parameters
    ----------
    model : Module
    preprocessing : Preprocessing
        How a picture becomes the network's input.
    layer : str, optional
        Whose output is taken; by default what feeds the classifier.
    device : str
    raw : bool
        Of networks for digits: take pictures as they are, without making them look as MNIST's do.
    batch_size : int
        Pictures that go through the network together.

    Attributes
    ----------
    dimension : int
        Of the vectors.
    fingerprint : str
        Equal for embedders that give the same vectors: of weights, layers and preprocessing.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, layer: str | None = None, device: str = "cpu", raw: bool = False,
                 batch_size: int = BATCH_SIZE):
        if batch_size < 1:
            raise UsageError(f"Embedder: batch_size expects at least 1, received {batch_size}")
        self.model, self.preprocessing, self.device, self.raw = model.to(device).eval(), preprocessing, device, raw
        self.batch_size = batch_size
        self.layer, self.side = (layer, "output") if layer is not None else (feeding_layer(model, preprocessing), "input")
        self._transform = preprocessing.batch_transform()
        self._features = Features(model, self.layer, self.side)
        self._lock = threading.Lock()
        self._compiled = None
        with numbanet.no_grad():
            one = self._features(numbanet.zeros(1, *preprocessing.input_size, device=device))
        self.dimension = int(one.shape[1])
        self.fingerprint = _fingerprint(self)

    @property
    def layer_text(self) -> str:
        """The layer in words."""
        return self.layer if self.side == "output" else f"what feeds {self.layer}"

    def read(self, source) -> np.ndarray:
        """A picture (path or open binary file) as uint8 of the network's size.

        Raises
        ------
        DataError
            It is no image, broken or too large.
        """
        return self.preprocessing.read(source, self.raw)

    def batch(self, pictures: list[np.ndarray]) -> np.ndarray:
        """Pictures from :meth:`read` as network input, float32 (N, C, H, W)."""
        return self._transform(np.stack(pictures))

    def embed_batch(self, x: np.ndarray) -> np.ndarray:
        """Vectors (N, D) of network input (N, C, H, W).

        Plans are made for 1, 2, 4, ... pictures at once; what is left over is filled up with zeros.
        """
        found = np.empty((len(x), self.dimension), np.float32)
        for first in range(0, len(x), self.batch_size):
            part = x[first:first + self.batch_size]
            size, wanted = len(part), min(self.batch_size, 1 << (len(part) - 1).bit_length())
            if size < wanted:
                part = np.concatenate([part, np.zeros((wanted - size, *x.shape[1:]), np.float32)])
            part = numbanet.tensor(part, device=self.device)
            with self._lock:
                if self._compiled is None:
                    self._compiled = numbanet.compile(self._features, part)
            found[first:first + size] = self._compiled(part).numpy()[:size]
        return found

    def __call__(self, pictures) -> np.ndarray:
        """The vectors (N, D), float32, of pictures: paths, open binary files, or Pillow images.

        Raises
        ------
        DataError
            One of them is no image, broken or too large, or its features are not finite.
        """
        found = np.empty((len(pictures), self.dimension), np.float32)
        for first in range(0, len(pictures), self.batch_size):
            some = [self.preprocessing.pixels(p, self.raw) if hasattr(p, "getbbox") else self.read(p)
                    for p in pictures[first:first + self.batch_size]]
            found[first:first + len(some)] = self.embed_batch(self.batch(some))
        bad = np.flatnonzero(~np.isfinite(found).all(1))
        if len(bad):
            raise DataError(f"picture {bad[0]}: {NOT_FINITE}")
        return found


NOT_FINITE = "the network's features are not finite numbers; see whether its weights are"


def open_embedder(source, layer: str | None = None, device: str = "cpu", *, model: str | None = None, metadata=None, raw: bool = False,
                  batch_size: int = BATCH_SIZE) -> Embedder:
    """The embedder of a run folder, a file of weights, an ONNX file, or a model of the zoo by name, which has random weights then.

    Parameters
    ----------
    source : path or str
    layer : str, optional
        Whose output is taken; by default what feeds the classifier.
    model, metadata
        As of :func:`~numbanet.train.prediction.load_classifier`.

    Raises
    ------
    CheckpointError, OnnxError
        The file cannot be read.
    UsageError
        There is no such layer or model.
    """
    return Embedder(*_open(source, device, model, metadata), layer, device, raw, batch_size)


def _open(source, device, model, metadata) -> tuple[nn.Module, Preprocessing]:
    path = Path(source)
    if not path.exists() and (str(source) in list_models() or not path.suffix and len(path.parts) == 1):
        info = model_info(str(source))          # says which name is near
        from numbanet.random import fork_rng, manual_seed
        logger.warning("%s has random weights, which find similar colours and textures at best; give a run folder or weights", source)
        with fork_rng():
            manual_seed(0)
            return create_model(info.name), Preprocessing.for_model(info)
    if path.suffix.lower() == ".onnx":
        from numbanet.train.onnx_prediction import load_onnx_classifier
        if model is not None:
            raise UsageError("--model: a .onnx file holds its network; leave it out")
        found: Classifier = load_onnx_classifier(path, device, metadata)
    else:
        found = load_classifier(path, device, model, metadata)
    return found.model, found.preprocessing


def feeding_layer(model: nn.Module, preprocessing: Preprocessing) -> str:
    """The path of the classifier: the layer that a network of the zoo names, of others the last layer with weights that runs.

    Raises
    ------
    UsageError
        No layer has weights.
    """
    if isinstance(model, Network) and not isinstance(model.get_classifier(), nn.Identity):
        return model.classifier_path
    activations, _ = record_activations(model, numbanet.zeros(1, *preprocessing.input_size, device=_device(model)))
    weighted = [a.path for a in activations if _has_matrix(a)]
    if not weighted:
        raise UsageError(f"embed: no layer of {type(model).__name__} has weights; name the layer with --layer")
    return weighted[-1]


def _has_matrix(activation: Activation) -> bool:
    return any(p.ndim >= 2 for p in activation.module.parameters()) and len(activation.inputs) > 0


def _device(model: nn.Module) -> str:
    member = next(model.parameters(), None)
    return "cpu" if member is None else str(member.device)


def _fingerprint(embedder: Embedder) -> str:
    """A hash of all that the vectors depend on."""
    digest = hashlib.sha256()
    said = (repr(embedder.model), embedder.layer, embedder.side, embedder.raw, sorted(embedder.preprocessing.as_metadata().items()))
    digest.update(repr(said).encode())
    for name, value in sorted(embedder.model.state_dict().items()):
        value = np.ascontiguousarray(value.detach().cpu().numpy())
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(value.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
