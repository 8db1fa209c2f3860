"""Tempo, bar position and phase from MIDI clock: 24 ticks a quarter note, late, early, bunched and sometimes lost.

The period comes from a Huber regression of tick times on tick numbers over the last eight beats, the phase from a
delay-locked loop (Adriaensen, "Using a DLL to filter time", LAC 2005). No port and no thread here: times are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TICKS_PER_BEAT = 24
TICKS_PER_SIXTEENTH = 6
CONFIDENT_BEATS = 8  # of clock before a tempo is called sure
TIMEOUT_S = 1.0  # without a tick: the clock is gone

_WINDOW_TICKS = CONFIDENT_BEATS * TICKS_PER_BEAT + 1
_FIRST_FIT_TICKS = TICKS_PER_BEAT
_COUNTED_TICKS = 4 * TICKS_PER_BEAT  # so long every look may change the count of all
_RECENT_WINDOWS = (24, 48)  # newest ticks that are compared with all: the short one sees jumps, the long one less
_MISFIT = 2.0  # times the usual scatter: the newest ticks leave the line
_SUSTAINED = 2  # more looks than this, six ticks apart: a change that holds for twelve ticks
_COMB = np.linspace(0.9, 1.1, 41)  # of the median gap
_BUNCH_TICKS = 2.5  # a bunch spreads its ticks by no more
_BUNCHED = 0.02  # of the median gap: jitter hardly ever brings two ticks this near, one callback always does
_LOST = 0.01  # of the ticks: what the count expects
_LEAST_SCATTER = 1e-4  # in periods squared: no clock is steadier
_CHANGE = 0.01  # relative; or four standard errors, where that is more
_HUBER = 1.345
_LOOP_HZ = 0.7  # bandwidth of the delay-locked loop
_SNAP_BPM = 0.5  # people choose whole and half numbers ...
_SNAP_SIGMAS = 2.0  # ... but only what the ticks allow is taken for one


@dataclass(frozen=True, slots=True)
class ClockState:
    """What the clock says at one moment.

    ticking: ticks arrive. running: the transport plays. bpm: None before the first beat; `sure` after eight beats.
    bpm_error: one standard error. beats: quarter notes from the song's start; None until a start, continue or song
    position told where the song is. at_s: the moment this holds for, on the clock that the ticks were stamped with.
    """

    at_s: float
    ticking: bool
    running: bool
    bpm: float | None
    bpm_error: float
    sure: bool
    beats: float | None


class MidiClock:
    """Listens to ticks and transport messages; `state` tells tempo and position at any moment.

    at_s: seconds on any steady clock, the same for all calls, rising.
    """

    def __init__(self) -> None:
        self._fit = TickFit()
        self._running = False
        self._next_ticks: int | None = None  # the song position that the next tick gets
        self._origin: tuple[Tick, int] | None = None  # a tick and its song position, while running
        self._loop: tuple[float, float] | None = None  # the last tick's smoothed time, and the period

    def tick(self, at_s: float) -> None:
        """A timing clock message (0xF8)."""
        if not self._fit.alive(at_s):  # the ticks before the gap say nothing about those after it
            if self._origin is not None:
                self._next_ticks = self._held()
            self._fit, self._loop, self._origin = TickFit(), None, None
        last = self._fit.last
        newest = self._fit.add(at_s)
        if self._running and self._next_ticks is not None:
            self._origin, self._next_ticks = (newest, self._next_ticks), None
        self._follow(at_s, 1 if last is None else newest.number - last.number)

    def start(self) -> None:
        """The song starts: the next tick is beat 0."""
        self._next_ticks, self._running = 0, True

    def resume(self) -> None:
        """The song goes on (MIDI continue) where it stopped, or at the song position that was sent since."""
        self._next_ticks, self._running = self._held() if self._next_ticks is None else self._next_ticks, True

    def stop(self) -> None:
        """The song stops; the tempo stays, and ticks may go on."""
        if self._running:
            self._next_ticks, self._running, self._origin = self._held(), False, None

    def song_position(self, sixteenths: int) -> None:
        """A song position pointer: sixteenths from the song's start, for the next tick that plays."""
        self._next_ticks = sixteenths * TICKS_PER_SIXTEENTH

    def state(self, at_s: float) -> ClockState:
        """Tempo and position at a moment not before the last message."""
        ticking = self._fit.alive(at_s)
        bpm, error, sure = self._tempo()
        return ClockState(at_s, ticking, self._running, bpm, error, sure and ticking, self._beats(at_s, ticking))

    def _tempo(self) -> tuple[float | None, float, bool]:
        period, error = self._fit.period_s, self._fit.period_error_s
        if period is None:
            return None, 0.0, False
        bpm = 60 / TICKS_PER_BEAT / period
        sigma = bpm * error / period
        whole = round(bpm / _SNAP_BPM) * _SNAP_BPM
        shown = whole if abs(bpm - whole) <= _SNAP_SIGMAS * sigma else round(bpm, 2)
        return shown, sigma, self._fit.span_ticks >= CONFIDENT_BEATS * TICKS_PER_BEAT

    def _beats(self, at_s: float, ticking: bool) -> float | None:
        if self._running and ticking and self._origin is not None and self._loop is not None:
            smoothed, period = self._loop
            since = min(max(at_s - smoothed, -period), TIMEOUT_S) / period
            return max(self._position() + since, 0.0) / TICKS_PER_BEAT
        held = self._held()
        return None if held is None else held / TICKS_PER_BEAT

    def _held(self) -> int | None:
        """The song position that plays next; None when nothing ever told."""
        if self._next_ticks is not None:
            return self._next_ticks
        return None if self._origin is None else self._position() + 1

    def _position(self) -> int:
        """The song position of the newest tick, while running."""
        assert self._origin is not None
        assert self._fit.last is not None
        tick, position = self._origin
        return position + self._fit.last.number - tick.number

    def _follow(self, at_s: float, steps: int) -> None:
        """Move the delay-locked loop on by a tick that is `steps` after the last one."""
        period = self._fit.period_s
        if self._loop is None or period is None:
            self._loop = (at_s, period or 60 / 120 / TICKS_PER_BEAT)
            return
        smoothed, loop_period = self._loop
        omega = 2 * np.pi * _LOOP_HZ * period
        error = at_s - (smoothed + steps * loop_period)
        if abs(error) > TICKS_PER_BEAT * period / 4:  # a jump in time, not jitter
            self._loop = (at_s, period)
            return
        smoothed += steps * loop_period + np.sqrt(2) * omega * error
        loop_period += omega**2 * error / max(steps, 1)
        self._loop = (float(smoothed), float(loop_period))


