"""Random on the CPU."""
