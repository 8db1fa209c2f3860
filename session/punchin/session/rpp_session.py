"""A REAPER project as a session: which items a region meets, what sounds there, and where its takes go."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from punchin.protocol import limits
from punchin.protocol.errors import Refused
from punchin.session import rpp, rpp_project, splice
from punchin.session.region import Region, choose
from punchin.session.render import ItemSound, open_item, widest_fade
from punchin.session.rpp_project import Item, Project, Track
from punchin.session.target import Audio, How, Landing, LandingTake, Placed, check_take
from punchin.session.tempo import TempoMap

EDGE_S = 0.1  # a neighbour that reaches this far into a region is a crossfade, not a second layer of it
COVER_S = 0.001  # an item that ends this much before a bar line was cut at it
LOSSLESS = {"PCM_S8": "PCM_24", "PCM_U8": "PCM_24", "PCM_16": "PCM_24", "PCM_24": "PCM_24", "PCM_32": "PCM_32"}


@dataclass(frozen=True, eq=False)
class RppSession:
    """A REAPER project. Only read; what lands is a new file."""

    path: Path
    sha256: str
    project: Project

    @property
    def tempo(self) -> TempoMap:
        """The project's tempo map."""
        return self.project.tempo

    @property
    def rate_hz(self) -> int:
        """The project's rate; 48,000 where it leaves that to the audio device."""
        return self.project.rate_hz or limits.MODEL_HZ

    @property
    def end_s(self) -> float:
        """Where the last item ends."""
        return self.project.end_s

    @property
    def track_names(self) -> tuple[str, ...]:
        """The tracks' names, in order; nameless ones are empty."""
        return tuple(track.name for track in self.project.tracks)

    def region(self, *, bars: tuple[int, int] | None = None, time: tuple[float, float] | None = None) -> Region:
        """Bars A to B inclusive, from 1, or a span in seconds. Raises Refused, OverLimit."""
        return choose(self.tempo, self.end_s, bars, time)

    def target(self, track: str | None, region: Region, how: How = "take") -> RppTarget:
        """The region of one track, by its name, its number from 1, or its GUID. Raises Refused."""
        found = self.find_track(track)
        return aim(self, found, region, how)

    def find_track(self, wanted: str | None) -> Track:
        """One track by name, number from 1, or GUID. Raises Refused with the list of tracks."""
        tracks = self.project.tracks
        listing = ", ".join(f"{t.number} {t.name}".rstrip() for t in tracks) or "none"
        if wanted is None:
            raise Refused(f"no track is named; the tracks are: {listing}", "use --track NAME")
        named = [t for t in tracks if t.name == wanted] or [t for t in tracks if t.name.lower() == wanted.lower()]
        if len(named) > 1:
            numbers = " or ".join(str(t.number) for t in named)
            raise Refused(f"{len(named)} tracks are named {wanted!r}", f"choose by number: --track {numbers}")
        if named:
            return named[0]
        for track in tracks:
            if wanted == str(track.number) or (
                track.guid and wanted.strip("{}").lower() == track.guid.strip("{}").lower()
            ):
                return track
        raise Refused(f"there is no track {wanted!r}; the tracks are: {listing}", "use --track NAME or its number")


