"""Image on the CPU."""
