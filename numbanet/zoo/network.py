"""What the networks of the zoo have in common: a trunk that can be cut at its stages, and a head that can be replaced."""

from __future__ import annotations

from typing import NamedTuple

from numbanet import nn
from numbanet.errors import ShapeError, UsageError


class Stage(NamedTuple):
    """Where the trunk can be tapped: the path of a module, the channels of its output, input pixels per output pixel."""

    module: str
    channels: int
    reduction: int


class Network(nn.Module):
    """A classifier: :meth:`forward_features` gives maps (N, C, H, W), :meth:`forward_head` makes logits of them.

    A subclass sets, before its first forward:

    classifier_path : str, of the class
        Of the layer that gives the logits, ``Linear`` or ``Conv2d``.
    stages : tuple of Stage
        The last maps of each resolution, in order; what ``features_only`` hands out.
    num_classes, num_features, in_chans : int
    minimum_size : int
        Of the input's height and width.
    """

    classifier_path: str
    stages: tuple[Stage, ...] = ()
    num_classes: int
    num_features: int
    in_chans: int
    minimum_size: int = 1

    def check_input(self, x) -> None:
        """To be called first by :meth:`forward_features`.

        Raises
        ------
        ShapeError
            x is not (N, in_chans, H, W), or smaller than the trunk can take.
        """
        name, least = type(self).__name__, self.minimum_size
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            remedy = f"; make the model with in_chans={x.shape[1]}" if x.ndim == 4 else ""
            raise ShapeError(f"{name}: x expects (N, {self.in_chans}, H, W), received {tuple(x.shape)}{remedy}")
        if min(x.shape[2:]) < least:
            raise ShapeError(f"{name}: x expects at least {least} rows and columns, received {tuple(x.shape)}; enlarge or pad the pictures")

    def forward_features(self, x):
        raise NotImplementedError

    def forward_head(self, features):
        raise NotImplementedError

    def forward(self, x):
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The layer that gives the logits; an Identity after ``reset_classifier(0)``."""
        return self.get_submodule(self.classifier_path)

    def reset_classifier(self, num_classes: int) -> None:
        """A new last layer, freshly initialised, for another number of classes; 0 takes it away: the head gives features."""
        check_num_classes(num_classes)
        self._replace(self.classifier_path, self.make_classifier(num_classes) if num_classes else nn.Identity())
        self.num_classes = num_classes

    def make_classifier(self, num_classes: int) -> nn.Module:
        """The last layer for so many classes (1 or more)."""
        old = self.get_classifier()
        if isinstance(old, nn.Conv2d):
            return nn.Conv2d(old.in_channels, num_classes, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
        return nn.Linear(self.num_features, num_classes)

    def to_fully_convolutional(self, input_size=None):
        """This classifier with convolutions in place of full connections: larger pictures give maps of logits.

        Parameters
        ----------
        input_size : (H, W), optional
            Of the pictures that one window is; by default what the model was registered with.

        Returns
        -------
        FullyConvolutional : (N, C, H, W) to (N, num_classes, OH, OW), 1 x 1 at the size `input_size`; see
            :func:`~numbanet.zoo.fully_convolutional.fully_convolutional`
        """
        from numbanet.zoo.fully_convolutional import fully_convolutional
        return fully_convolutional(self, input_size)

    def _replace(self, path: str, new: nn.Module) -> None:
        """Put a layer in the place of another, on its device, of its dtype and mode."""
        place = next(self.parameters(), None)
        if place is not None:
            new.to(device=place.device, dtype=place.dtype)
        parent, _, name = path.rpartition(".")
        setattr(self.get_submodule(parent), name, new.train(self.training))


def check_num_classes(num_classes: int) -> None:
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 0:
        raise UsageError(f"reset_classifier: num_classes expects an integer of at least 0, received {num_classes!r}")


class FeatureExtractor(nn.Module):
    """The maps of some stages of a network, as a list; what comes after the last of them is not computed.

    Parameters
    ----------
    network : Network
    out_indices : tuple of int, optional
        Which of the network's stages, negative from the end; all by default.

    Attributes
    ----------
    stages : tuple of Stage
        Those handed out: ``.channels`` and ``.reduction`` of each, for the layers that are built on them.
    """

    def __init__(self, network: Network, out_indices=None):
        super().__init__()
        known = network.stages
        if not known:
            raise UsageError(f"features_only: {type(network).__name__} names no stages; call forward_features instead")
        try:
            self.stages = known if out_indices is None else tuple(known[i] for i in out_indices)
        except (IndexError, TypeError) as error:
            raise UsageError(f"features_only: out_indices expects indices of {len(known)} stages, received {out_indices!r}") from error
        self.network = network

    def forward(self, x):
        found = {}
        last = max(self.stages, key=self.network.stages.index).module
        handles = []

        def keep(name):
            def hook(_module, _inputs, output):
                found[name] = output
                if name == last:
                    raise _Reached
            return hook
        try:
            for name in {stage.module for stage in self.stages}:
                handles.append(self.network.get_submodule(name).register_forward_hook(keep(name)))
            self.network.forward_features(x)
        except _Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return [found[stage.module] for stage in self.stages]


class _Reached(Exception):
    """The last stage that was asked for has been computed."""
