"""Convolutions of a map that is normalised as it is read (see `contract/preactivation.py`): composed of plain primitives here."""
