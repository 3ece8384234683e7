"""Losses: `classification` (over class indices) and `elementwise`. See `contract/loss.py` for the formulas."""

from numbanet.backends.cuda.loss import classification, elementwise  # noqa: F401
