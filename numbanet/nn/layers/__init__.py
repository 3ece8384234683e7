"""Layers by concern; :mod:`numbanet.nn` exports them all."""
