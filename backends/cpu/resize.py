"""Resize on the CPU."""
