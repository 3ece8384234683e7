"""torchvision as an oracle, also beside a PyTorch that it was not built for."""

from __future__ import annotations

import functools

import pytest


@functools.cache
def _import():
    import torch
    try:
        import torchvision
    except RuntimeError:        # its operators are not registered: models need none of them, but importing asks for two
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _import.library = library       # definitions last as long as this object
        import torchvision
    return torchvision


def torchvision():
    """The package; the calling test is skipped where it is not installed."""
    pytest.importorskip("torch")
    try:
        return _import()
    except ImportError:
        pytest.skip("torchvision is not installed")


def peer_names() -> set[str]:
    """The names of torchvision's classifiers."""
    package = torchvision()
    return set(package.models.list_models(module=package.models))


def make_peer(name: str):
    """torchvision's model, mostly without values: load a state with `assign=True`."""
    import torch
    package = torchvision()
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    # Nothing is initialised on the device "meta"; RegNet computes its widths with tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        return package.models.get_model(name, weights=None, **options)
