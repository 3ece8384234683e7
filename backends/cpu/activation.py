"""Activation on the CPU."""
