"""Elementwise on the CPU."""
