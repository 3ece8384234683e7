"""Looking at networks and runs: filters, feature maps, receptive fields, and what made a network decide."""

from __future__ import annotations

import importlib

# Where each public name is; loaded when it is first used.
_WHERE = {
    "GradCAM": "cam", "GradCAMPlusPlus": "cam", "show_cam_on_image": "cam",
    "ClassifierOutputTarget": "targets", "ClassifierOutputSoftmaxTarget": "targets",
    "Saliency": "gradients", "SmoothGrad": "gradients", "IntegratedGradients": "gradients", "GuidedBackprop": "gradients",
    "Occlusion": "occlusion", "maximise": "maximisation",
    "METHODS": "explaining", "explain": "explaining",
    "FILTERS": "classical", "convolve": "classical", "parse_filter": "classical",
    "sliding_windows": "heatmaps", "WindowScores": "heatmaps",
    "record_activations": "layers", "find_layer": "layers", "layer_names": "layers",
    "strongest_maps": "features", "kernels_of": "filters",
    "compare_architectures": "comparison", "architecture_table": "comparison", "draw_architectures": "comparison",
    "ReceptiveField": "fields", "receptive_field": "fields", "effective_field": "fields",
}

__all__ = list(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'numbanet.vision' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"numbanet.vision.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