@dataclass(frozen=True, eq=False)
class RppTarget:
    """A region of one track of a project; `Target` says what its parts mean.

    item: the one item whose new take a landing is; None lands as an item of its own.
    first_frame, stop_frame: what a take's file spans. hears: the tracks that are heard.
    """

    session: RppSession
    target_track: Track
    region: Region
    how: How
    item: ItemSound | None
    rate_hz: int
    channels: int
    subtype: str
    format: str
    origin_s: float
    first_frame: int
    stop_frame: int
    start_frame: int
    end_frame: int
    hears: tuple[Track, ...]
    notes: tuple[str, ...]
    _sounds: dict[int, ItemSound] = field(default_factory=dict, repr=False)

    @property
    def track(self) -> str:
        """The track's name, or its number where it has none."""
        return self.target_track.name or f"track {self.target_track.number}"

    @property
    def landing(self) -> str:
        """In words, how takes land."""
        if self.item is not None:
            return "a take on the item"
        where = {"split": "this track", "take": "this track", "lane": "a new lane", "track": "a new track"}[self.how]
        return f"a new item on {where}, what it replaces is split and muted"

    @property
    def lead_frames(self) -> int:
        """Frames before the region that a take covers."""
        return splice.lead_frames(self.start_frame - self.first_frame, self.rate_hz)

    def frame_at(self, at_s: float) -> int:
        """The frame nearest to a project time."""
        return round((at_s - self.origin_s) * self.rate_hz)

    def hearable(self, start_s: float, end_s: float) -> tuple[float, float]:
        """The part of a span around the region in which everything can be rendered."""
        low, high = start_s, end_s
        for track, item in self._playing(start_s, end_s):
            try:
                self._sound(track, item)
            except Refused:
                if item.end_s <= self.region.start_s:
                    low = max(low, item.end_s)
                elif item.start_s >= self.region.end_s:
                    high = min(high, item.start_s)
                else:
                    raise
        return low, high

    def heard(self, start_s: float, end_s: float) -> Audio:
        """What sounds, [2, n]. Raises Refused for what cannot be rendered, and for missing media."""
        return self.heard_frames(self.frame_at(start_s), self.frame_at(end_s))

    def heard_frames(self, start: int, stop: int) -> Audio:
        """As `heard`, by frames."""
        out = np.zeros((2, stop - start), dtype=np.float32)
        for track, item in self._playing(self.origin_s + start / self.rate_hz, self.origin_s + stop / self.rate_hz):
            sounds = self._sound(track, item).heard(self.rate_hz, self.origin_s, start, stop)
            out = sounds if not out.any() else out + sounds  # the first one stays bit-equal, -0.0 too
        return out

    def place(self, new: Audio) -> Placed:
        """Splice a take into the original; see `Target.place`."""
        check_take(new, self)
        low, high = self.start_frame - self.lead_frames, self.end_frame
        before = self._before
        if self.item is None:
            own, held = new[: self.channels] if self.channels == 2 else new.mean(axis=0, keepdims=True), 0
        else:
            own, held = self._own(new, low, high)
        start, end = self.start_frame - self.first_frame, self.end_frame - self.first_frame
        fades = splice.choose(before, own, start, end, self.rate_hz)
        return Placed(before, splice.splice(before, own, start, end, fades), start, end, fades, self.rate_hz, held)

    def land(self, takes: tuple[LandingTake, ...], out: Path | None) -> Landing:
        """Write take files and the new project; see `document.land`."""
        from punchin.session import landing

        return landing.land(self, takes, out)

    def _own(self, new: Audio, low: int, high: int) -> tuple[NDArray[Any], int]:
        """What the item must hold so that the track sounds like `new`: neighbours' crossfades are taken out."""
        assert self.item is not None
        heard = self.heard_frames(low, high)
        alone = self.item.heard(self.rate_hz, self.origin_s, low, high)
        share = np.where(new == heard, alone, new - (heard - alone))
        kept = self._before[:, low - self.first_frame : high - self.first_frame]
        gains = self.item.gains(self.origin_s + np.arange(low, high) / self.rate_hz)
        return self.item.take_back(share, alone, kept, gains)

    @cached_property
    def _before(self) -> NDArray[Any]:
        if self.item is not None:
            return self.item.kept(self.rate_hz, self.origin_s, self.first_frame, self.stop_frame)
        return self.heard_frames(self.first_frame, self.stop_frame)[: self.channels]

    def _playing(self, start_s: float, end_s: float) -> Iterator[tuple[Track, Item]]:
        for track in self.hears:
            for item in track.sounding():
                if item.start_s < end_s and item.end_s > start_s:
                    yield track, item

    def _sound(self, track: Track, item: Item) -> ItemSound:
        key = item.chunk.first
        if key not in self._sounds:
            self._sounds[key] = open_item(self.session.project, track, item)
        return self._sounds[key]


def open_project(path: Path) -> RppSession:
    """A `.rpp` as a session. Raises Refused where it is missing or no project."""
    document = rpp.read(path)
    return RppSession(
        path, hashlib.sha256(document.dump()).hexdigest(), rpp_project.from_document(path.absolute(), document)
    )


