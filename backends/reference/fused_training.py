"""What training fuses: composed of plain primitives."""
