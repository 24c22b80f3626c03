"""Colours for dimensions: as far apart as many colours can be, the same ones every time."""

from __future__ import annotations

import math

GOLDEN_ANGLE = 180 * (3 - math.sqrt(5))
"""Degrees between the hues of neighbours: every run of consecutive hues is spread evenly around the circle."""

_TONES = ((0.60, 0.17), (0.70, 0.13), (0.52, 0.15))
"""(lightness, chroma) in OKLCH, taken in turn: all of them stand out from white and from near-black."""


def colour(number: int) -> str:
    """Return the CSS colour of the dimension with this number."""
    lightness, chroma = _TONES[number % len(_TONES)]
    hue = (250 + number * GOLDEN_ANGLE) % 360
    return f"oklch({lightness} {chroma} {hue:.1f})"
