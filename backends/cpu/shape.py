"""Shape on the CPU."""
