"""Normalization on the CPU: by channels (batch, group, instance), by rows (layer), across channels (local response)."""

from numbanet.backends.cpu.normalization import batch, channels, local_response, rows  # noqa: F401
