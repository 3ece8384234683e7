"""Fixtures of the tests of training."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch):
    """No test cuts the power, and disks take their time."""
    monkeypatch.setattr(os, "fsync", lambda _handle: None)
