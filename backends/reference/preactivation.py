"""Convolutions of a map that is normalised as it is read: composed of plain primitives."""
