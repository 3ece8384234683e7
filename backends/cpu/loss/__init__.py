"""Losses: `classification` (over class indices) and `elementwise`. See `contract/loss.py` for the formulas."""

from numbanet.backends.cpu.loss import classification, elementwise  # noqa: F401
