"""REAPER's fade curves, as it draws them: a cubic from (0, 0) to (1, 1) by shape and bend.

The control points are the ones that Cockos gave to the SWS extension. What REAPER plays is close to what it draws but
not the same; only the straight line is exact, so callers note every other one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = tuple[float, float, float, float]  # x and y of the second point, x and y of the third

_LINE: Final[Points] = (0.5, 0.5, 0.5, 0.5)
_EARLY: Final[Points] = (0.25, 0.5, 0.625, 1.0)
_EARLIER: Final[Points] = (0.25, 1.0, 0.5, 1.0)
_EARLIEST: Final[Points] = (0.0, 1.0, 0.125, 1.0)
_LATE: Final[Points] = (0.375, 0.0, 0.75, 0.5)
_LATER: Final[Points] = (0.5, 0.0, 0.75, 0.0)

# By shape: bent to -1 (rises early), not bent, bent to 1 (rises late). Shapes 3 and 4 are 0 with another first bend.
_CURVES: Final[dict[int, tuple[Points, Points, Points]]] = {
    0: (_EARLIER, _LINE, _LATER),
    1: (_EARLIEST, _EARLY, _LATER),
    2: (_EARLY, _LINE, _LATE),
    5: ((0.25, 0.25, 0.25, 1.0), (0.375, 0.0, 0.625, 1.0), (0.75, 0.0, 0.75, 0.75)),
    6: ((0.375, 0.25, 0.0, 1.0), (0.875, 0.0, 0.125, 1.0), (1.0, 0.0, 0.625, 0.75)),
    7: (_EARLIEST, (0.25, 0.375, 0.625, 1.0), _LATER),
}
_STEPS: Final = 4096  # of the curve's parameter; straight lines between them are off by less than 1e-6


class FadeShape(NamedTuple):
    """One of an item's fades, seen from the item's edge inwards. bend: -1 rises early to 1 rises late."""

    length_s: float
    shape: int
    bend: float

    @property
    def straight(self) -> bool:
        """Whether its gain is the straight line, which is exact."""
        return _points(self.shape, self.bend) == _LINE

    def gain(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The gain at x from 0 (the item's edge) to 1 (where the fade ends), in the shape of `x`."""
        if self.straight:
            return x
        return np.interp(x, *_curve(_points(self.shape, self.bend)))


def _points(shape: int, bend: float) -> Points:
    early, middle, late = _CURVES.get(shape, _CURVES[0])
    bend = min(max(bend, -1.0), 1.0) if 0 <= shape <= 7 else 0.0
    end, part = (early, -bend) if bend < 0 else (late, bend)
    x1, y1, x2, y2 = ((1 - part) * a + part * b for a, b in zip(middle, end, strict=True))
    return x1, y1, x2, y2


@lru_cache(maxsize=64)
def _curve(points: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    u = np.linspace(0.0, 1.0, _STEPS + 1)
    x1, y1, x2, y2 = points
    first, second, third = 3 * (1 - u) ** 2 * u, 3 * (1 - u) * u * u, u**3
    return first * x1 + second * x2 + third, first * y1 + second * y2 + third
