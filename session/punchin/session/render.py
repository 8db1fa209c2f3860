"""What an item sounds like: its source's samples, then channel mode, gain, fades and pan, on a target's frames.

Faithful or refused: what REAPER would change in a way that is not computed here (stretch markers, pitch, take
envelopes, take effects) is refused by name. Two things are close but not exact, and noted where they touch a region:
fades other than straight ones, and panned takes (under a layer, tracks too) under a pan law other than 0 dB. Where an
item starts between two frames of the target it is moved to the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from punchin.protocol import limits
from punchin.protocol.errors import Refused
from punchin.session import audiofile, gain, resample
from punchin.session.rpp import readable
from punchin.session.rpp_project import Item, Project, Take, Track

AUDIO_KINDS = frozenset({"WAVE", "AIFF", "FLAC", "MP3", "VORBIS", "OPUS", "WAVPACK"})
PLAIN_LAWS = (1.0, 0.0)  # 0 dB: a pan under it is a balance
BALANCED = "{} is panned under a pan law; it is heard as a balance"
NAME_CHARS = 300  # of a name in an error
RATE_STEPS = 1_000_000  # a playrate as a ratio of integers, finer than REAPER shows it
_GLUE = "glue it in REAPER (Item: Glue items), save, and try again"
_EDGE = 1e-4  # of a frame: what rounding may do to a time that is meant to be on a frame


@dataclass(frozen=True, eq=False)
class ItemSound:
    """An item's active take with its media open to reading. All times are project time.

    first_frame: the source frame at `origin_s`, the last at or before the item's start.
    """

    item: Item
    take: Take
    path: Path
    info: audiofile.AudioInfo
    pan_law: float

    @property
    def channels(self) -> int:
        """Channels of the source."""
        return self.info.channels

    @property
    def played_hz(self) -> float:
        """Source frames a second of project time."""
        return self.info.rate_hz * self.take.rate

    @cached_property
    def first_frame(self) -> int:
        """The source frame (of the section, if it is one) that plays at `origin_s`."""
        return floor(self.take.offset_s * self.info.rate_hz + _EDGE)

    @cached_property
    def origin_s(self) -> float:
        """Project time of `first_frame`: the item's start, less the part of a frame that its offset is beyond it."""
        return self.item.start_s - max(self.take.offset_s - self.first_frame / self.info.rate_hz, 0.0) / self.take.rate

    def plain_at(self, rate_hz: int) -> bool:
        """Whether the source's own frames are played at this rate, none computed."""
        return self.info.rate_hz == rate_hz and self.take.rate == 1.0

    def span(self, rate_hz: int, origin_s: float) -> tuple[int, int]:
        """The target frames [first, stop) in which the item plays."""
        first = ceil((self.item.start_s - origin_s) * rate_hz - _EDGE)
        return first, max(ceil((self.item.end_s - origin_s) * rate_hz - _EDGE), first)

    def whole(self, rate_hz: int) -> int:
        """Frames from `origin_s` to the item's end, or to its source's where only a part of a frame lies between."""
        stop, source_end = self.span(rate_hz, self.origin_s)[1], self._length - self.first_frame
        return source_end if self.plain_at(rate_hz) and source_end == stop - 1 else stop

    def handles(self, rate_hz: int, before: int, after: int) -> tuple[int, int]:
        """Frames of the source's own audio before and after the item, at most so many: its edges may be dragged there.

        None where frames are computed (a playrate), and none from a loop's other end, unless the item loops already.
        """
        if not self.plain_at(rate_hz) or self._length == 0:
            return 0, 0
        stop = self.first_frame + self.whole(rate_hz)
        left = self._length - stop
        return max(min(before, self.first_frame), 0), after if self.item.loops and left < 0 else max(
            min(after, left), 0
        )

    def kept(self, rate_hz: int, origin_s: float, start: int, stop: int) -> NDArray[Any]:
        """Source samples [channels, stop - start] on target frames, before channel mode and gain.

        Nothing is cut at the item's edges; where the source has nothing there is silence.
        """
        shift = round((origin_s - self.origin_s) * rate_hz)
        if self.plain_at(rate_hz):
            return self._source(self.first_frame + start + shift, self.first_frame + stop + shift)
        whole = self._resampled(rate_hz)
        out = np.zeros((whole.shape[0], stop - start), dtype=whole.dtype)
        low, high = max(start + shift, 0), min(stop + shift, whole.shape[1])
        if low < high:
            out[:, low - start - shift : high - start - shift] = whole[:, low:high]
        return out

    def heard(self, rate_hz: int, origin_s: float, start: int, stop: int) -> NDArray[np.float32]:
        """What the item adds to its track, [2, stop - start]: channel mode, gain, fades and pan applied."""
        first, end = self.span(rate_hz, origin_s)
        out = np.zeros((2, stop - start), dtype=np.float32)
        low, high = max(first, start), min(end, stop)
        if low < high:
            raw = self.kept(rate_hz, origin_s, low, high)
            out[:, low - start : high - start] = self.played(raw, rate_hz, origin_s, low)
        return out

    def played(self, raw: NDArray[Any], rate_hz: int, origin_s: float, first: int) -> NDArray[Any]:
        """Source samples [channels, n] on target frames from `first` on, as they sound, [2, n]."""
        sounding, stop = self.spread(raw), first + raw.shape[1]
        if self._at_unity(origin_s + first / rate_hz, origin_s + stop / rate_hz):
            return sounding
        return sounding * self.gains(origin_s + np.arange(first, stop) / rate_hz)

    def _at_unity(self, start_s: float, end_s: float) -> bool:
        """Whether gain, fades and pan leave a span as it is: the plain case, and a third of its time saved."""
        faded = start_s < self.item.start_s + self.item.fade_in.length_s or (
            end_s > self.item.end_s - self.item.fade_out.length_s
        )
        return self.item.gain * self.take.gain == 1.0 and self.take.pan == 0.0 and not faded

    def spread(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Source channels as the two that sound, by the take's channel mode."""
        left, right = raw[0], raw[-1]
        match self.take.channel_mode:
            case 1:
                left, right = right, left
            case 2:
                left = right = (left + right) / 2
            case 3:
                right = left
            case 4:
                left = right
        return np.stack([left, right])

    def gains(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gain x fades x pan of the two channels at project times, [2, n]; negative where the polarity is flipped."""
        level = np.full(times_s.shape, self.item.gain * self.take.gain)
        for fade, into in (
            (self.item.fade_in, times_s - self.item.start_s),
            (self.item.fade_out, self.item.end_s - times_s),
        ):
            if fade.length_s > 0:
                level *= fade.gain(np.clip(into / fade.length_s, 0.0, 1.0))
        pan = np.array([[min(1.0, 1.0 - self.take.pan)], [min(1.0, 1.0 + self.take.pan)]])
        return pan * level

    def take_back(
        self, new: NDArray[np.float32], heard: NDArray[np.float32], kept: NDArray[Any], gains: NDArray[np.float64]
    ) -> tuple[NDArray[Any], int]:
        """Source channels that make this item sound like `new`, and the frames in which its gain is too low for that.

        new, heard: [2, n], this item's share. kept: [channels, n]. The inverse of `spread` and `gains`: a channel that
        does not sound keeps kept's samples, as does a frame that came back as it went.
        """
        mode = self.take.channel_mode
        if len(kept) == 1 or mode == 0:
            return gain.ungain(new, heard, kept, gains)
        if mode == 1:
            swapped, held = gain.ungain(new[::-1], heard[::-1], kept, gains[::-1])
            return swapped, held
        sounding = (self.spread(kept)[:1]).astype(np.float32)
        one, held = gain.ungain(new, heard, sounding, gains)
        return np.where(one == sounding, kept, np.repeat(one, 2, axis=0)), held

    def audible(self, sound: NDArray[np.float32], rate_hz: int, origin_s: float, first: int) -> NDArray[np.float32]:
        """What is heard of a sound [2, n], on target frames from `first` on, when this item's media holds it."""
        gains = self.gains(origin_s + np.arange(first, first + sound.shape[1]) / rate_hz)
        nothing = np.zeros_like(sound)
        own, _ = self.take_back(sound, nothing, nothing[: self.channels], gains)
        return (self.spread(own) * gains).astype(np.float32)

    def notes(self, start_s: float, end_s: float) -> list[str]:
        """What is approximated between two project times, in words, with {} where the item's name goes."""
        out = []
        for name, fade, low, high in (
            ("fade-in", self.item.fade_in, self.item.start_s, self.item.start_s + self.item.fade_in.length_s),
            ("fade-out", self.item.fade_out, self.item.end_s - self.item.fade_out.length_s, self.item.end_s),
        ):
            if low < end_s and high > start_s and high > low and not fade.straight:
                out.append(f"the {name} of {{}} has shape {fade.shape}; its curve is approximated")
        if self.take.pan != 0 and self.pan_law not in PLAIN_LAWS:
            out.append(BALANCED)
        if self.take.rate != 1.0:
            out.append(f"{{}} plays at rate {self.take.rate:g}; it is resampled")
        return out

    @property
    def _length(self) -> int:
        """Source frames before it ends or loops."""
        if self.take.source is None or self.take.source.section is None:
            return self.info.frames
        start, length = (round(value * self.info.rate_hz) for value in self.take.source.section)
        return max(min(length, self.info.frames - start), 0)

    @property
    def _base(self) -> int:
        """The file's frame that is frame 0 of what the take calls its source."""
        section = self.take.source.section if self.take.source else None
        return round(section[0] * self.info.rate_hz) if section else 0

    def _source(self, start: int, stop: int) -> NDArray[Any]:
        length = self._length
        if 0 <= start <= stop <= length:
            return audiofile.read_exact(self.path, self._base + start, stop - start)[0]
        frames = np.arange(start, stop)
        if self.item.loops and length > 0:
            return self._whole[:, frames % length]
        inside = (frames >= 0) & (frames < length)
        out = np.zeros((self.channels, stop - start), dtype=np.float32)
        if inside.any():
            first, last = int(frames[inside][0]), int(frames[inside][-1]) + 1
            piece = audiofile.read_exact(self.path, self._base + first, last - first)[0]
            out = out.astype(piece.dtype)
            out[:, inside] = piece
        return out

    @cached_property
    def _whole(self) -> NDArray[Any]:
        return audiofile.read_exact(self.path, self._base, self._length)[0]

    def _check_length(self, span_s: float) -> None:
        """Raise OverLimit where an item is too long to be resampled: that is done whole, in memory."""
        limit = limits.RESAMPLED_ITEM
        limit.check(span_s, f"item {self.item.number} is resampled: glue it in REAPER (Item: Glue items)")
        source_s = span_s * self.take.rate
        limit.check(source_s, f"item {self.item.number} plays at rate {self.take.rate:g}: glue it (Item: Glue items)")

    def _resampled(self, rate_hz: int) -> NDArray[np.float32]:
        cache: dict[int, NDArray[np.float32]] = self.__dict__.setdefault("_at_rate", {})
        if rate_hz not in cache:
            span_s = self.item.end_s - self.origin_s
            self._check_length(span_s)
            source = self._source(self.first_frame, self.first_frame + ceil(span_s * self.played_hz) + 1)
            scale = 1 if self.take.rate == 1.0 else RATE_STEPS
            frames = ceil(span_s * rate_hz) + 1
            from_hz = round(self.played_hz * scale)
            cache[rate_hz] = resample.resample(source.astype(np.float32), from_hz, rate_hz * scale, frames)
        return cache[rate_hz]


def open_item(project: Project, track: Track, item: Item) -> ItemSound:
    """An item's sound. Raises Refused, with the item's name and what to do, for what cannot be rendered faithfully."""
    name = f"item {item.number} of track {track.name!r} (at {item.start_s:.3f} s)"
    take = next(iter(item.playing), None)
    if take is None or take.source is None:
        raise Refused(f"{name} has no media")
    _check_kind(take, name)
    _check_playing(item, take, name)
    path = find_media(project, take.source.file)
    info = audiofile.info(path)
    if info.channels > limits.CHANNELS.high:
        text = f"{name} has {info.channels} channels, allowed is 1 to {limits.CHANNELS.high}"
        raise Refused(text, "split its channels (Item: Explode multichannel audio), save, and try again", "over_limit")
    limits.SESSION_RATE.check(info.rate_hz, f"resample {path.name} first")
    return ItemSound(item, take, path, info, take.pan_law if take.pan_law >= 0 else project.pan_law)


def _check_kind(take: Take, name: str) -> None:
    source = take.source
    assert source is not None
    if source.kind in ("MIDI", "MIDIPOOL"):
        raise Refused(f"{name} is MIDI", "render it to audio (Track: Render to stereo stem track), save, and try again")
    if source.kind == "VIDEO":
        raise Refused(f"{name} is video", _GLUE)
    if source.kind not in AUDIO_KINDS:
        raise Refused(f"{name} plays {source.kind or 'no source'}, which is no audio file", _GLUE)
    if source.section is not None and source.section[0] < 0:
        raise Refused(f"{name} plays a section that starts {-source.section[0]:g} s before its media does", _GLUE)
    if source.offline:
        raise Refused(f"{name} has offline media", "set the media online in REAPER, save, and try again")
    if source.reversed:
        raise Refused(f"{name} plays reversed", _GLUE)


def _check_playing(item: Item, take: Take, name: str) -> None:
    if len(item.playing) > 1:
        raise Refused(f"{name} plays all its {len(item.playing)} takes at once", _GLUE)
    if take.stretched:
        raise Refused(f"{name} has stretch markers", _GLUE)
    if take.pitch != 0:
        raise Refused(f"{name} is pitched by {take.pitch:g} semitones", _GLUE)
    if not 0.01 <= take.rate <= 100:
        raise Refused(f"{name} plays at rate {take.rate:g}, allowed is 0.01 to 100", _GLUE)
    if take.rate != 1.0 and take.preserves_pitch:
        raise Refused(f"{name} plays at rate {take.rate:g} with its pitch preserved", _GLUE)
    if take.envelopes:
        raise Refused(f"{name} has a take envelope ({', '.join(take.envelopes)})", _GLUE)
    if take.effects:
        raise Refused(
            f"{name} has take effects", "apply them (Item: Apply track/take FX to items), save, and try again"
        )
    if take.channel_mode not in range(5):
        raise Refused(f"{name} plays with channel mode {take.channel_mode}", "choose normal, mono or reverse stereo")


def media_places(folder: Path, record_path: str, file: str) -> list[Path]:
    """Where a FILE line's media may lie: as written, from the project's `folder` on, or in its recording folder.

    Windows paths are read on any system.
    """
    forms = [file] if "\\" not in file else [file, file.replace("\\", "/")]
    places = [folder / form for form in forms]
    if record_path:
        places += [folder / record_path.replace("\\", "/") / form for form in forms]
    if PureWindowsPath(file).drive:  # another machine's folder: the file may have come along
        places += [folder / part / PureWindowsPath(file).name for part in ("", "Media", "Audio")]
    return places


def find_media(project: Project, file: str) -> Path:
    """The media file behind a FILE line, at the first of its `media_places`. Raises Refused with where it should be."""
    places = media_places(project.path.parent, project.record_path, file)
    for place in places:
        try:
            if place.is_file():
                return place
        except OSError:  # a name longer than the system's names
            continue
    text = f"media file is missing: {_short(readable(str(places[0])))}"
    raise Refused(text, "put the file back, or relink it in REAPER and save")


def _short(text: str) -> str:
    return text if len(text) <= NAME_CHARS else f"{text[:NAME_CHARS]}..."


def fade_spans(item: Item) -> list[tuple[float, float]]:
    """The project times between which the item's fades move."""
    spans = (
        (item.start_s, item.start_s + item.fade_in.length_s),
        (item.end_s - item.fade_out.length_s, item.end_s),
    )
    return [span for span in spans if span[0] < span[1]]
