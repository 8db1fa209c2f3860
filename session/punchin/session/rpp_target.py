"""A region of a project that can be heard and landed on, all of it on one axis of frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from punchin.session import splice
from punchin.session.region import Region
from punchin.session.render import ItemSound
from punchin.session.rpp_project import Project, Track
from punchin.session.rpp_voices import Voices
from punchin.session.target import Audio, How, Placed, check_take, narrowed


class Form(NamedTuple):
    """How take files are made: libsndfile's names for format and subtype."""

    rate_hz: int
    channels: int
    format: str
    subtype: str


class Span(NamedTuple):
    """Frames [first, stop)."""

    first: int
    stop: int


@dataclass(frozen=True, eq=False)
class RppTarget:
    """A region of a project; `Target` says what its parts mean.

    under: the track that takes land on or under; None is after the last one.
    item: the one item whose new take a landing is; None lands as an item of its own, which spans `shown`.
    file: what take files span; beyond `shown` they hold what surrounds it (the item's own source), to slip into.
    voices: what is heard. clear_s: a lead on an item begins no earlier.
    replaces: whether what sounds under `shown` gives way (a layer plays beside it).
    """

    project: Project
    track: str
    under: Track | None
    region: Region
    how: How
    item: ItemSound | None
    voices: Voices
    form: Form
    origin_s: float
    file: Span
    shown: Span
    inside: Span
    notes: tuple[str, ...]
    clear_s: float = 0.0
    replaces: bool = True

    @property
    def rate_hz(self) -> int:
        """Frames a second, of frames and take files."""
        return self.form.rate_hz

    @property
    def channels(self) -> int:
        """Channels of the take files."""
        return self.form.channels

    @property
    def subtype(self) -> str:
        """Subtype of the take files."""
        return self.form.subtype

    @property
    def start_frame(self) -> int:
        """The region's first frame."""
        return self.inside.first

    @property
    def end_frame(self) -> int:
        """The frame after the region."""
        return self.inside.stop

    @property
    def lead_frames(self) -> int:
        """Frames before the region that a take covers; into an item's handle, where the region begins with the item."""
        first = self.shown.first if self.item is None else max(self.file.first, self.frame_at(self.clear_s))
        return splice.lead_frames(self.inside.first - first, self.rate_hz)

    @property
    def before(self) -> NDArray[Any]:
        """What takes are spliced into: the item's own samples, or what is heard there; silence under a layer."""
        return self._before

    @property
    def before_frame(self) -> int:
        """The frame at which `before` begins."""
        return self.file.first

    @property
    def plays(self) -> tuple[int, int]:
        """The frames of `before` that are heard: all, or the item without its handles."""
        return self.file if self.item is None else self.shown

    @property
    def landing(self) -> str:
        """In words, how takes land."""
        if self.item is not None:
            return "a take on the item"
        if not self.replaces:
            return "a new track beside the others"
        return {
            "take": "a new item on the track; what it replaces is split and muted",
            "split": "a new item on the track; what it replaces is split and muted",
            "lane": "a new lane of the track, which plays instead of the others",
            "track": "a new track; what it replaces is split and muted",
        }[self.how]

    def frame_at(self, at_s: float) -> int:
        """The frame nearest to a project time."""
        return round((at_s - self.origin_s) * self.rate_hz)

    def time_at(self, frame: int) -> float:
        """The project time of a frame."""
        return self.origin_s + frame / self.rate_hz

    def hearable(self, start_s: float, end_s: float) -> tuple[float, float]:
        """The part of a span around the region in which everything can be rendered."""
        return self.voices.hearable(self.region, start_s, end_s)

    def heard(self, start_s: float, end_s: float) -> Audio:
        """What sounds, [2, n]. Raises Refused for what cannot be rendered, and for missing media."""
        return self._frames(self.frame_at(start_s), self.frame_at(end_s))

    def resamples(self, start: int, stop: int) -> bool:
        """Whether an item there has media of another rate, or a playrate of its own."""
        sounds = self.voices.sounds(self.time_at(start), self.time_at(stop))
        return any(not sound.plain_at(self.rate_hz) for sound in sounds)

    def played(self, held: NDArray[Any], first: int) -> NDArray[Any]:
        """What a piece of the take's file sounds like under item gain, fades and pan; see `Target.played`."""
        if self.item is None:
            return held
        sounding = self.item.played(held, self.rate_hz, self.origin_s, self.file.first + first)
        one = len(held) == 1 and self.item.take.pan == 0.0  # twice the same need not be measured twice
        return (sounding[:1] if one else sounding).astype(np.float32)

    def audible(self, sound: Audio) -> Audio:
        """What is heard of a sound when a take holds it; see `Target.audible`."""
        if self.item is None:
            return np.broadcast_to(narrowed(sound, self.channels), sound.shape)
        return self.item.audible(sound, self.rate_hz, self.origin_s, self.start_frame)

    def place(self, new: Audio) -> Placed:
        """Splice a take into the original; see `Target.place`."""
        check_take(new, self)
        before = self.before
        if self.item is not None:
            own, held = self._own(self.item, new)
        else:
            own, held = narrowed(new, self.channels), 0
        start, end = self.start_frame - self.file.first, self.end_frame - self.file.first
        fades = splice.choose(before, own, start, end, self.rate_hz)
        return Placed(before, splice.splice(before, own, start, end, fades), start, end, fades, self.rate_hz, held)

    def _own(self, item: ItemSound, new: Audio) -> tuple[NDArray[Any], int]:
        """What the item must hold so that the track sounds like `new`: neighbours' crossfades are taken out.

        In its handle nothing is heard of it: there it goes on as it would.
        """
        low, high = self.start_frame - self.lead_frames, self.end_frame
        heard, alone = self._frames(low, high), item.heard(self.rate_hz, self.origin_s, low, high)
        others = heard - alone
        others[:, : max(self.shown.first - low, 0)] = 0.0
        share = np.where(new == heard, alone, new - others)
        kept = self.before[:, low - self.file.first : high - self.file.first]
        times_s = np.clip(self.origin_s + np.arange(low, high) / self.rate_hz, item.item.start_s, item.item.end_s)
        return item.take_back(share, alone, kept, item.gains(times_s))

    def _frames(self, start: int, stop: int) -> Audio:
        return self.voices.frames(self.rate_hz, self.origin_s, start, stop)

    @cached_property
    def _before(self) -> NDArray[Any]:
        if self.item is not None:
            return self.item.kept(self.rate_hz, self.origin_s, *self.file)
        if not self.replaces:
            return np.zeros((self.channels, self.file.stop - self.file.first), dtype=np.float32)
        return self._frames(*self.file)[: self.channels]
