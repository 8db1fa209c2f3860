"""The landing plan: all that is needed to put a job's takes into their session, by whoever finds them done.

It travels with the order as opaque bytes, is journaled with it, and comes back in the job's record.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from punchin.clients.journey.request import Making, Request, plain, read
from punchin.clients.journey.window import Window
from punchin.protocol.errors import Refused

VERSION = 2


class Kept(Struct, frozen=True, kw_only=True, array_like=True):
    """A take of an earlier job that needs no further roll. `index` counts in that job's takes."""

    job: str
    index: int
    attempts: int


class Place(Struct, frozen=True, kw_only=True):
    """Where one region's takes belong. Times are project time, window frames the target's.

    passage: which of the first order's passages made them, from 0.
    heard_sha256: of what the model was given, before any effect, so that a landing sees whether the region and what
    surrounds it are still what they were.
    track, bars, time_s, hear: as they were asked for.
    """

    passage: int
    heard_sha256: str
    region_s: tuple[float, float]
    window: tuple[int, int, int, int]
    rate_hz: int
    track: str | None = None
    bars: tuple[int, int] | None = None
    time_s: tuple[float, float] | None = None
    hear: tuple[str, ...] = ()

    @property
    def span(self) -> Window:
        """The window in the target's frames."""
        return Window(self.rate_hz, *self.window)


class Plan(Struct, tag="region", frozen=True, kw_only=True):
    """Where a job's takes belong, region by region.

    request: what was asked for, with absolute paths, but without prompt and lyrics: those are in the order. It names
    the first region; all else was asked of all of them.
    slots: which take of the request each take of this job is: passage by passage, `variations` of each.
    kept: takes that are good already, by slot.
    pre_fx_sha256, return_fx_sha256: of the request's chain files when it was asked for; "" without one, and in plans of
    an older punchin.
    """

    version: int = VERSION
    request: Request
    places: tuple[Place, ...]
    pre_fx_sha256: str = ""
    return_fx_sha256: str = ""
    attempt: int = 1
    slots: tuple[int, ...] = (0,)
    kept: dict[int, Kept] = {}

    def encode(self) -> bytes:
        """The bytes that travel."""
        return msgspec.msgpack.encode(self, enc_hook=plain)

    def elsewhere(self, out: Path) -> Plan:
        """The same, with another document to write."""
        return structs.replace(self, request=replace(self.request, out=out))

    def asked(self, place: Place) -> Request:
        """What was asked for one of the places."""
        return replace(self.request, track=place.track, bars=place.bars, time_s=place.time_s, hear=place.hear)


class FilePlan(Struct, tag="file", frozen=True, kw_only=True):
    """Where music from a prompt alone belongs: absolute path of the first take's file, its tempo and its length.

    frames: at 48 kHz; the order asks for more, so that a take which is too fast can be stretched and none too short.
    making: what was asked for, without prompt and lyrics: those are in the order. slots, kept: as of `Plan`.
    """

    version: int = VERSION
    out: str
    bpm: float
    frames: int
    making: Making | None = None
    attempt: int = 1
    slots: tuple[int, ...] = (0,)
    kept: dict[int, Kept] = {}

    def elsewhere(self, out: Path) -> FilePlan:
        """The same, with another first file to write."""
        return structs.replace(self, out=str(out))

    def encode(self) -> bytes:
        """The bytes that travel."""
        return msgspec.msgpack.encode(self, enc_hook=plain)


def decode(data: bytes, job: str) -> Plan | FilePlan:
    """The plan of a job. Raises Refused when it has none, or one that this version cannot read."""
    if not data:
        raise Refused(f"job {job} has no landing plan: it was not asked for by a journey", f"punchin show {job}")
    try:
        version = msgspec.msgpack.decode(data, type=_Head).version
        if version != VERSION:
            text = f"the landing plan of job {job} has version {version}, this punchin reads {VERSION}"
            raise Refused(text, f"punchin play {job}")
        return msgspec.msgpack.decode(data, type=Plan | FilePlan, dec_hook=read)
    except msgspec.MsgspecError as error:
        raise Refused(f"the landing plan of job {job} cannot be read: {error}") from None


class _Head(Struct):
    version: int = 0
