"""Steps 6 and 7 of a journey: what came back is brought to the session's rate and level, spliced, and measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from punchin.clients.journey.capture import Capture
from punchin.clients.journey.request import Request
from punchin.protocol import limits
from punchin.protocol.errors import JobFailed, PunchinError
from punchin.session import level, measure
from punchin.session.report import Report
from punchin.session.resample import frames_at, resample
from punchin.session.target import Placed

if TYPE_CHECKING:
    from punchin.clients.journey.waiting import Listener

Audio = NDArray[np.float32]

_OF_WHAT_PLAYS = ("cover", "extract")  # tasks that make silence of silence
GRID_S = 5.0  # of beats on each side of the region, for onsets at its edges


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A take as it will be in its file, not on disk yet, and what is true of it.

    span: where region and bar lines are in `placed`; `first_bar` is the number of the first of those lines.
    """

    placed: Placed
    report: Report
    span: measure.Span
    first_bar: int


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What a region's takes are measured against. It is made while the engine works, so that they need not wait."""

    aim: level.Aim
    before: measure.Before
    first_bar: int

    @classmethod
    def of(cls, captured: Capture, request: Request) -> Known:
        """Measure what was captured for a request. Raises Refused where the original cannot be read any more."""
        span, first_bar = _span(captured, request)
        target = captured.target
        aim = level.Aim.at(target.audible(_source(captured)), _context(captured), target.rate_hz)
        return cls(aim, measure.Before.of(target.before, span, target.played), first_bar)


class ReturnFx:
    """The effects on takes, `chain`, if there is one. A chain that hung is not waited for again."""

    def __init__(self, chain: Path | None, listener: Listener) -> None:
        self._chain, self._listener = chain, listener
        self._hung: str | None = None

    def __call__(self, made: Audio) -> tuple[Audio, str | None]:
        """What comes out of the chain; or what went in, and why."""
        chain = self._chain
        if chain is None or self._hung is not None:
            return made, self._hung
        from punchin.clients import fx

        self._listener.say(f"  through {chain.name} ...")
        try:
            return fx.apply(chain, made, limits.MODEL_HZ), None
        except PunchinError as error:  # the take took longer to make than its effects: it lands dry
            failed = f"{chain.name}: {error}"
            if isinstance(error, fx.EffectHung):
                self._hung = failed
            which = "all takes land" if self._hung else "the take lands"
            self._listener.warn(f"{error}; {which} without {chain.name}")
            return made, failed


def finish(
    captured: Capture, request: Request, made: Audio, wanted: tuple[int, int], known: Known, return_fx: ReturnFx
) -> Finished:
    """Put a take's audio into its place. made: [1 or 2, n], its passage's `wanted` frames at 48 kHz.

    known: of what was captured. return_fx: the request's, the same for all of its takes.

    Raises JobFailed when the engine returned another length than was asked for.
    """
    window, target, way = captured.window, captured.target, captured.way
    if made.shape[1] != wanted[1] - wanted[0]:
        asked = wanted[1] - wanted[0]
        raise JobFailed(f"the engine returned {made.shape[1]} frames, {asked} were asked for", "punchin doctor")
    made = made[:, way.wanted[0] - wanted[0] : way.wanted[1] - wanted[0]]
    stereo = np.repeat(made, 2, axis=0) if len(made) == 1 else made
    wet, fx_failed = return_fx(stereo)
    new = _at_target_rate(captured, way.back(wet))
    sounding, matching = target.audible(new[:, target.lead_frames :]), request.level
    new, matched = level.match(new, sounding, known.aim, target.rate_hz, level=matching)
    placed = target.place(new)
    facts = measure.Made(
        resampled=target.rate_hz != limits.MODEL_HZ or target.resamples(window.start, window.stop),
        warped=way.bpm is not None,
        window_s=window.seconds,
        context_s=window.context_s(target.start_frame),
        gain_db=matched.gain_db,
        level_held=not matching or matched.held_by_ceiling,
        ungain_held_frames=placed.held_frames,
        grid_error_ms=way.grid_error_ms,
        return_fx_failed=fx_failed,
        notes=target.notes,
    )
    anew = request.task not in _OF_WHAT_PLAYS
    report = measure.report(known.before, placed.after, placed.fades, facts, anew=anew)
    return Finished(placed, report, known.before.span, known.first_bar)


def _at_target_rate(captured: Capture, came: Audio) -> Audio:
    """[2, touched to end] at the target's rate. What came begins on a frame of both rates, so the phase is true."""
    window, rate_hz = captured.window, captured.target.rate_hz
    begins = window.start + captured.way.first * rate_hz // limits.MODEL_HZ
    frames = frames_at(came.shape[1], limits.MODEL_HZ, rate_hz) + 1
    at_rate = came if rate_hz == limits.MODEL_HZ else resample(came, limits.MODEL_HZ, rate_hz, frames)
    return at_rate[:, window.touched - begins : window.end - begins]


def _source(captured: Capture) -> Audio:
    window, target = captured.window, captured.target
    return captured.heard[:, target.start_frame - window.start : window.end - window.start]


def _context(captured: Capture) -> Audio:
    window, target = captured.window, captured.target
    before = captured.heard[:, : target.start_frame - window.start]
    return np.concatenate([before, captured.heard[:, window.end - window.start :]], axis=1)


def _span(captured: Capture, request: Request) -> tuple[measure.Span, int]:
    """Where region and bar lines lie in what takes are spliced into, and the number of the first line."""
    target, region, tempo = captured.target, captured.region, captured.session.tempo
    rate_hz, start, end = target.rate_hz, *(f - target.before_frame for f in (target.start_frame, target.end_frame))
    first_heard, stop_heard = (frame - target.before_frame for frame in target.plays)
    first_s = region.start_s - start / rate_hz
    last_s = first_s + target.before.shape[1] / rate_hz
    lines_s = tempo.bar_lines(max(first_s, 0.0), last_s)
    lines = tuple(int(line) for line in np.rint((lines_s - first_s) * rate_hz))
    first_bar = tempo.bar_at(float(lines_s[0]) + 1e-6) if len(lines_s) else tempo.first_bar
    grid = tempo.grid(max(region.start_s - GRID_S, 0.0), region.end_s + GRID_S)
    anchored = not (request.is_audio and request.time_s and request.tempo_map is None)  # it may change its tempo before
    return measure.Span(rate_hz, start, end, lines, grid, first_s, anchored, (first_heard, stop_heard)), first_bar
