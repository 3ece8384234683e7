"""Weights in and out: safetensors, ``.npz`` and PyTorch's ``.pt`` / ``.pth``, told apart by content. Nothing is ever unpickled."""

from numbanet.weights.loading import load_weights, save_weights

__all__ = ["load_weights", "save_weights"]
