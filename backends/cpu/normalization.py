"""Normalization on the CPU."""
