"""Measuring a take on the arrays before and after: is it as long, as loud, as smooth and as untouched as promised?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from punchin.session.report import Report
from punchin.session.splice import Fades

Audio = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Span:
    """Where the region lies in the arrays that are measured, and where the bars are around it."""

    rate_hz: int
    start_frame: int
    end_frame: int
    bar_lines_frames: tuple[int, ...] = ()  # of the whole array, in and around the region


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was done on the way, that the arrays cannot tell."""

    resampled: bool
    warped: bool
    window_s: float
    gain_db: float = 0.0
    ungain_held_frames: int = 0
    grid_error_ms: float | None = None


def report(before: Audio, after: Audio, span: Span, fades: Fades, made: Made) -> Report:
    """What is true of `after`, measured against `before`.

    before, after: [channels, n] float32 at `span.rate_hz`, as long as what was landed on (a file, an item, a track's
    stretch) and as far around the region as there is sound: the context's bar lines are the measure for the seams.
    """
    raise NotImplementedError
