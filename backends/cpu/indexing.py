"""Indexing on the CPU."""
