"""Measuring a take on the arrays before and after: is it as long, as loud, as smooth and as untouched as promised?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from punchin.protocol import limits
from punchin.protocol.limits import Limit
from punchin.session.level import CEILING_DBTP
from punchin.session.loudness import loudness_db, true_peak_db
from punchin.session.report import Report
from punchin.session.seams import seam_db
from punchin.session.splice import Fades

Audio = NDArray[np.float32]

_CONTEXT_S = 60.0  # on each side: enough bar lines and loudness to compare with, and an hour's file stays quick


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
    level_held: bool = False  # the ceiling or the gain limit kept the level match from the source's loudness
    ungain_held_frames: int = 0
    grid_error_ms: float | None = None


def report(before: Audio, after: Audio, span: Span, fades: Fades, made: Made) -> Report:
    """What is true of `after`, measured against `before`.

    before, after: [channels, n] float32 at `span.rate_hz`, as long as what was landed on (a file, an item, a track's
    stretch) and as far around the region as there is sound: the context's bar lines are the measure for the seams.
    What cannot be measured (no bar lines, silence) is None, and None breaks no limit.
    """
    start, end, rate_hz = span.start_frame, span.end_frame, span.rate_hz
    new, old = after[:, start:end], before[:, start:end]
    seams, seams_before = _seams(before, after, span, fades)
    loudness_delta = _loudness_delta(before, after, span)
    peak, old_peak = true_peak_db(new, rate_hz), true_peak_db(old, rate_hz)
    over_ceiling = None if peak is None else peak - max(CEILING_DBTP, -np.inf if old_peak is None else old_peak)
    length_error = after.shape[1] - before.shape[1]
    outside = outside_max_abs_diff(before, after, span, fades)
    clipped = int(np.count_nonzero(np.abs(new) >= 1.0))
    broken = [
        _broken(limits.TAKE_LENGTH, length_error),
        _broken(limits.TAKE_OUTSIDE, outside),
        *(_broken(limits.TAKE_SEAM, _worse(*pair)) for pair in zip(seams, seams_before, strict=True)),
        None if made.level_held else _broken(limits.TAKE_LOUDNESS, loudness_delta),
        _broken(limits.TAKE_PEAK, over_ceiling),
        _broken(limits.TAKE_CLIPPED, max(clipped - int(np.count_nonzero(np.abs(old) >= 1.0)), 0)),
    ]
    silent = peak is None and old_peak is not None
    failed = tuple(text for text in [*broken, "the take is silent" if silent else None] if text)
    return Report(
        length_error_samples=length_error,
        outside_max_abs_diff=outside,
        fade_ms=fades.into.reach_frames * 1000 / rate_hz,
        fade_out_ms=fades.back.reach_frames * 1000 / rate_hz,
        seam_db=seams,
        seam_before_db=seams_before,
        lufs_delta=loudness_delta,
        true_peak_dbfs=peak,
        resampled=made.resampled,
        warped=made.warped,
        window_s=made.window_s,
        gain_db=made.gain_db,
        clipped_samples=clipped,
        silent=silent,
        ungain_held_frames=made.ungain_held_frames,
        grid_error_ms=made.grid_error_ms,
        failed=failed,
        ok=not failed,
    )


def outside_max_abs_diff(before: Audio, after: Audio, span: Span, fades: Fades) -> float:
    """The largest difference of any sample before the first fade or from the region's end on; 0.0 is bit-exact.

    Frames that only one of the two has count as changed by what they hold.
    """
    first = span.start_frame - fades.into.reach_frames
    frames = max(before.shape[1], after.shape[1])
    pieces = [slice(0, first), slice(span.end_frame, frames)]
    return max(float(np.abs(_padded(after[:, p], before[:, p])).max(initial=0.0)) for p in pieces)


def _padded(a: Audio, b: Audio) -> NDArray[np.float64]:
    """The difference a - b in float64, the shorter one continued by silence."""
    out = np.zeros((len(a), max(a.shape[1], b.shape[1])))
    out[:, : a.shape[1]] += a
    out[:, : b.shape[1]] -= b
    return out


def _seams(
    before: Audio, after: Audio, span: Span, fades: Fades
) -> tuple[tuple[float | None, float | None], tuple[float | None, float | None]]:
    """Both seams, after and before the splice; None where the edge is the array's end."""
    reach = round(_CONTEXT_S * span.rate_hz)
    first, last = max(span.start_frame - reach, 0), min(span.end_frame + reach, before.shape[1])
    lines = [line - first for line in span.bar_lines_frames if not span.start_frame <= line <= span.end_frame]
    edges = [
        (span.start_frame - fades.into.reach_frames - first, span.start_frame - first),
        (span.end_frame - fades.back.reach_frames - first, span.end_frame - first),
    ]
    there = (span.start_frame > 0, span.end_frame < before.shape[1])
    measured = (
        tuple(db if is_there else None for db, is_there in zip(found, there, strict=True))
        for found in (seam_db(audio[:, first:last], span.rate_hz, edges, lines) for audio in (after, before))
    )
    (after_in, after_out), (before_in, before_out) = measured
    return (after_in, after_out), (before_in, before_out)


def _worse(after_db: float | None, before_db: float | None) -> float | None:
    """What counts against the limit: nothing where the same edge jumped as much (within 1 dB) before the splice."""
    if after_db is None or (before_db is not None and after_db <= before_db + 1.0):
        return None
    return after_db


def _loudness_delta(before: Audio, after: Audio, span: Span) -> float | None:
    """The region's loudness after minus before, or minus its context's where there was silence."""
    start, end, rate_hz = span.start_frame, span.end_frame, span.rate_hz
    reach = round(_CONTEXT_S * rate_hz)
    now = loudness_db(after[:, start:end], rate_hz)
    was = loudness_db(before[:, start:end], rate_hz)
    if was is None:
        around = np.concatenate([before[:, max(start - reach, 0) : start], before[:, end : end + reach]], axis=1)
        was = loudness_db(around, rate_hz, end - start)
    return None if now is None or was is None else now - was


def _broken(limit: Limit, value: float | None) -> str | None:
    """A sentence with the number and the limit where `value` is outside it."""
    if value is None or limit.low <= value <= limit.high:
        return None
    edge = f"at most {limit.high:g}" if value > limit.high else f"at least {limit.low:g}"
    return f"{limit.name} is {value:.3g} {limit.unit}".rstrip() + f", allowed is {edge}"
