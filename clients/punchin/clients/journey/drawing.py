"""What a take changed, to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from punchin.clients.journey.landing import Rolled
from punchin.session import measure, picture

AROUND_BARS = 2  # shown on each side of the region


def draw(rolled: Rolled, path: Path, title: str) -> Path:
    """Write the before/after picture of a take: its region and two bars on each side."""
    placed, whole = rolled.finished.placed, rolled.finished.span
    inside = [line for line in whole.bar_lines_frames if whole.start_frame - 1 <= line <= whole.end_frame + 1]
    bar = (whole.end_frame - whole.start_frame) // max(len(inside) - 1, 1)
    first = max(whole.start_frame - AROUND_BARS * bar, 0)
    last = min(whole.end_frame + AROUND_BARS * bar, placed.before.shape[1])
    lines = [line for line in whole.bar_lines_frames if first <= line <= last]
    number = rolled.finished.first_bar + (whole.bar_lines_frames.index(lines[0]) if lines else 0)
    span = measure.Span(
        whole.rate_hz,
        whole.start_frame - first,
        whole.end_frame - first,
        tuple(line - first for line in lines),
        whole.grid,
        whole.first_s + first / whole.rate_hz,
    )
    before, after = (audio[:, first:last].astype(np.float32) for audio in (placed.before, placed.after))
    report = rolled.finished.report
    picture.before_after(path, before, after, span, placed.fades, title=title, first_bar=number, report=report)
    return path
