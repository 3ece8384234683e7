"""Normalization: by channels (batch), by rows (group, instance, layer), across channels (local response)."""

from numbanet.backends.cuda.normalization import batch, local_response, rows  # noqa: F401
