"""In time or not: the onsets of a take against the grid, and against the groove of what it replaces."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from punchin.session.onsets import Onsets
from punchin.session.tempo import Grid

Floats = NDArray[np.float64]

FEWEST = 8  # onsets; fewer say nothing about a tempo
_RATIOS = np.exp(np.linspace(-0.06, 0.06, 1201))  # tried by the comb: a loop that is 6 % off still names its tempo
_BETTER = 1.2  # the comb leaves the grid's own tempo only for a fit better by this
_ON_BEAT = 0.17  # of a beat (or of an eighth): nearer than a triplet's off-beat
_HUBER = 1.345  # residuals over this many sigmas count less; 95 % efficient on normal ones
_CHANCE_BEATS = 0.25 / np.sqrt(12)  # how far sounds without a beat lie from sixteenths, RMS; half of it is a groove
_PLACING_BEATS = 0.004  # no onset is placed better than this, 2 ms at 120 bpm
_PULSE_ONSETS = 8
_FILLED = 0.8  # of a pulse must sound, so that a sparse part is no half tempo
_STRAY = 0.1  # of the onsets may lie off it
_NEAR = 0.1  # beats: on the pulse
_EMPTY = 0.3  # of the fullest sixteenth's onsets


@dataclass(frozen=True, slots=True)
class Timing:
    """How a sound lies on its grid. None where it has too few onsets to tell.

    ratio: its tempo over the grid's, 1 is in time; ratio_error: one standard error of it. phase_ms: how late its
    on-beat onsets are (median, at the middle of the sound); phase_error_ms: one standard error. p95_ms: 95 % of the
    onsets lie nearer than this to a sixteenth or a triplet. pulse_beats: the steady pulse it plays, where it has one.
    """

    onsets: int
    ratio: float | None = None
    ratio_error: float = 0.0
    phase_ms: float | None = None
    phase_error_ms: float = 0.0
    p95_ms: float | None = None
    pulse_beats: float | None = None


def timing(found: Onsets, rate_hz: int, grid: Grid, first_s: float) -> Timing:
    """Tempo and phase of onsets whose frames count from project time `first_s`, against the grid.

    A comb over tempos within 6 % finds the ratio; a Huber regression refines it, with an offset of its own for each
    sixteenth of the beat, so that swing (off-beats that are always late) is neither a tempo error nor a phase. Time
    counts in the grid's beats: a ritardando is as straight as a march. Onsets that lie about as chance would have them
    (half as far off as that is a groove, less where they are few) have neither tempo nor phase.
    """
    count = len(found.frames)
    if count < FEWEST:
        return Timing(count)
    seconds = first_s + found.frames / rate_hz
    beats = grid.seconds_to_beats(seconds)
    middle = float((beats[0] + beats[-1]) / 2)
    beat_ms = 1000 * float(seconds[-1] - seconds[0]) / float(beats[-1] - beats[0])
    ratio = _comb(beats, np.sqrt(found.strength))
    slope, slope_error, scatter = _slope(middle + ratio * (beats - middle), beats)
    played = scatter < _CHANCE_BEATS * (0.5 - 1 / np.sqrt(count))
    straight = middle + (ratio - slope) * (beats - middle)
    phase, phase_error = _phase(straight) if played else (None, 0.0)
    near = np.minimum(np.abs(_off(beats, 4)), np.abs(_off(beats, 3)))
    return Timing(
        onsets=count,
        ratio=ratio - slope if played else None,
        ratio_error=slope_error if played else 0.0,
        phase_ms=None if phase is None else phase * beat_ms,
        phase_error_ms=phase_error * beat_ms,
        p95_ms=float(np.percentile(near, 95)) * beat_ms,
        pulse_beats=_pulse(straight) if played else None,
    )


def on_its_own_beats(grid: Grid, found: Onsets, rate_hz: int, first_s: float) -> Grid:
    """The grid moved by less than half a sixteenth to where these onsets have their sixteenths, for a file that begins
    anywhere in a beat. Both takes and source are then late or early by the same measure.
    """
    if not len(found.frames):
        return grid
    beats = grid.seconds_to_beats(first_s + found.frames / rate_hz)
    off = np.angle(np.exp(8j * np.pi * beats).sum()) / (8 * np.pi)
    return Grid(grid.beats - off, grid.seconds)


def against(take: Timing, source: Timing) -> Timing:
    """The take's timing, its ratio and phase counted from the source's own, where the source has them.

    The ratio is 0.5 (or 2) exactly where the take plays the source's steady pulse at half (double) tempo: told only
    where both have such a pulse, eight onsets or more with four in five of its places filled.
    """
    ratio, ratio_error, phase, phase_error = take.ratio, take.ratio_error, take.phase_ms, take.phase_error_ms
    if ratio is not None and source.ratio is not None:
        ratio, ratio_error = ratio / source.ratio, float(np.hypot(ratio_error, source.ratio_error))
        if take.pulse_beats is not None and source.pulse_beats is not None:
            times = source.pulse_beats / take.pulse_beats
            ratio = times if times in (0.5, 2.0) else ratio
    if phase is not None and source.phase_ms is not None:
        phase, phase_error = phase - source.phase_ms, float(np.hypot(phase_error, source.phase_error_ms))
    return replace(take, ratio=ratio, ratio_error=ratio_error, phase_ms=phase, phase_error_ms=phase_error)


def empty_beats(found: Onsets, rate_hz: int, grid: Grid, first_s: float) -> float:
    """How late, in beats, music is whose beats hold next to nothing, counted from where most of it is; else 0.0.

    For music that begins anywhere in a beat, of which a phase tells parts of a sixteenth alone.
    """
    if len(found.frames) < FEWEST:
        return 0.0
    beats = grid.seconds_to_beats(first_s + found.frames / rate_hz)
    off = np.angle((found.strength * np.exp(8j * np.pi * beats)).sum()) / (8 * np.pi)
    places = np.round((beats - off) * 4).astype(np.int64) % 4
    held = np.bincount(places, weights=found.strength, minlength=4)
    most = int(np.argmax(held))
    return 0.0 if held[0] > _EMPTY * held[most] else float((0.25, 0.5, -0.25)[most - 1] + off)


def _off(beats: Floats, parts: int) -> Floats:
    """Signed distance to the nearest of `parts` even places a beat, in beats."""
    return beats - np.round(beats * parts) / parts


def _comb(beats: Floats, weights: Floats) -> float:
    """The ratio at which the onsets line up best with beats, eighths, triplets and sixteenths; 1 when in doubt."""
    centred = beats - (beats[0] + beats[-1]) / 2
    power = np.zeros(len(_RATIOS))
    for parts in (1, 2, 3, 4):
        power += np.abs((weights * np.exp(2j * np.pi * parts * _RATIOS[:, None] * centred)).sum(axis=1)) ** 2
    blur = 0.5 / (4 * max(float(beats[-1] - beats[0]), 1e-9))  # nearer ratios are the same to a comb this short
    own = np.abs(_RATIOS - 1) <= max(blur, 1e-3)
    best = int(np.argmax(power))
    if power[best] < _BETTER * power[own].max():
        best = int(np.flatnonzero(own)[np.argmax(power[own])])
    return float(_RATIOS[best])


def _slope(straight: Floats, beats: Floats) -> tuple[float, float, float]:
    """What is left of tempo error in nearly straight beats, per beat, and its standard error (wider for few onsets).

    Third comes the scatter that is left, in beats.
    """
    places = np.round(straight * 4).astype(np.int64)
    off, habit = straight - places / 4, places % 4
    freedom = len(beats) - len(np.unique(habit)) - 1
    if freedom < 2:
        return 0.0, np.inf, np.inf
    weights, slope, error, squares = np.ones(len(beats)), 0.0, np.inf, np.inf
    for _ in range(12):  # Huber by reweighting; settles in a few rounds
        x, y = _without_habits(beats, habit, weights), _without_habits(off, habit, weights)
        power = float(np.sum(weights * x * x))
        if power <= 0:
            return 0.0, np.inf, np.inf
        slope = float(np.sum(weights * x * y)) / power
        left = np.abs(y - slope * x)
        spread = 1.4826 * float(np.median(left)) + 1e-7
        squares = float(np.sum(weights * left * left)) / freedom
        error = float(np.sqrt(max(squares, _PLACING_BEATS**2) / power)) * (1 + 4 / freedom)
        weights = np.minimum(1.0, _HUBER * spread / np.maximum(left, 1e-12))
    return slope, error, float(np.sqrt(squares))


def _without_habits(values: Floats, habit: NDArray[np.int64], weights: Floats) -> Floats:
    """The values less the weighted mean of their kind."""
    out = values.copy()
    for kind in np.unique(habit):
        of_kind = habit == kind
        out[of_kind] -= np.average(values[of_kind], weights=weights[of_kind])
    return out


def _phase(straight: Floats) -> tuple[float | None, float]:
    """How late the on-beat onsets are, in beats, and the standard error; from eighths where beats are few, and from all
    onsets where few lie near any of those: a take that is plainly late has none there.
    """
    for parts in (1, 2, 4):
        off = _off(straight, parts)
        near = off if parts == 4 else off[np.abs(off) < _ON_BEAT / parts]
        if len(near) >= max(3, len(straight) // 8):
            centre = float(np.median(near))
            spread = 1.4826 * float(np.median(np.abs(near - centre)))
            return centre, 1.2533 * spread / float(np.sqrt(len(near)))
    return None, 0.0


def _pulse(straight: Floats) -> float | None:
    """The widest even spacing that nearly all onsets lie on and that is nearly all filled; None without one."""
    if len(straight) < _PULSE_ONSETS:
        return None
    for step in (4.0, 2.0, 1.0, 0.5, 0.25):
        for first in np.arange(0.0, step, 0.25):
            place = np.round((straight - first) / step)
            on = np.abs(straight - first - place * step) <= min(_NEAR, step / 4)
            places = np.unique(place[on])
            if np.mean(~on) <= _STRAY and len(places) >= _FILLED * (np.ptp(places) + 1):
                return step
    return None
