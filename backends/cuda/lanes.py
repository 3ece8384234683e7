"""What kernels know of the lanes of a piece, by the compiler's words (`pieces.py`) or the simulator's."""

from __future__ import annotations

from numbanet.backends.cuda.compile import SIMULATED

if SIMULATED:
    from numbanet.backends.cuda.simulator import element, first_of, lane_numbers, lanes, turned
else:
    from numbanet.backends.cuda.pieces import element, first_of, lane_numbers, lanes, turned

__all__ = ["element", "first_of", "lane_numbers", "lanes", "turned"]
