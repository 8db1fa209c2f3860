"""Measuring a take on the arrays before and after: is it as long, as loud, as smooth and as untouched as promised?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from punchin.session import groove, onsets, seams
from punchin.session.groove import Timing
from punchin.session.key import Key, key_of
from punchin.session.level import CEILING_DBTP
from punchin.session.loudness import loudness_db, rms_db, true_peak_db
from punchin.session.onsets import Onsets
from punchin.session.report import Pair, Report
from punchin.session.seams import Habit
from punchin.session.splice import FADES_S, Fades, lead_frames
from punchin.session.tempo import Grid
from punchin.session.verdict import faults

Audio = NDArray[np.float32]
Hearing = Callable[[Audio, int], Audio]  # what samples that begin at a frame of the arrays sound like, [1 or 2, n]

_CONTEXT_S = 60.0  # on each side: enough bar lines and loudness to compare with, and an hour's file stays quick
_PIECE_FRAMES = 2**20
_AROUND_S = 0.1  # of sound around the region, for onsets at its edges
_EARLY_S = 0.015  # an onset this much before an edge belongs to what follows
_BLOCK = 2**20  # frames compared at once: a difference is made in float64


@dataclass(frozen=True, slots=True)
class Span:
    """Where the region lies in the arrays that are measured, and where bars and beats are around it.

    bar_lines_frames: of the whole array, in and around the region. grid: the beats, at project times; `first_s` is the
    project time of the arrays' frame 0. Without a grid nothing is said about timing. anchored: whether its beats are
    those of the music; else it tells their tempo alone, and a phase only against the source's. plays: the frames that
    are heard, None is all; what is beyond them may not change either, but is no context, and an edge there is no seam.
    """

    rate_hz: int
    start_frame: int
    end_frame: int
    bar_lines_frames: tuple[int, ...] = ()
    grid: Grid | None = None
    first_s: float = 0.0
    anchored: bool = True
    plays: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was done on the way, that the arrays cannot tell."""

    resampled: bool
    warped: bool
    window_s: float
    context_s: Pair = (None, None)
    gain_db: float = 0.0
    level_held: bool = False  # the ceiling kept the level match from the source's loudness, or nobody asked for it
    ungain_held_frames: int = 0
    grid_error_ms: float | None = None
    return_fx_failed: str | None = None
    notes: tuple[str, ...] = ()


def as_held(audio: Audio, first_frame: int) -> Audio:
    """The hearing of arrays that sound as they are."""
    return audio


@dataclass(frozen=True, slots=True)
class Edges:
    """How far the original jumps at its bar lines (`habit`, None where they are too few), and at the region's edges."""

    habit: Habit | None
    jumps_db: Pair


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """What is measured of the original alone, once for all takes of a region, and ahead of them.

    audio: [channels, n] float32 at `span.rate_hz`, as long as what is landed on (a file, an item, a track's stretch)
    and as far around the region as there is sound: the context's bar lines are the measure for the seams.
    hear: what an item's gain, fades and pan make of the samples: all is measured of what is heard, now and before, but
    length and outside, which are of every sample.
    true_peak_db, clipped_samples: of the region and the 55 ms before it, where a fade may lie.
    loudness_db, silent, key, timing: of the region; the loudness of its context where it is silent.
    edges: by width of a fade, of the one that a splice likes best; `edges_at` finds the others.
    """

    audio: Audio
    span: Span
    hear: Hearing
    true_peak_db: float | None
    loudness_db: float | None
    silent: bool
    clipped_samples: int
    key: Key | None
    timing: Timing | None
    edges: Mapping[int, Edges]

    @classmethod
    def of(cls, audio: Audio, span: Span, hear: Hearing = as_held) -> Before:
        """Measure `audio`; see the class."""
        sound, at = _sounding(audio, span, hear)
        if span.grid is not None and not span.anchored:
            beats = groove.on_its_own_beats(span.grid, onsets_in(sound, at), at.rate_hz, at.first_s)
            span, at = replace(span, grid=beats), replace(at, grid=beats)
        region, touched, rate_hz = _region(sound, at), _touched(sound, at), span.rate_hz
        longest = round(FADES_S[0] * rate_hz)
        return cls(
            audio,
            span,
            hear,
            true_peak_db(touched, rate_hz),
            _loudness_before(sound, at),
            rms_db(region) is None,
            _clipped(touched),
            key_of(region, rate_hz),
            None if at.grid is None else groove.timing(onsets_in(sound, at), rate_hz, at.grid, at.first_s),
            {longest: _edges(sound, at, longest)},
        )

    def edges_at(self, width_frames: int) -> Edges:
        """How the original jumps at its bar lines and at the region's edges, looked at over so many frames."""
        known = self.edges.get(width_frames)
        return _edges(*_sounding(self.audio, self.span, self.hear), width_frames) if known is None else known


