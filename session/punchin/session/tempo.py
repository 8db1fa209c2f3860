"""Tempo maps: where each beat, bar and second of a session is. A beat is a quarter note, in 7/8 too.

A map is a row of stretches, each with a tempo that holds or moves linearly in time (REAPER's linear points), and a
row of signatures. Within a stretch beats are b + (v0 * t + (v1 - v0) * t**2 / (2 * length)) / 60, v in bpm: exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from punchin.protocol.errors import Refused
from punchin.protocol.limits import MAX_DENOMINATOR

GRID_BEATS = 0.25  # readers sample ramps this finely; see Grid
ROUNDING_S = 1e-9  # a bar line that is reckoned from beats may lie so much before the step that stands on it


class Stretch(NamedTuple):
    """Tempo from `start_s` to the next stretch: `bpm` at its start, `end_bpm` at its end, linear in time between."""

    start_s: float
    bpm: float
    end_bpm: float


class Signature(NamedTuple):
    """A time signature from `start_beats` on. A bar begins there, even if the one before was not full."""

    start_beats: float
    numerator: int
    denominator: int

    @property
    def bar_beats(self) -> float:
        """Quarter notes in a bar: 3.5 in 7/8."""
        return self.numerator * 4 / self.denominator


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Where the beats are, as points. Time is linear in beats between two points, and on beyond the last ones.

    beats: [P] quarter notes from the session's start, in 7/8 too. seconds: [P] project time. Both float64,
    strictly rising, P >= 2, read-only. Steps in tempo are exact. A ramp sampled every `h` beats is off by at
    most h**2 / 8 * max |d2t/db2| (linear interpolation): 2.6 ms for 120 to 140 bpm over four beats at h = 1,
    0.2 ms at h = 1/4. Readers sample at h = 1/4 and put `grid_error_ms` into the report.
    """

    beats: NDArray[np.float64]
    seconds: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("beats", "seconds"):
            points = np.array(getattr(self, name), dtype=np.float64)  # a copy, so that nobody else holds it
            if points.ndim != 1 or len(points) < 2 or not (np.diff(points) > 0).all():
                raise ValueError(f"grid {name} must be two or more rising numbers, got {points}")
            points.flags.writeable = False
            object.__setattr__(self, name, points)
        if len(self.beats) != len(self.seconds):
            raise ValueError(f"grid has {len(self.beats)} beats but {len(self.seconds)} times")

    def beats_to_seconds(self, beats: ArrayLike) -> NDArray[np.float64]:
        """Project time of each beat, in the shape of `beats`. `seconds_to_beats` is its inverse."""
        return _follow(self.beats, self.seconds, np.asarray(beats, dtype=np.float64))

    def seconds_to_beats(self, seconds: ArrayLike) -> NDArray[np.float64]:
        """Beat at each project time, in the shape of `seconds`. `beats_to_seconds` is its inverse."""
        return _follow(self.seconds, self.beats, np.asarray(seconds, dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class TempoMap:
    """A session's tempo and signatures from time 0 on. The last stretch's end tempo holds forever, as does its start
    before time 0.

    stretches: rising `start_s`, the first at 0. signatures: rising `start_beats`, the first at 0. first_bar: the number
    of the bar at time 0, as the session's ruler counts; all bars are told and asked for by such numbers.
    Raises ValueError on any other shape, so that no method has to; a tempo that is not above 0 is refused.
    """

    stretches: tuple[Stretch, ...]
    signatures: tuple[Signature, ...] = (Signature(0.0, 4, 4),)
    first_bar: int = 1
    _table: tuple[NDArray[np.float64], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, starts in (
            ("stretches", [s.start_s for s in self.stretches]),
            ("signatures", [s.start_beats for s in self.signatures]),
        ):
            if not starts or starts[0] != 0 or not (np.diff(starts) > 0).all():
                raise ValueError(f"{name} must begin at 0 and rise, got {starts}")
        for stretch in self.stretches:
            if not (0 < stretch.bpm < 10_000 and 0 < stretch.end_bpm < 10_000):  # NaN and infinity fail too
                text = f"a tempo of {stretch.bpm:g} to {stretch.end_bpm:g} bpm at {stretch.start_s:g} s"
                raise Refused(f"{text}, allowed is over 0 to under 10000", "set another tempo")
        for signature in self.signatures:
            if signature.numerator < 1 or not 1 <= signature.denominator <= MAX_DENOMINATOR:
                text = f"a time signature of {signature.numerator}/{signature.denominator}"
                text += f", allowed is 1 and up over 1 to {MAX_DENOMINATOR}"
                raise Refused(text, "set another signature, like 4/4")
        object.__setattr__(self, "_table", _table(self.stretches))

    @classmethod
    def at_bpm(cls, bpm: float, numerator: int = 4, denominator: int = 4) -> Self:
        """One tempo and one signature throughout; bpm counts quarter notes."""
        return cls((Stretch(0.0, bpm, bpm),), (Signature(0.0, numerator, denominator),))

    @classmethod
    def from_midi(cls, path: Path | str, signature: tuple[int, int] = (4, 4)) -> Self:
        """The tempo and signature events of a Standard MIDI File, its ramps as the steps they are written as.

        signature: until the file's first. Raises Refused where the file is missing, broken, says no tempo, or counts in
        SMPTE frames instead of beats.
        """
        from punchin.session import midifile

        return cls(*midifile.read_tempo(Path(path), signature))

    def seconds_to_beats(self, seconds: ArrayLike) -> NDArray[np.float64]:
        """Quarter notes at each project time, in the shape of `seconds`."""
        t = np.asarray(seconds, dtype=np.float64)
        starts, beats, v0, slope = self._table
        i = np.clip(np.searchsorted(starts, t, side="right") - 1, 0, len(starts) - 1)
        dt = t - starts[i]
        moving = np.where(dt > 0, slope[i], 0.0)  # before time 0 the first tempo holds
        return beats[i] + (v0[i] * dt + moving * dt * dt / 2) / 60

    def beats_to_seconds(self, beats: ArrayLike) -> NDArray[np.float64]:
        """Project time of each quarter note, in the shape of `beats`; the inverse of `seconds_to_beats`."""
        b = np.asarray(beats, dtype=np.float64)
        starts, first, v0, slope = self._table
        i = np.clip(np.searchsorted(first, b, side="right") - 1, 0, len(starts) - 1)
        db = (b - first[i]) * 60
        moving = np.where(db > 0, slope[i], 0.0)
        root = np.sqrt(np.maximum(v0[i] * v0[i] + 2 * moving * db, 0.0))
        return starts[i] + 2 * db / (v0[i] + root)  # this form of the quadratic's root stays exact as slope nears 0

    def bpm_at(self, at_s: float) -> float:
        """Quarter notes a minute at a project time; at a step, the new tempo."""
        starts, _, v0, slope = self._table
        i = int(np.clip(np.searchsorted(starts, at_s + ROUNDING_S, side="right") - 1, 0, len(starts) - 1))
        return float(v0[i] + slope[i] * max(at_s - starts[i], 0.0))

    def signature_at(self, at_s: float) -> tuple[int, int]:
        """Numerator and denominator at a project time."""
        signature = self._signature(self._at_bar_line(at_s))
        return signature.numerator, signature.denominator

    def bars_to_seconds(self, first: int, last_inclusive: int) -> tuple[float, float]:
        """Start of bar `first` and end of bar `last_inclusive`, in project seconds."""
        if not self.first_bar <= first <= last_inclusive:
            text = f"{in_bars((first, last_inclusive))}: bars count from {self.first_bar} and do not run backwards"
            raise Refused(text)
        start, end = self.beats_to_seconds([self._bar_beats(first), self._bar_beats(last_inclusive + 1)])
        return float(start), float(end)

    def bar_at(self, at_s: float) -> int:
        """The bar that a project time lies in. Times before 0 are in the first."""
        beats = self._at_bar_line(at_s)
        bar = self.first_bar
        for signature, following in self._signature_spans():
            if beats < following:
                return bar + max(int((beats - signature.start_beats) // signature.bar_beats), 0)
            bar += _bars_between(signature, following)
        raise AssertionError("the last signature has no end")

    def bar_lines(self, start_s: float, end_s: float) -> NDArray[np.float64]:
        """Project times of the bar lines from `start_s` to `end_s`, both included."""
        bars = range(self.bar_at(start_s), self.bar_at(end_s) + 2)
        lines = self.beats_to_seconds([self._bar_beats(bar) for bar in bars])
        return lines[(lines >= start_s - 1e-9) & (lines <= end_s + 1e-9)]

    def grid(self, start_s: float, end_s: float, step_beats: float = GRID_BEATS) -> Grid:
        """The points that cover a span: its ends, every change of tempo, and ramps every `step_beats`."""
        starts, _, _, slope = self._table
        low, high = self.seconds_to_beats([start_s, end_s])
        beats = [low, high]
        for i, begin in enumerate(starts):
            end = starts[i + 1] if i + 1 < len(starts) else np.inf
            a, b = max(begin, start_s), min(end, end_s)
            if a >= b:
                continue
            first, last = self.seconds_to_beats([a, b])
            steps = 1 if slope[i] == 0 else int(np.ceil((last - first) / step_beats))
            beats.extend(np.linspace(first, last, max(steps, 1) + 1))
        points = np.unique(np.array(beats))
        points = points[np.insert(np.diff(points) > 1e-9, 0, True)]
        return Grid(points, self.beats_to_seconds(points))

    def grid_error_ms(self, start_s: float, end_s: float, step_beats: float = GRID_BEATS) -> float:
        """How far `grid` may be off within a span: h**2 / 8 * max |d2t/db2|, in ms; 0 without ramps."""
        starts, _, v0, slope = self._table
        worst = 0.0
        for i, begin in enumerate(starts):
            end = starts[i + 1] if i + 1 < len(starts) else np.inf
            a, b = max(begin, start_s), min(end, end_s)
            if a < b and slope[i] != 0:
                slowest = min(v0[i] + slope[i] * (a - begin), v0[i] + slope[i] * (b - begin)) / 60
                worst = max(worst, abs(slope[i]) / 60 / slowest**3)  # with db/dt = v: d2t/db2 = -v'/v**3
        return worst * step_beats**2 / 8 * 1000

    def varies(self, start_s: float, end_s: float) -> float:
        """How much the tempo moves within a span: (highest - lowest) / mean, 0 where it is constant."""
        starts, _, v0, slope = self._table
        seen = [self.bpm_at(start_s)]
        for i, begin in enumerate(starts):
            end = starts[i + 1] if i + 1 < len(starts) else np.inf
            a, b = max(begin, start_s), min(end, end_s)
            if a < b:
                seen += [v0[i] + slope[i] * (a - begin), v0[i] + slope[i] * (b - begin)]
        low, high = self.seconds_to_beats([start_s, end_s])
        mean = 60 * (high - low) / (end_s - start_s) if end_s > start_s else seen[0]
        return float((max(seen) - min(seen)) / mean)

    def _at_bar_line(self, at_s: float) -> float:
        """Beats at a time, rounded onto the next bar line's beat where rounding alone keeps it off."""
        beats = float(self.seconds_to_beats(at_s))
        nearest = round(beats * 960) / 960
        return nearest if abs(beats - nearest) < 1e-9 * max(1.0, abs(beats)) else beats

    def _signature(self, beats: float) -> Signature:
        passed = [s for s in self.signatures if s.start_beats <= beats]
        return passed[-1] if passed else self.signatures[0]

    def _signature_spans(self) -> Sequence[tuple[Signature, float]]:
        ends = [*(s.start_beats for s in self.signatures[1:]), np.inf]
        return list(zip(self.signatures, ends, strict=True))

    def _bar_beats(self, bar: int) -> float:
        """The beat that a bar starts at."""
        left = bar - self.first_bar
        for signature, following in self._signature_spans():
            if following == np.inf:
                return signature.start_beats + left * signature.bar_beats
            bars = _bars_between(signature, following)
            if left < bars:
                return signature.start_beats + left * signature.bar_beats
            left -= bars
        raise AssertionError("the last signature has no end")


def in_bars(bars: tuple[int, int]) -> str:
    """Bars in words: `bar 5`, `bars 5-6`, `bars -1 to 2`."""
    first, last = bars
    if first == last:
        return f"bar {first}"
    return f"bars {first}-{last}" if first >= 0 else f"bars {first} to {last}"


def _table(stretches: Sequence[Stretch]) -> tuple[NDArray[np.float64], ...]:
    """Per stretch: start in s, start in beats, bpm at the start, bpm a second."""
    starts, v0, v1 = np.array(stretches).T
    lengths = np.diff(starts)
    slope = np.zeros(len(starts))
    slope[:-1] = (v1[:-1] - v0[:-1]) / lengths  # the last one has no end to move to
    beats = np.concatenate([[0.0], np.cumsum((v0[:-1] + v1[:-1]) / 2 * lengths / 60)])
    return starts, beats, v0, slope


def _bars_between(signature: Signature, end_beats: float) -> int:
    """Bars from a signature to the next one; a part of a bar before the change counts as one."""
    return max(int(np.ceil((end_beats - signature.start_beats) / signature.bar_beats - 1e-6)), 1)


def _follow(xs: NDArray[np.float64], ys: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    i = np.clip(np.searchsorted(xs, x, side="right") - 1, 0, len(xs) - 2)  # outside: the end segment's tempo
    return ys[i] + (x - xs[i]) * (ys[i + 1] - ys[i]) / (xs[i + 1] - xs[i])
