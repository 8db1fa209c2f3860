"""What the user selected: one time span of a session, checked before anything is read from disk."""

from __future__ import annotations

from dataclasses import dataclass

from punchin.protocol import limits
from punchin.protocol.errors import BadUsage, Refused
from punchin.session.tempo import TempoMap, in_bars

SLACK_S = 1e-6  # a bar line computed twice may differ by rounding, never by this much


@dataclass(frozen=True, slots=True)
class Region:
    """A span in project time and in beats (quarter notes from the session's start).

    bars: the first and last bar touched, by the numbers of the session's ruler. 0.25 to 600 s long (`limits.REGION`).
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
    """The region of bars `first` to `last` inclusive. Refuses bars that the session does not have."""
    if last < first:
        raise Refused(f"{in_bars((first, last))} run backwards", f"use --bars={last}-{first}")
    final = last_bar(tempo, end_s)
    if first < tempo.first_bar or last > final:
        asked = f"{in_bars((first, last))} {'is' if first == last else 'are'} outside the session"
        if final < tempo.first_bar:
            raise Refused(f"{asked}, which has no bars", "put audio into it, and save")
        there = in_bars((tempo.first_bar, final))
        raise Refused(f"{asked}, which has {there}", f"use bars within --bars={tempo.first_bar}-{final}")
    start, end = tempo.bars_to_seconds(first, last)
    return of_span(tempo, start, end)


def of_time(tempo: TempoMap, end_s: float, start: float, end: float) -> Region:
    """The region from `start` to `end` in seconds of project time, at most to the end of the session's last bar.

    Refuses empty, reversed and outside spans.
    """
    if not start < end:  # written so that NaN is refused too
        raise Refused(f"the region from {start:g} s to {end:g} s has no length", "give a start before its end")
    last = last_bar(tempo, end_s)
    last_s = max(tempo.bars_to_seconds(last, last)[1], end_s) if last >= tempo.first_bar else end_s
    if start < 0 or end > last_s + SLACK_S:
        raise Refused(
            f"the region from {start:g} s to {end:g} s is outside the session, which ends at {end_s:.3f} s",
            f"use --time within 0-{last_s:.3f}",
        )
    return of_span(tempo, start, end)


def last_bar(tempo: TempoMap, end_s: float) -> int:
    """The last bar that begins before the session's end, which may cut it short; below the first where none does."""
    return tempo.bar_at(max(end_s - SLACK_S, 0.0)) if end_s > 0 else tempo.first_bar - 1


def of_span(tempo: TempoMap, start: float, end: float) -> Region:
    """The region of a span that a session had when it was chosen, in seconds. Only its length is checked."""
    limits.REGION.check(end - start, "select fewer or more bars")
    beats = tempo.seconds_to_beats([start, end])
    bars = tempo.bar_at(start + SLACK_S), tempo.bar_at(end - SLACK_S)
    return Region(start, end, float(beats[0]), float(beats[1]), bars)