def report(before: Before, after: Audio, fades: Fades, made: Made, *, anew: bool = False) -> Report:
    """What is true of `after`, [channels, n] float32 as `before.audio`, measured against what was there.

    anew: sound was asked for whatever was there, so that silence is at fault where there was silence too.
    What cannot be measured (no bar lines, no onsets, silence) is None, and None breaks no limit.
    """
    span, rate_hz = before.span, before.span.rate_hz
    sound, at = _sounding(after, span, before.hear)
    heard, touched, struck = _region(sound, at), _touched(sound, at), onsets_in(sound, at)
    width = max(fades.into.reach_frames, fades.back.reach_frames)
    edges = before.edges_at(width)
    time = _timing(struck, at, before)
    key = key_of(heard, rate_hz)
    peak, loudness = true_peak_db(touched, rate_hz), loudness_db(heard, rate_hz)
    was = before.loudness_db
    found = Report(
        length_error_samples=after.shape[1] - before.audio.shape[1],
        outside_max_abs_diff=outside_max_abs_diff(before.audio, after, span, fades),
        fade_ms=fades.into.reach_frames * 1000 / rate_hz,
        fade_out_ms=fades.back.reach_frames * 1000 / rate_hz,
        seam_db=_jumps(edges.habit, sound, at),
        seam_before_db=edges.jumps_db,
        attacks_db=_attacks(edges.habit, sound, at, struck),
        onset_p95_ms=time.p95_ms,
        tempo_ratio=time.ratio,
        tempo_error=time.ratio_error,
        phase_ms=time.phase_ms,
        phase_error_ms=time.phase_error_ms,
        lufs_delta=None if loudness is None or was is None else loudness - was,
        true_peak_dbfs=peak,
        ceiling_dbtp=CEILING_DBTP if before.true_peak_db is None else max(CEILING_DBTP, before.true_peak_db),
        clipped_samples=_clipped(touched),
        clipped_before=before.clipped_samples,
        silent=(anew or not before.silent) and rms_db(heard[:, : heard.shape[1] - fades.back.reach_frames]) is None,
        key_before=before.key and str(before.key),
        key_after=key and str(key),
        key_distance=None if before.key is None or key is None else before.key.distance(key),
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
            if not np.array_equal(after[:, piece], before[:, piece], equal_nan=True):  # the plain case costs no float64
                largest = max(largest, float(np.abs(_difference(after[:, piece], before[:, piece])).max(initial=0.0)))
    return largest


def _difference(a: Audio, b: Audio) -> NDArray[np.float64]:
    """The difference a - b in float64, the shorter one continued by silence."""
    out = np.zeros((len(a), max(a.shape[1], b.shape[1])))
    out[:, : a.shape[1]] += a
    out[:, : b.shape[1]] -= b
    return out


def _sounding(audio: Audio, span: Span, hear: Hearing) -> tuple[Audio, Span]:
    """What is heard of the region and a minute around it, and the span as it lies in that."""
    reach = round((_CONTEXT_S + _AROUND_S) * span.rate_hz)
    first = max(span.start_frame - reach, 0)
    low, high = _plays(audio, span)
    moved = replace(
        span,
        start_frame=span.start_frame - first,
        end_frame=span.end_frame - first,
        bar_lines_frames=tuple(line - first for line in span.bar_lines_frames),
        first_s=span.first_s + first / span.rate_hz,
        plays=(low - first, high - first),
    )
    return hear(audio[:, first : span.end_frame + reach], first), moved


def _region(audio: Audio, span: Span) -> Audio:
    return audio[:, span.start_frame : span.end_frame]


def _touched(audio: Audio, span: Span) -> Audio:
    """The region, and before it all that a fade may change: two sounds at once peak higher."""
    start = span.start_frame
    return audio[:, max(start - lead_frames(start, span.rate_hz), _plays(audio, span)[0]) : span.end_frame]


def _clipped(audio: Audio) -> int:
    return int(np.count_nonzero(np.abs(audio) >= 1.0))


def _timing(struck: Onsets, span: Span, before: Before) -> Timing:
    """The take's timing against what was there; all None without a grid."""
    if span.grid is None or before.timing is None:
        return Timing(len(struck.frames))
    made = groove.timing(struck, span.rate_hz, span.grid, span.first_s)
    if not span.anchored and before.timing.phase_ms is None:
        made = replace(made, phase_ms=None, phase_error_ms=0.0, p95_ms=None)
    return groove.against(made, before.timing)


def _plays(audio: Audio, span: Span) -> tuple[int, int]:
    return span.plays or (0, audio.shape[1])


def _edges(before: Audio, span: Span, width: int) -> Edges:
    reach, heard = round(_CONTEXT_S * span.rate_hz), _plays(before, span)
    low, high = max(span.start_frame - reach, heard[0]), min(span.end_frame + reach, heard[1])
    lines = [
        line
        for line in span.bar_lines_frames
        if low <= line <= high  # sound that begins or ends with the file jumps more there than at any bar line
        and heard[0] < line < heard[1]
        and not span.start_frame <= line <= span.end_frame
    ]
    habit = seams.habit(before, span.rate_hz, lines, width)
    return Edges(habit, _jumps(habit, before, span))


def _jumps(habit: Habit | None, audio: Audio, span: Span) -> Pair:
    """How far `audio` jumps at both edges, over the habit; None where that is the end of what is heard."""
    heard = _plays(audio, span)
    if habit is None:
        return None, None
    into = habit.over_db(audio, span.rate_hz, span.start_frame) if span.start_frame > heard[0] else None
    back = habit.over_db(audio, span.rate_hz, span.end_frame) if span.end_frame < heard[1] else None
    return into, back


def _attacks(habit: Habit | None, after: Audio, span: Span, struck: Onsets) -> float | None:
    """How far the take's own attacks jump, away from its edges."""
    if habit is None:
        return None
    inside = struck.within(span.start_frame + habit.width_frames, span.end_frame - habit.width_frames)
    return habit.attacks_db(after, span.rate_hz, inside.frames)


def _loudness_before(before: Audio, span: Span) -> float | None:
    """The region's loudness, or its context's where there was silence."""
    start, end, rate_hz = span.start_frame, span.end_frame, span.rate_hz
    was = loudness_db(before[:, start:end], rate_hz)
    if was is not None:
        return was
    reach, plays = round(_CONTEXT_S * rate_hz), _plays(before, span)
    sides = (max(start - reach, plays[0]), start), (end, min(end + reach, plays[1]))
    around = np.concatenate([before[:, low:high] for low, high in sides], axis=1)
    return loudness_db(around, rate_hz, end - start)
