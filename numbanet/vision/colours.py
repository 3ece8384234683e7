"""Numbers as colours: a scale from dark to bright, and one that shows the sign."""

from __future__ import annotations

import numpy as np

# Colours at even distances, between which is interpolated. Their lightness rises evenly, so that grey prints keep the order.
_STOPS = {
    "heat": ((0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10), (249, 201, 50),
             (252, 255, 164)),
    "maps": ((68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142), (31, 158, 137), (53, 183, 121), (109, 205, 89),
             (180, 222, 44), (253, 231, 37)),
    "signed": ((16, 70, 140), (67, 132, 196), (160, 200, 228), (247, 247, 247), (250, 190, 150), (220, 110, 70), (150, 25, 30)),
    "grey": ((0, 0, 0), (255, 255, 255)),
}
NAMES = tuple(_STOPS)


def colour_table(name: str) -> np.ndarray:
    """256 colours, uint8 (256, 3), of "heat", "maps", "signed" (blue below 0, white, red above) or "grey"."""
    stops = np.asarray(_STOPS[name], np.float64)
    at = np.linspace(0, len(stops) - 1, 256)
    return np.stack([np.interp(at, np.arange(len(stops)), stops[:, c]) for c in range(3)], 1).round().astype(np.uint8)


def colourise(values: np.ndarray, name: str = "maps", low: float | None = None, high: float | None = None) -> np.ndarray:
    """Values as colours.

    Parameters
    ----------
    values : array (H, W)
        NaN becomes mid-grey.
    low, high : float, optional
        What the ends of the scale stand for; by default the extremes, and for "signed" the same distance on both sides of 0.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W, 3)
    """
    values = np.asarray(values, np.float64)
    low, high = limits(values, name) if low is None or high is None else (low, high)
    share = (values - low) / (high - low) if high > low else np.full(values.shape, 0.5 if name == "signed" else 0.0)
    known = ~np.isnan(share)
    index = np.clip(np.where(known, share, 0) * 255, 0, 255).round().astype(np.uint8)
    return np.where(known[..., None], colour_table(name)[index], np.uint8(128))


def limits(values: np.ndarray, name: str = "maps") -> tuple[float, float]:
    """The ends of a scale for these values, of which infinite ones and NaN do not count."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    if name == "signed":
        most = float(np.abs(values).max()) or 1.0
        return -most, most
    return float(values.min()), float(values.max())
