"""The landing plan: all that is needed to put a job's takes into their session, by whoever finds them done.

It travels with the order as opaque bytes, is journaled with it, and comes back in the job's record.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from punchin.clients.journey.request import Making, Request, plain, read
from punchin.clients.journey.window import Window
from punchin.protocol.errors import Refused

VERSION = 1


class Kept(Struct, frozen=True, kw_only=True):
    """A take of an earlier job that needs no further roll. `index` counts in that job's takes."""

    job: str
    index: int
    attempts: int


class Plan(Struct, tag="region", frozen=True, kw_only=True):
    """Where takes belong. Times are project time, window frames the target's.

    request: what was asked for, with absolute paths, but without prompt and lyrics: those are in the order.
    heard_sha256: of what the model was given, before any effect, so that a landing sees whether the region and what
    surrounds it are still what they were.
    slots: which take of the request each seed of this job makes; kept: takes that are good already, by slot.
    also: where the same takes belong too, region by region; of these plans `attempt`, `slots` and `kept` say nothing.
    """

    version: int = VERSION
    request: Request
    heard_sha256: str
    region_s: tuple[float, float]
    window: tuple[int, int, int, int]
    rate_hz: int
    attempt: int = 1
    slots: tuple[int, ...] = (0,)
    kept: dict[int, Kept] = {}
    also: tuple[Plan, ...] = ()

    def encode(self) -> bytes:
        """The bytes that travel."""
        return msgspec.msgpack.encode(self, enc_hook=plain)

    @property
    def regions(self) -> tuple[Plan, ...]:
        """One plan for each region of the job, this one first."""
        return (self, *self.also)

    @property
    def span(self) -> Window:
        """The window in the target's frames."""
        return Window(self.rate_hz, *self.window)


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

    def encode(self) -> bytes:
        """The bytes that travel."""
        return msgspec.msgpack.encode(self, enc_hook=plain)


def decode(data: bytes, job: str) -> Plan | FilePlan:
    """The plan of a job. Raises Refused when it has none, or one that this version cannot read."""
    if not data:
        raise Refused(f"job {job} has no landing plan: it was not asked for by a journey", f"punchin show {job}")
    try:
        plan = msgspec.msgpack.decode(data, type=Plan | FilePlan, dec_hook=read)
    except msgspec.MsgspecError as error:
        raise Refused(f"the landing plan of job {job} cannot be read: {error}") from None
    if plan.version != VERSION:
        raise Refused(f"the landing plan of job {job} has version {plan.version}, this punchin reads {VERSION}")
    return plan
