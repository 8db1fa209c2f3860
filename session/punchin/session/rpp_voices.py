"""The sum of some tracks of a project: what is heard of them, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from punchin.protocol import limits
from punchin.protocol.errors import Refused
from punchin.session.region import Region
from punchin.session.render import ItemSound, open_item
from punchin.session.rpp_project import Item, Project, Track
from punchin.session.target import Audio

TOUCH_S = 1 / limits.SESSION_RATE.low  # a frame at most: what rounding may make of two times that are meant to be one


@dataclass(frozen=True, slots=True)
class Voice:
    """One track in a sum, with the gains of its left and right; (1, 1) is before the fader."""

    track: Track
    gains: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def after_fader(cls, track: Track) -> Voice:
        """A track through its own volume and pan, as a balance at a pan law of 0 dB."""
        return cls(track, (track.gain * min(1.0, 1.0 - track.pan), track.gain * min(1.0, 1.0 + track.pan)))


@dataclass(frozen=True, eq=False)
class Voices:
    """Some tracks of a project as one sound. left_out: first lines of items that are not heard, by choice."""

    project: Project
    voices: tuple[Voice, ...]
    left_out: frozenset[int] = frozenset()
    _sounds: dict[int, ItemSound] = field(default_factory=dict, repr=False)

    def items(self, start_s: float, end_s: float) -> Iterator[tuple[Voice, Item]]:
        """The items that sound between two project times."""
        for voice in self.voices:
            for item in voice.track.sounding():
                if item.chunk.first not in self.left_out and self.meets(voice.track, item, start_s, end_s):
                    yield voice, item

    def meets(self, track: Track, item: Item, start_s: float, end_s: float) -> bool:
        """Whether an item sounds between two project times. One that cannot be rendered may touch them: it does not."""
        if item.start_s >= end_s or item.end_s <= start_s:
            return False
        touches = item.end_s - start_s <= TOUCH_S or end_s - item.start_s <= TOUCH_S
        return not touches or self.renders(track, item)

    def renders(self, track: Track, item: Item) -> bool:
        """Whether an item can be rendered."""
        try:
            self.sound(track, item)
        except Refused:
            return False
        return True

    def sound(self, track: Track, item: Item) -> ItemSound:
        """An item's sound, opened once. Raises Refused for what cannot be rendered."""
        key = item.chunk.first
        if key not in self._sounds:
            self._sounds[key] = open_item(self.project, track, item)
        return self._sounds[key]

    def sounds(self, start_s: float, end_s: float) -> list[ItemSound]:
        """The sounds of all items between two project times."""
        return [self.sound(voice.track, item) for voice, item in self.items(start_s, end_s)]

    def frames(self, rate_hz: int, origin_s: float, start: int, stop: int) -> Audio:
        """[2, stop - start] of the sum, on frames at `rate_hz` from `origin_s`. Raises Refused."""
        out = np.zeros((2, stop - start), dtype=np.float32)
        for voice, item in self.items(origin_s + start / rate_hz, origin_s + stop / rate_hz):
            sound = self.sound(voice.track, item).heard(rate_hz, origin_s, start, stop)
            if voice.gains != (1.0, 1.0):
                sound = sound * np.array(voice.gains, dtype=np.float32)[:, None]
            out = out + sound if out.any() else sound  # a lone item stays bit-equal, -0.0 too
        return out

    def hearable(self, region: Region, start_s: float, end_s: float) -> tuple[float, float]:
        """The part of a span around the region in which everything can be rendered. Raises Refused for the region."""
        low, high = start_s, end_s
        for voice, item in self.items(start_s, end_s):
            try:
                self.sound(voice.track, item)
            except Refused:
                if item.end_s <= region.start_s + TOUCH_S:
                    low = max(low, min(item.end_s, region.start_s))
                elif item.start_s >= region.end_s - TOUCH_S:
                    high = min(high, max(item.start_s, region.end_s))
                else:
                    raise
        return low, high
