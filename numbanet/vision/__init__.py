"""Looking at networks and runs."""
