"""Tempo, bar position and phase from MIDI clock: 24 ticks a quarter note, late, early, bunched and sometimes lost.

The period comes from a Huber regression of tick times on tick numbers (`ticks`) over the last eight beats, or 4.5 s
where those are less, the phase from a delay-locked loop (Adriaensen, "Using a DLL to filter time", LAC 2005). No port
and no thread here: times are arguments.

How near a tempo can come: the error of a line through N even ticks over T seconds is at least jitter / T * sqrt(12 / N)
of the tempo (Cramér-Rao). With 3 ms of jitter eight beats leave 0.05 bpm at 127 (95 % of the time) and 0.12 at 200;
4.5 s leave 0.06 at 300. That is why a faster clock is heard for longer before its tempo is called sure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from punchin.clients.midi import ticks

TICKS_PER_BEAT = 24
TICKS_PER_SIXTEENTH = 6
CONFIDENT_BEATS, CONFIDENT_S = 8, 3.75  # of clock before a tempo is called sure: both; from 128 bpm on the time decides
TIMEOUT_S = 1.0  # without a tick: the clock is gone
_APART_S = 1e-6  # at least: a coarse timer stamps all ticks of a burst alike, and no line goes through those

_WINDOW_TICKS, _WINDOW_S = CONFIDENT_BEATS * TICKS_PER_BEAT + 1, 4.5  # what is longer
_MOST_TICKS = 2_000  # kept: 4.5 s at 1000 bpm are 1800
_FIRST_FIT_TICKS = TICKS_PER_BEAT
_COUNTED_TICKS = 4 * TICKS_PER_BEAT  # in so many a ritardando is nearly straight
_QUIET = 0.08  # of a tick: half a tick is six sigmas off
_BENT = 1.5  # times the scatter of those: no one line goes through all
_RECENT_WINDOWS = (24, 48)  # newest ticks that are compared with all: the short one sees jumps, the long one less
_MISFIT = 2.0  # times the usual scatter: the newest ticks leave the line
_MOST_HOLES = 0.5  # of the gaps between ticks
_SUSTAINED = 2  # more looks than this, six ticks apart: a change that holds for twelve ticks
_SLOWER = 1.05  # times the period
_CHANGE = 0.01  # relative; or four standard errors, where that is more
_LOOP_HZ = 0.7  # bandwidth of the delay-locked loop
_SNAP_BPM = 0.5  # people choose whole and half numbers ...
_SNAP_SIGMAS = 2.0  # ... but only what the ticks allow is taken for one,
_SNAP_SURE_BPM = 0.06  # and only where so much is two sigmas at most: a tempo is never further off than that by it


@dataclass(frozen=True, slots=True)
class ClockState:
    """What the clock says at one moment.

    ticking: ticks arrive. running: the transport plays. bpm: None before the first beat; `sure` after eight beats, and
    3.75 s.
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
            self._listen_anew()
        last = self._fit.last
        if last is not None:
            at_s = max(at_s, last.at_s + _APART_S)
        newest = self._fit.add(at_s)
        if self._running and self._next_ticks is not None:
            self._origin, self._next_ticks = (newest, self._next_ticks), None
        self._follow(at_s, 1 if last is None else newest.number - last.number)

    def start(self) -> None:
        """The song starts: the next tick is beat 0."""
        self._listen_on()
        self._next_ticks, self._running = 0, True

    def resume(self) -> None:
        """The song goes on (MIDI continue) where it stopped, or at the song position that was sent since."""
        self._listen_on()
        self._next_ticks, self._running = self._held(), True

    def _listen_on(self) -> None:
        """A song that begins to play begins its clock too: no line goes through its ticks and those before."""
        if not self._running:
            self._listen_anew()

    def _listen_anew(self) -> None:
        """Forget the ticks, and keep the place in the song."""
        self._next_ticks = self._held()
        self._fit, self._loop, self._origin = TickFit(), None, None

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
        near = abs(bpm - whole) <= _SNAP_SIGMAS * sigma <= _SNAP_SURE_BPM
        shown = whole if near else round(bpm, 2)
        return shown, sigma, self._fit.sure

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
        self._changed = dict.fromkeys(_RECENT_WINDOWS, 0)
        self._since_fit, self._since_count = 0, 0
        self._first_s = 0.0  # where the line has number 0
        self.period_s: float | None = None
        self.period_error_s = 0.0
        self._spread_s = 0.0  # of single ticks around the line

    @property
    def last(self) -> Tick | None:
        """The newest tick."""
        return self._ticks[-1] if self._ticks else None

    @property
    def sure(self) -> bool:
        """Whether the fit spans enough: eight beats, and at a fast tempo as long as those take at a middle one."""
        span = self._ticks[-1].number - self._ticks[0].number if self._ticks else 0
        return span >= CONFIDENT_BEATS * TICKS_PER_BEAT and self._ticks[-1].at_s - self._ticks[0].at_s >= CONFIDENT_S

    def alive(self, at_s: float) -> bool:
        """Whether a tick came within the last second."""
        return bool(self._ticks) and at_s - self._ticks[-1].at_s <= TIMEOUT_S

    def add(self, at_s: float) -> Tick:
        """Take a tick in and number it. The last four beats' numbers may move while more come in."""
        following = self._ticks[-1].number + 1 if self._ticks else 0
        newest = Tick(at_s, following if self.period_s is None else self._number(at_s, following, self.period_s))
        self._ticks.append(newest)
        while newest.number - self._ticks[0].number >= _WINDOW_TICKS and at_s - self._ticks[0].at_s > _WINDOW_S:
            del self._ticks[0]
        del self._ticks[:-_MOST_TICKS]
        self._since_fit, self._since_count = self._since_fit + 1, self._since_count + 1
        if len(self._ticks) >= _FIRST_FIT_TICKS and self._since_fit >= TICKS_PER_SIXTEENTH:
            if len(self._ticks) <= _COUNTED_TICKS or self._doubtful:
                self._count()
            self._fit()
            self._forget_if_changed()
        return newest

    @property
    def _doubtful(self) -> bool:
        """Whether ticks may be missing that only came late, or the other way round: more of them will tell.

        It is looked at more often while one of the last beat seems lost: on a quiet clock too, for an audio device's
        empty block looks like that. Else a loud clock is looked at once a beat, and a quiet one never.
        """
        missing = self._ticks[-1].number - self._ticks[-TICKS_PER_BEAT].number >= TICKS_PER_BEAT
        quiet = self.period_s is not None and self._spread_s < _QUIET * self.period_s
        return missing or (not quiet and self._since_count >= TICKS_PER_BEAT)

    def _number(self, at_s: float, following: int, period_s: float) -> int:
        """The newest tick's number until all are counted again: ticks are missing only where that is the likelier.

        By the line, shifted by how late the last beat came, so that drift does not slip a tick.
        """
        before = self._ticks[-TICKS_PER_BEAT:]
        lag_s = sum(tick.at_s - self._first_s - tick.number * period_s for tick in before) / len(before)
        late = (at_s - lag_s - self._first_s) / period_s - following
        return following + max(round(late - ticks.HOLE * (self._spread_s / period_s) ** 2), 0)

    def _count(self) -> None:
        """Number the newest eight beats anew where one line goes through them, else the newest four."""
        self._since_count = 0
        at = np.array([tick.at_s for tick in self._ticks[-_WINDOW_TICKS:]])
        counted, scatter = ticks.count_ticks(at)
        if len(at) > _COUNTED_TICKS:
            newest, straight = ticks.count_ticks(at[-_COUNTED_TICKS:])
            counted = newest if scatter > _BENT * straight else counted
        self._renumber(counted)

    def _renumber(self, counted: ticks.Counts) -> None:
        """Give the newest ticks the numbers counted. The older half of them says where the count stands."""
        newest, settled = self._ticks[-len(counted) :], max(len(counted) // 2, 1)
        moved = np.array([tick.number for tick in newest[:settled]]) - counted[:settled]
        first = int(np.round(np.median(moved)))
        for tick, number in zip(newest, counted, strict=True):
            tick.number = first + int(number)

    def _fit(self) -> None:
        self._since_fit = 0
        numbers, times = [tick.number for tick in self._ticks], [tick.at_s for tick in self._ticks]
        self.period_s, self.period_error_s, self._first_s, self._spread_s = ticks.fit_line(numbers, times)
        block_s = ticks.block(np.asarray(times))
        if block_s is not None:
            of_blocks = self.period_s * ticks.block_error(np.asarray(times), block_s)
            self.period_error_s = max(self.period_error_s, of_blocks)

    def _forget_if_changed(self) -> None:
        """Drop the past when the newest ticks say, for twelve ticks on end, that the tempo is another one.

        At a much slower one ticks seemed lost that were not: it is counted on plainly from a beat before.
        """
        for count in _RECENT_WINDOWS:
            differs = len(self._ticks) >= 2 * count and self._differs(count)
            self._changed[count] = self._changed[count] + 1 if differs else 0
        changed = next((count for count, times in self._changed.items() if times > _SUSTAINED), None)
        if changed is not None:
            before, was_s = self._ticks[-changed - TICKS_PER_BEAT].number + TICKS_PER_BEAT, self.period_s
            self._changed = dict.fromkeys(_RECENT_WINDOWS, 0)
            self._ticks = self._ticks[-changed:]
            self._count()
            self._fit()
            if was_s is not None and self.period_s is not None and self.period_s > _SLOWER * was_s:
                self._shift(before - self._ticks[0].number)

    def _shift(self, steps: int) -> None:
        """Count all ticks up or down."""
        for tick in self._ticks:
            tick.number += steps
        self._fit()

    def _differs(self, count: int) -> bool:
        """Whether the newest `count` ticks have another period than all, by more than 1 % and four standard errors.

        So they do where every second one seems lost, or two of three: no clock loses as many, it is a slower one.
        """
        assert self.period_s is not None
        at = np.array([tick.at_s for tick in self._ticks[-count:]])
        so_far = np.array([tick.number for tick in self._ticks[-count:]], dtype=np.float64)
        if np.mean(np.diff(so_far) > 1) > _MOST_HOLES:
            return True
        scatter = float(np.var(at - so_far * self.period_s))
        if scatter < _MISFIT * (self._spread_s**2 + ticks.LEAST_SCATTER * self.period_s**2):
            return False  # they lie on the line of all
        numbers = ticks.count_ticks(at)[0].astype(np.float64)
        period, first = (float(part) for part in np.polyfit(numbers, at, 1))
        power = float(np.square(numbers - numbers.mean()).sum())
        spread = float(np.square(at - first - period * numbers).sum()) / (count - 2)
        error = float(np.sqrt(max(spread, self._spread_s**2) / power))
        return abs(period / self.period_s - 1) > max(_CHANGE, 4 * error / self.period_s)
