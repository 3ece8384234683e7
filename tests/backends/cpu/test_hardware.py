"""What the CPU backend reports about the machine."""
import os

import pytest

from numbanet.backends.cpu import hardware
from numbanet.errors import BackendError


@pytest.mark.parametrize("features, width", [({"avx512f", "avx2", "avx"}, 16), ({"avx2", "avx"}, 8), ({"avx"}, 8),
                                             ({"sse2"}, 4), ({"neon"}, 4)])
def test_the_vector_width_follows_the_instruction_set(monkeypatch, features, width):
    monkeypatch.delenv("NUMBANET_SIMD_WIDTH", raising=False)
    monkeypatch.setattr(hardware, "cpu_features", lambda: frozenset(features))
    assert hardware.simd_width.__wrapped__() == width


def test_the_vector_width_can_be_set(monkeypatch):
    monkeypatch.setenv("NUMBANET_SIMD_WIDTH", "8")
    assert hardware.simd_width.__wrapped__() == 8
    monkeypatch.setenv("NUMBANET_SIMD_WIDTH", "12")
    with pytest.raises(BackendError, match="expected 4, 8 or 16, received '12'"):
        hardware.simd_width.__wrapped__()


def test_numbas_own_variables_are_obeyed(monkeypatch):
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    monkeypatch.delenv("NUMBA_CPU_FEATURES", raising=False)
    assert hardware.cpu_name.__wrapped__() == "generic"
    monkeypatch.setattr(hardware, "cpu_name", lambda: "generic")
    assert hardware.cpu_features.__wrapped__() == frozenset()
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+fma,-avx2,+avx")
    assert hardware.cpu_features.__wrapped__() == {"fma", "avx"}


def test_cache_sizes_and_cores_are_plausible():
    caches = hardware.cache_sizes()
    assert 8 * 1024 <= caches.l1 <= caches.l2 <= max(caches.l2, caches.l3)
    assert 1 <= hardware.available_cores() <= os.cpu_count()
    assert hardware.cpu_model() and hardware.cpu_name()


@pytest.mark.parametrize("text, size", [("32K", 32768), ("2M", 2 << 20), ("512", 512)])
def test_sizes_are_read_with_their_units(text, size):
    assert hardware._parse_size(text) == size
