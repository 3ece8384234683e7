"""Reduction on the CPU."""
