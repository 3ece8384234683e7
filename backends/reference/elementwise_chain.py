"""Elementwise chains: composed of plain primitives."""