@dataclass(slots=True)
class Tick:
    """When a tick came, and which one it is; a lost tick leaves a number out."""

    at_s: float
    number: int


class TickFit:
    """Numbers ticks and fits their period. `period_s` is None for the first 24 ticks."""

    def __init__(self) -> None:
        self._ticks: list[Tick] = []
        self._bunched = False
        self._changed = dict.fromkeys(_RECENT_WINDOWS, 0)
        self._since_fit = 0
        self._first_s = 0.0  # where the line has number 0
        self.period_s: float | None = None
        self.period_error_s = 0.0
        self._spread_s = 0.0  # of single ticks around the line

    @property
    def last(self) -> Tick | None:
        """The newest tick."""
        return self._ticks[-1] if self._ticks else None

    @property
    def span_ticks(self) -> int:
        """How many ticks the fit spans, lost ones included."""
        return self._ticks[-1].number - self._ticks[0].number + 1 if self._ticks else 0

    def alive(self, at_s: float) -> bool:
        """Whether a tick came within the last second."""
        return bool(self._ticks) and at_s - self._ticks[-1].at_s <= TIMEOUT_S

    def add(self, at_s: float) -> Tick:
        """Take a tick in and number it; the first four beats' numbers may move while they come in."""
        newest = Tick(at_s, self._ticks[-1].number + 1 if self._ticks else 0)
        if self.period_s is not None:
            newest.number = self._number(at_s, self.period_s)
        self._ticks.append(newest)
        while newest.number - self._ticks[0].number >= _WINDOW_TICKS:
            del self._ticks[0]
        self._since_fit += 1
        if len(self._ticks) >= _FIRST_FIT_TICKS and self._since_fit >= TICKS_PER_SIXTEENTH:
            self._since_fit = 0
            if len(self._ticks) <= _COUNTED_TICKS:
                self._count()
            self._fit()
            self._forget_if_changed()
        return newest

    def _number(self, at_s: float, period_s: float) -> int:
        """The newest tick's number by the line, shifted by how late the last beat came: drift does not slip a tick.

        Bunched ticks are counted on, unless one comes too late for that.
        """
        before = self._ticks[-TICKS_PER_BEAT:]
        lag_s = sum(tick.at_s - self._first_s - tick.number * period_s for tick in before) / len(before)
        place, following = (at_s - lag_s - self._first_s) / period_s, before[-1].number + 1
        if self._bunched and abs(place - following) < _BUNCH_TICKS:
            return following
        return max(round(place), following - 2)

    def _count(self) -> None:
        """Number all ticks anew from the first one's number on."""
        first = self._ticks[0].number
        at = np.array([tick.at_s for tick in self._ticks])
        self._bunched = are_bunched(at)
        for tick, number in zip(self._ticks, count_ticks(at), strict=True):
            tick.number = first + int(number)

    def _fit(self) -> None:
        numbers, times = [tick.number for tick in self._ticks], [tick.at_s for tick in self._ticks]
        self.period_s, self.period_error_s, self._first_s, self._spread_s = fit_line(numbers, times)

    def _forget_if_changed(self) -> None:
        """Drop the past when the newest ticks say, for twelve ticks on end, that the tempo is another one."""
        for count in _RECENT_WINDOWS:
            differs = len(self._ticks) >= 2 * count and self._differs(count)
            self._changed[count] = self._changed[count] + 1 if differs else 0
        changed = next((count for count, times in self._changed.items() if times > _SUSTAINED), None)
        if changed is not None:
            self._ticks = self._ticks[-changed:]
            self._changed = dict.fromkeys(_RECENT_WINDOWS, 0)
            self._count()
            self._fit()

    def _differs(self, count: int) -> bool:
        """Whether the newest `count` ticks have another period than all, by more than 1 % and four standard errors."""
        assert self.period_s is not None
        at = np.array([tick.at_s for tick in self._ticks[-count:]])
        so_far = np.array([tick.number for tick in self._ticks[-count:]], dtype=np.float64)
        scatter = float(np.var(at - so_far * self.period_s))
        if scatter < _MISFIT * (self._spread_s**2 + _LEAST_SCATTER * self.period_s**2):
            return False  # they lie on the line of all
        numbers = np.arange(count, dtype=np.float64) if self._bunched else count_ticks(at)
        period, first = _least_squares(numbers, at)
        power = float(np.square(numbers - numbers.mean()).sum())
        spread = float(np.square(at - first - period * numbers).sum()) / (count - 2)
        error = float(np.sqrt(max(spread, self._spread_s**2) / power))
        return abs(period / self.period_s - 1) > max(_CHANGE, 4 * error / self.period_s)