def aim(session: RppSession, track: Track, region: Region, how: How) -> RppTarget:
    """The target of a region on a track. Raises Refused for what sounds in the region and cannot be rendered."""
    lead_s = splice.FADES_S[0] + splice.EARLY_S
    own_item = _covering(track, region) if how == "take" else None
    low_s, high_s = (region.start_s - lead_s, region.end_s) if own_item else _cuts(track, region, lead_s)
    sounds = [open_item(session.project, track, i) for i in track.sounding() if i.start_s < high_s and i.end_s > low_s]
    own = next((sound for sound in sounds if sound.item is own_item), None)
    shaping = [own] if own else sounds
    rate_hz = _rate(shaping, session)
    origin_s = own.origin_s if own else _phase(sounds, rate_hz)
    start = round((region.start_s - origin_s) * rate_hz)
    end = round((region.end_s - origin_s) * rate_hz)
    if own:
        first, stop = 0, own.span(rate_hz, origin_s)[1]
        start, end = max(start, 0), min(end, stop)
    else:
        first, stop = round((low_s - origin_s) * rate_hz), round((high_s - origin_s) * rate_hz)
    channels, subtype, kind = _stored(shaping, session)
    notes = [note for sound in sounds for note in sound.notes(region.start_s, region.end_s)]
    if track.muted:
        notes.append(f"track {track.name!r} is muted in the project")
    if track.delay_s:
        notes.append(f"track {track.name!r} plays {track.delay_s:g} s off; the model hears it in place")
    return RppTarget(
        session, track, region, how, own, rate_hz, channels, subtype, kind, origin_s, first, stop, start, end,
        (track,), tuple(notes), {sound.item.chunk.first: sound for sound in sounds},
    )  # fmt: skip


def _covering(track: Track, region: Region) -> Item | None:
    """The one item that a take can go on: it covers the region, all others only crossfade into it."""
    items = [item for item in track.sounding() if item.start_s < region.end_s and item.end_s > region.start_s]
    covering = [i for i in items if i.start_s <= region.start_s + COVER_S and i.end_s >= region.end_s - COVER_S]
    if len(covering) != 1:
        return None
    for item in items:
        inside_s = min(item.end_s, region.end_s) - max(item.start_s, region.start_s)
        at_edge = item.start_s < region.start_s or item.end_s > region.end_s
        if item is not covering[0] and (inside_s > EDGE_S or not at_edge):
            return None
    return covering[0]


def _rate(sounds: Sequence[ItemSound], session: RppSession) -> int:
    rates = {sound.info.rate_hz for sound in sounds}
    return rates.pop() if len(rates) == 1 else session.rate_hz


def _phase(sounds: Sequence[ItemSound], rate_hz: int) -> float:
    """Where frame 0 lies so that the first item's own frames are kept: within one frame after time 0."""
    plain = [sound for sound in sounds if sound.plain_at(rate_hz)]
    return (plain[0].origin_s * rate_hz % 1.0) / rate_hz if plain else 0.0


def _cuts(track: Track, region: Region, lead_s: float) -> tuple[float, float]:
    """Where the originals are split: at the lead's start and the region's end, further out past any fade there."""
    low, high = region.start_s - lead_s, region.end_s
    fades = [
        span
        for item in track.sounding()
        for span in (widest_fade(item, item.fade_in, True), widest_fade(item, item.fade_out, False))
        if span[0] < span[1]
    ]
    for start, end in sorted(fades, reverse=True):
        if start < low < end:
            low = start
    for start, end in sorted(fades):
        if start < high < end:
            high = end
    return max(low, 0.0), high


def _stored(sounds: Sequence[ItemSound], session: RppSession) -> tuple[int, str, str]:
    """Channels, subtype and format of the take files: the sources' own, at least 24 bit."""
    if not sounds:
        return 2, "PCM_24", session.project.record_format or "WAV"
    panned = len(sounds) > 1 and any(sound.take.pan for sound in sounds)
    channels = 2 if panned else max(sound.channels for sound in sounds)
    subtypes = {LOSSLESS.get(sound.info.subtype, sound.info.subtype) for sound in sounds}
    if subtypes == {"PCM_24"}:
        source = sounds[0].info.format
        return channels, "PCM_24", session.project.record_format or (source if source in ("FLAC", "AIFF") else "WAV")
    wide = [name for name in ("DOUBLE", "PCM_32") if subtypes == {name}]
    return channels, wide[0] if wide else "FLOAT", "WAV"
