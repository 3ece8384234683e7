"""Softmax on the CPU."""
