"""Loss on the CPU."""
