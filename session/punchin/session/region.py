"""What the user selected: one time span of a session, checked before anything is read from disk."""

from __future__ import annotations

from dataclasses import dataclass

from punchin.protocol import limits
from punchin.protocol.errors import BadUsage, Refused
from punchin.session.tempo import TempoMap

SLACK_S = 1e-6  # a bar line computed twice may differ by rounding, never by this much


@dataclass(frozen=True, slots=True)
class Region:
    """A span in project time and in beats (quarter notes from the session's start).

    bars: the first and last bar touched, counted from 1. 0.25 to 600 s long (`limits.REGION`).
    """

    start_s: float
    end_s: float
    start_beats: float
    end_beats: float
    bars: tuple[int, int]

    @property
    def length_s(self) -> float:
        """End minus start."""
        return self.end_s - self.start_s


def choose(tempo: TempoMap, end_s: float, bars: tuple[int, int] | None, time: tuple[float, float] | None) -> Region:
    """The region of a session that ends at `end_s`, by bars or by time; exactly one of them is given."""
    if (bars is None) == (time is None):
        raise BadUsage("a region is given by bars or by time", "use --bars A-B, or --time S-E")
    if bars is not None:
        return of_bars(tempo, end_s, *bars)
    assert time is not None
    return of_time(tempo, end_s, *time)


def of_bars(tempo: TempoMap, end_s: float, first: int, last: int) -> Region:
    """The region of bars `first` to `last` inclusive, counted from 1. Refuses bars that the session does not have."""
    if last < first:
        raise Refused(f"bars {first}-{last} run backwards", f"use --bars {last}-{first}")
    count = bar_count(tempo, end_s)
    if first < 1 or last > count:
        asked = f"bar {first} is" if first == last else f"bars {first}-{last} are"
        plural = "s" if count != 1 else ""
        hint = f"use --bars within 1-{count}" if count else "put audio into it, and save"
        raise Refused(f"{asked} outside the session, which has {count} bar{plural}", hint)
    start, end = tempo.bars_to_seconds(first, last)
    return of_span(tempo, start, end)


def of_time(tempo: TempoMap, end_s: float, start: float, end: float) -> Region:
    """The region from `start` to `end` in seconds of project time, at most to the end of the session's last bar.

    Refuses empty, reversed and outside spans.
    """
    if not start < end:  # written so that NaN is refused too
        raise Refused(f"the region from {start:g} s to {end:g} s has no length", "give a start before its end")
    last = bar_count(tempo, end_s)
    last_s = max(tempo.bars_to_seconds(last, last)[1], end_s) if last else end_s
    if start < 0 or end > last_s + SLACK_S:
        raise Refused(
            f"the region from {start:g} s to {end:g} s is outside the session, which ends at {end_s:.3f} s",
            f"use --time within 0-{last_s:.3f}",
        )
    return of_span(tempo, start, end)


def bar_count(tempo: TempoMap, end_s: float) -> int:
    """How many bars begin before the session's end; the last may be cut short by it."""
    return tempo.bar_at(max(end_s - SLACK_S, 0.0)) if end_s > 0 else 0


def of_span(tempo: TempoMap, start: float, end: float) -> Region:
    """The region of a span that a session had when it was chosen, in seconds. Only its length is checked."""
    limits.REGION.check(end - start, "select fewer or more bars")
    beats = tempo.seconds_to_beats([start, end])
    bars = tempo.bar_at(start + SLACK_S), tempo.bar_at(end - SLACK_S)
    return Region(start, end, float(beats[0]), float(beats[1]), bars)
