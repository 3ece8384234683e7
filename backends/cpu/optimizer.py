"""Optimizer on the CPU."""