def count_ticks(at_s: Floats) -> Floats:
    """Tick numbers from 0 on, [N], for rising times of which few were lost and none came twice.

    Periods around the median gap are tried as a comb, and each comb's numbers are corrected against a line through
    themselves; those that fit best with the fewest holes win. So a lost tick leaves a hole, and jitter adds up to
    nothing. Ticks that come an audio buffer's worth at a time say nothing by their gaps: they are counted.
    """
    plain = np.arange(len(at_s), dtype=np.float64)
    if are_bunched(at_s):
        return plain
    since, typical = at_s - at_s[0], float(np.median(np.diff(at_s)))
    combs = [plain, *(_comb(since, typical * ratio) for ratio in _COMB)]
    combs.sort(key=lambda numbers: _cost(numbers, since))
    return min((_straightened(numbers, since) for numbers in combs[:3]), key=lambda numbers: _cost(numbers, since))


def are_bunched(at_s: Floats) -> bool:
    """Whether ticks come several at a time, as an audio callback hands them out."""
    gaps = np.diff(at_s)
    return bool(gaps.min() <= _BUNCHED * np.median(gaps))


def _comb(since_s: Floats, period_s: float) -> Floats:
    """The numbers of the teeth nearest to the ticks, the comb laid where the ticks lie best on it."""
    turns = since_s / period_s
    offset = np.angle(np.exp(2j * np.pi * turns).sum()) / (2 * np.pi)
    numbers = np.maximum.accumulate(np.round(turns - offset))
    return numbers - numbers[0]


def _straightened(numbers: Floats, at: Floats) -> Floats:
    """The numbers nearest to a line through themselves, from 0 on, never falling."""
    for _ in range(4):
        slope, first = _least_squares(numbers, at)
        if slope <= 0:
            break
        better = np.maximum.accumulate(np.round((at - first) / slope))
        better -= better[0]
        if np.array_equal(better, numbers):
            break
        numbers = better
    return numbers


def _cost(numbers: Floats, at_s: Floats) -> float:
    """How unlikely these numbers are: ticks that scatter around their line, and holes and doubles (log likelihood)."""
    slope, first = _least_squares(numbers, at_s)
    if slope <= 0:
        return np.inf
    odd = float(np.abs(np.diff(numbers) - 1).sum())
    scatter = float(np.mean(np.square((at_s - first) / slope - numbers)))
    return len(numbers) / 2 * float(np.log(scatter + _LEAST_SCATTER)) - odd * float(np.log(_LOST))


def _least_squares(numbers: Floats, at: Floats) -> tuple[float, float]:
    x, y = numbers - numbers.mean(), at - at.mean()
    power = float(x @ x)
    slope = float(x @ y) / power if power else 0.0
    return slope, float(at.mean() - slope * numbers.mean())


def fit_line(numbers: list[int], times: list[float]) -> tuple[float, float, float, float]:
    """Huber regression of times on numbers: the period, its standard error, number 0's time, and the ticks' spread."""
    x, y = np.asarray(numbers, dtype=np.float64), np.asarray(times)
    mean_x, mean_y = x.mean(), y.mean()
    x, y = x - mean_x, y - mean_y
    weights, slope, offset, error, spread = np.ones(len(x)), 0.0, 0.0, np.inf, 0.0
    for _ in range(5):  # reweighting settles fast on ticks
        total, sum_x, sum_y = weights.sum(), weights @ x, weights @ y
        power = float(weights @ (x * x) - sum_x * sum_x / total)
        slope = float((weights @ (x * y) - sum_x * sum_y / total) / power)
        offset = float((sum_y - slope * sum_x) / total)
        left = np.abs(y - offset - slope * x)
        error = float(np.sqrt(weights @ (left * left) / max(len(x) - 2, 1) / power))
        spread = 1.4826 * float(np.median(left)) + 1e-9
        weights = np.minimum(1.0, _HUBER * spread / np.maximum(left, 1e-12))
    return slope, error, float(mean_y + offset - slope * mean_x), spread
