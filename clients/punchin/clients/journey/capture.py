"""Steps 1 and 2 of a journey: what is selected, and what the model will hear of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from punchin.clients.journey.conform import Way, way
from punchin.clients.journey.plan import Place
from punchin.clients.journey.request import Request
from punchin.clients.journey.window import Window, around, auto_context, hull
from punchin.protocol import limits
from punchin.protocol.errors import Refused
from punchin.session.document import Session, open_session
from punchin.session.region import Region, of_span
from punchin.session.target import Target
from punchin.session.tempo import TempoMap

Audio = NDArray[np.float32]

SILENCE = 10 ** (-100 / 20)  # a peak below -100 dBFS is silence


@dataclass(frozen=True, eq=False)
class Capture:
    """One region of one session, in memory: `heard` is [2, window.frames] at the target's rate.

    bounds: the first and last frame that can be heard at all.
    """

    session: Session
    target: Target
    window: Window
    heard: Audio
    bounds: tuple[int, int]

    @cached_property
    def way(self) -> Way:
        """There and back: to the tempo at which the model hears the window, and back to the session's."""
        return way(self.session.tempo, self.window, self.target.origin_s)

    @property
    def heard_sha256(self) -> str:
        """Names what was heard, and how it was conformed: equal sound at an equal tempo has an equal name."""
        name = hashlib.sha256(np.ascontiguousarray(self.heard.T).data)
        name.update(self.way.points)
        return name.hexdigest()

    @property
    def region(self) -> Region:
        """What the user selected."""
        return self.target.region


def opened(request: Request) -> Session:
    """The session of a request. Several regions of it are captured from one opening, so that they can land together."""
    signature = request.prompt.signature if request.is_audio else None
    return open_session(request.session, request.bpm, request.tempo_map, signature, request.approximate)


def capture(request: Request, session: Session) -> Capture:
    """Render what the model hears. Raises Refused and OverLimit; nothing is written."""
    region = session.region(bars=request.bars, time=request.time_s)
    target = _target(session, request, region)
    limits.SESSION_RATE.check(target.rate_hz, "resample what the track plays first, in the DAW, and save")
    first_s, last_s = target.hearable(0.0, session.end_s)
    bounds = target.frame_at(first_s), target.frame_at(last_s)
    window = around(
        (target.start_frame, target.end_frame),
        bounds,
        target.lead_frames,
        target.rate_hz,
        _context_s(target, session.tempo, request.context, first_s, last_s),
    )
    heard = _hear(target, window)
    if np.abs(heard).max(initial=0.0) < SILENCE:
        raise Refused(
            f"{_what(target)} is silent in the region and {window.seconds:.1f} s around it: nothing to go by",
            "select bars that sound, or hear more around them: --context whole",
        )
    return Capture(session, target, window, heard, bounds)


def in_one_window(captures: Sequence[Capture], *, widen: bool) -> tuple[Capture, ...]:
    """Regions of one track in one window, as the model hears and makes them. widen: until half of it is context."""
    first = captures[0]
    window = hull([each.window for each in captures], first.bounds if widen else None)
    heard = _hear(first.target, window)
    return tuple(
        replace(each, heard=heard, window=replace(each.window, start=window.start, stop=window.stop))
        for each in captures
    )


def capture_again(request: Request, place: Place, session: Session) -> Capture:
    """What the takes of a place were made from, as the session is now.

    Raises Refused (`changed`) when the region or what surrounds it no longer sounds as the model heard it.
    """
    region = of_span(session.tempo, *place.region_s)
    target = _target(session, request, region)
    span = place.span.ending_at(target.end_frame)  # frames count from an item, which may begin elsewhere by now
    if (span.rate_hz, span.touched) == (target.rate_hz, target.start_frame - target.lead_frames):
        found = Capture(session, target, span, _hear(target, span), (span.start, span.stop))
        if found.heard_sha256 == place.heard_sha256:
            return found
    raise Refused(
        f"{session.path.name} has changed since: {_what(target)} no longer sounds as the model heard it from "
        f"{region.start_s:.2f} s to {region.end_s:.2f} s",
        "undo that change and land again, or ask for a new take",
        code="changed",
    )


def _target(session: Session, request: Request, region: Region) -> Target:
    if request.is_layer:
        return session.layer(region, request.prompt.instrument, request.hear)
    return session.target(request.track, region, request.land)


def _hear(target: Target, window: Window) -> Audio:
    start_s, stop_s = (target.origin_s + frame / target.rate_hz for frame in (window.start, window.stop))
    heard = target.heard(start_s, stop_s)
    if not np.isfinite(heard).all():
        bad = int(np.count_nonzero(~np.isfinite(heard)))
        raise Refused(f"{_what(target)} holds {bad} samples that are no number", "export that file again")
    return heard


def _context_s(
    target: Target, tempo: TempoMap, context: int | str, first_s: float, last_s: float
) -> tuple[float, float]:
    """Seconds to hear before the lead and after the region, of those from `first_s` to `last_s` that can be heard."""
    region = target.region
    if context == "whole":
        return region.start_s - first_s, last_s - region.end_s
    if context == "auto":
        return auto_context(region.start_s - first_s, region.length_s, last_s - region.end_s)
    first, last = region.bars
    earliest = max(first - int(context), tempo.first_bar)
    start_s, end_s = tempo.bars_to_seconds(earliest, last + int(context))
    # The window begins a lead and up to a latent frame sooner, but never before the bar: another tempo may hold there.
    sooner_s = target.lead_frames / target.rate_hz + 1 / limits.LATENT_HZ
    return max(region.start_s - start_s - sooner_s, 0.0), max(end_s - region.end_s, 0.0)


def _what(target: Target) -> str:
    return f'track "{target.track}"' if target.track else "the file"
