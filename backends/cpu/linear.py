"""Linear on the CPU."""
