"""Measuring a take on the arrays before and after: is it as long, as loud, as smooth and as untouched as promised?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from punchin.session import groove, onsets, seams
from punchin.session.groove import Timing
from punchin.session.key import key_of
from punchin.session.level import CEILING_DBTP
from punchin.session.loudness import loudness_db, true_peak_db
from punchin.session.onsets import Onsets
from punchin.session.report import Pair, Report
from punchin.session.splice import Fades
from punchin.session.tempo import Grid
from punchin.session.verdict import faults

Audio = NDArray[np.float32]

_CONTEXT_S = 60.0  # on each side: enough bar lines and loudness to compare with, and an hour's file stays quick
_PIECE_FRAMES = 2**20
_AROUND_S = 0.1  # of sound around the region, for onsets at its edges
_EARLY_S = 0.015  # an onset this much before an edge belongs to what follows
_BLOCK = 2**20  # frames compared at once: a difference is made in float64


@dataclass(frozen=True, slots=True)
class Span:
    """Where the region lies in the arrays that are measured, and where bars and beats are around it.

    bar_lines_frames: of the whole array, in and around the region. grid: the beats, at project times; `first_s` is the
    project time of the arrays' frame 0. Without a grid nothing is said about timing.
    """

    rate_hz: int
    start_frame: int
    end_frame: int
    bar_lines_frames: tuple[int, ...] = ()
    grid: Grid | None = None
    first_s: float = 0.0


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
    What cannot be measured (no bar lines, no onsets, silence) is None, and None breaks no limit.
    """
    rate_hz = span.rate_hz
    new, old = (audio[:, span.start_frame : span.end_frame] for audio in (after, before))
    struck = onsets_in(after, span)
    seam_db, seam_before_db, attacks_db = _seams(before, after, span, fades, struck)
    time = _timing(struck, onsets_in(before, span), span)
    key_before, key_after, key_distance = _keys(old, new, rate_hz)
    peak, old_peak = true_peak_db(new, rate_hz), true_peak_db(old, rate_hz)
    found = Report(
        length_error_samples=after.shape[1] - before.shape[1],
        outside_max_abs_diff=outside_max_abs_diff(before, after, span, fades),
        fade_ms=fades.into.reach_frames * 1000 / rate_hz,
        fade_out_ms=fades.back.reach_frames * 1000 / rate_hz,
        seam_db=seam_db,
        seam_before_db=seam_before_db,
        attacks_db=attacks_db,
        onset_p95_ms=time.p95_ms,
        tempo_ratio=time.ratio,
        tempo_error=time.ratio_error,
        phase_ms=time.phase_ms,
        phase_error_ms=time.phase_error_ms,
        lufs_delta=_loudness_delta(before, after, span),
        true_peak_dbfs=peak,
        ceiling_dbtp=CEILING_DBTP if old_peak is None else max(CEILING_DBTP, old_peak),
        clipped_samples=int(np.count_nonzero(np.abs(new) >= 1.0)),
        clipped_before=int(np.count_nonzero(np.abs(old) >= 1.0)),
        silent=peak is None and old_peak is not None,
        key_before=key_before,
        key_after=key_after,
        key_distance=key_distance,
        ok=True,
        **asdict(made),
    )
    failed = faults(found)
    return replace(found, failed=failed, ok=not failed)


def onsets_in(audio: Audio, span: Span) -> Onsets:
    """The onsets of the region, in frames of `audio`: from 15 ms before its start to 15 ms before its end."""
    around, early = round(_AROUND_S * span.rate_hz), round(_EARLY_S * span.rate_hz)
    first = max(span.start_frame - around, 0)
    found = onsets.find(audio[:, first : span.end_frame + around], span.rate_hz)
    return Onsets(found.frames + first, found.strength).within(span.start_frame - early, span.end_frame - early)


def outside_max_abs_diff(before: Audio, after: Audio, span: Span, fades: Fades) -> float:
    """The largest difference of any sample before the first fade or from the region's end on; 0.0 is bit-exact.

    Frames that only one of the two has count as changed by what they hold.
    """
    first, frames = span.start_frame - fades.into.reach_frames, max(before.shape[1], after.shape[1])
    largest = 0.0
    for start, stop in ((0, first), (span.end_frame, frames)):
        for at in range(start, stop, _PIECE_FRAMES):  # in pieces: an hour's file is not copied to float64 at once
            piece = slice(at, min(at + _PIECE_FRAMES, stop))
            largest = max(largest, float(np.abs(_difference(after[:, piece], before[:, piece])).max(initial=0.0)))
    return largest


def _difference(a: Audio, b: Audio) -> NDArray[np.float64]:
    """The difference a - b in float64, the shorter one continued by silence."""
    out = np.zeros((len(a), max(a.shape[1], b.shape[1])))
    out[:, : a.shape[1]] += a
    out[:, : b.shape[1]] -= b
    return out


def _keys(old: Audio, new: Audio, rate_hz: int) -> tuple[str | None, str | None, int | None]:
    """The names of both keys and the distance between them; None for what is in no key."""
    before, after = key_of(old, rate_hz), key_of(new, rate_hz)
    if before is None or after is None:
        return before and str(before), after and str(after), None
    return str(before), str(after), before.distance(after)


def _timing(struck: Onsets, struck_before: Onsets, span: Span) -> Timing:
    """The region's timing against what was there; all None without a grid."""
    if span.grid is None:
        return Timing(len(struck.frames))
    now, was = (groove.timing(found, span.rate_hz, span.grid, span.first_s) for found in (struck, struck_before))
    return groove.against(now, was)


def _seams(before: Audio, after: Audio, span: Span, fades: Fades, struck: Onsets) -> tuple[Pair, Pair, float | None]:
    """Both seams after and before the splice (None where the edge is the array's end), and the take's own attacks."""
    reach = round(_CONTEXT_S * span.rate_hz)
    low, high = span.start_frame - reach, span.end_frame + reach
    lines = [
        line for line in span.bar_lines_frames if low <= line <= high and not span.start_frame <= line <= span.end_frame
    ]
    width = max(fades.into.reach_frames, fades.back.reach_frames)
    habit = seams.habit(before, span.rate_hz, lines, width)
    if habit is None:
        return (None, None), (None, None), None
    edges = (span.start_frame if span.start_frame else None, span.end_frame)
    if span.end_frame >= before.shape[1]:
        edges = (edges[0], None)

    def both(audio: Audio) -> Pair:
        into, back = (None if edge is None else habit.over_db(audio, span.rate_hz, edge) for edge in edges)
        return into, back

    inside = struck.within(span.start_frame + width, span.end_frame - width)
    return both(after), both(before), habit.attacks_db(after, span.rate_hz, inside.frames)


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
