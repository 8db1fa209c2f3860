"""A REAPER project's tracks, items and takes as values, read from its lines. Nothing here opens audio.

Sources: the state chunk definitions of ReaTeam's documentation, checked against real projects. Field names follow
REAPER's own (`SOFFS`, `VOLPAN`), in units.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from punchin.protocol.errors import Refused
from punchin.session import rpp
from punchin.session.fades import FadeShape
from punchin.session.rpp import Chunk, Document, number_at
from punchin.session.rpp_tempo import read_tempo
from punchin.session.tempo import TempoMap

MAX_LANES = 256
SHORTEST_FADE_S = 1e-6  # less than a frame at any rate is none
EXT_KEY = "punchin"  # P_EXT:punchin of a take
TAKE_ENVELOPES = {"VOLENV": "volume", "PANENV": "pan", "MUTEENV": "mute", "PITCHENV": "pitch"}


@dataclass(frozen=True, slots=True)
class Source:
    """What a take plays. kind: REAPER's word (`WAVE`, `MIDI`, ...), without the mark of offline media.

    file: as it stands in the project, "" where the kind has none. A section plays [start_s, start_s + length_s).
    """

    kind: str
    file: str = ""
    offline: bool = False
    section: tuple[float, float] | None = None
    reversed: bool = False


@dataclass(frozen=True, slots=True)
class Take:
    """One take of an item. gain keeps its sign (REAPER's polarity). pan: -1 left to 1 right.

    envelopes: those that are active. moves: whether any, active or not, has more than one point.
    """

    name: str
    guid: str
    gain: float
    pan: float
    pan_law: float
    offset_s: float
    rate: float
    preserves_pitch: bool
    pitch: float
    channel_mode: int
    stretched: bool
    envelopes: tuple[str, ...]
    moves: bool
    effects: bool
    source: Source | None
    made_by: str  # what Punchin keeps with its takes (P_EXT:punchin), JSON; "" for all others
    first_line: int  # its TAKE line; for the first take, which may be empty, the item's own
    selected: bool


@dataclass(frozen=True, slots=True)
class Item:
    """One item on a track. `active` indexes takes; gain is the item's own, before the take's.

    muted: whether it is silent in the end, by its own mute or another item's solo; its own solo outdoes its mute.
    """

    chunk: Chunk
    number: int  # from 1, on its track
    guid: str
    start_s: float
    length_s: float
    loops: bool
    muted: bool
    locked: bool
    plays_all_takes: bool
    gain: float
    fade_in: FadeShape
    fade_out: FadeShape
    lane: int
    takes: tuple[Take, ...]
    active: int

    @property
    def end_s(self) -> float:
        """Project time where the item ends."""
        return self.start_s + self.length_s

    @property
    def take(self) -> Take:
        """The active take; it may be empty."""
        return self.takes[self.active]

    @property
    def playing(self) -> tuple[Take, ...]:
        """The takes that it plays: the active one, or all, without those that are empty."""
        chosen = self.takes if self.plays_all_takes else (self.take,)
        return tuple(take for take in chosen if take.source is not None and take.source.kind != "EMPTY")


@dataclass(frozen=True, slots=True)
class Track:
    """One track. gain and pan are the fader's; gain is negative where the track's polarity is flipped.

    pan_law: REAPER's number for the fader's, 1 is 0 dB; under 0 where the project's holds.
    lanes: how many fixed lanes it has, 0 for none; playing_lanes: the numbers of those that play, None where it has
    none. masks: where several play, an item silences those in lanes before its own.
    free: items lie at heights of their own (free item positioning).
    """

    chunk: Chunk
    number: int  # from 1
    name: str
    guid: str
    muted: bool
    gain: float
    pan: float
    pan_law: float
    delay_s: float
    free: bool
    lanes: int
    masks: bool
    playing_lanes: frozenset[int] | None
    items: tuple[Item, ...]

    def sounding(self) -> Iterator[Item]:
        """The items that play: not muted, in a playing lane, with a length and a take that is not empty."""
        for item in self.items:
            plays = item.length_s > 0 and (self.playing_lanes is None or item.lane in self.playing_lanes)
            if plays and not item.muted and item.playing:
                yield item


@dataclass(frozen=True, slots=True)
class Project:
    """A REAPER project as values. rate_hz is None where the project leaves it to the audio device."""

    path: Path
    document: Document
    tempo: TempoMap
    rate_hz: int | None
    pan_law: float
    record_path: str
    record_format: str  # the four letters of RECORD_CFG as libsndfile's format, "" if none or another
    tracks: tuple[Track, ...]
    notes: tuple[str, ...] = ()  # what of it is approximated

    @property
    def end_s(self) -> float:
        """Where the last item ends; 0 without items."""
        return max((item.end_s for track in self.tracks for item in track.items), default=0.0)


def from_document(path: Path, document: Document, approximate: bool = False) -> Project:
    """The values of a document that was read from `path`. Raises Refused where it says something that cannot be.

    approximate: take curved tempo points as straight ramps, and note it, instead of refusing them.
    """
    root = document.root
    rate = document.find(root, "SAMPLERATE") or ["SAMPLERATE", "0", "0"]
    record = document.find(root, "RECORD_PATH") or ["RECORD_PATH", ""]
    tempo, curved = read_tempo(document)
    if curved and not approximate:
        raise Refused(curved[0], "give it the linear or the square shape in REAPER and save, or use --approximate")
    return Project(
        path=path,
        document=document,
        tempo=tempo,
        notes=tuple(f"{where}; it is taken as a straight ramp" for where in curved),
        rate_hz=int(number_at(rate, 1)) if number_at(rate, 2) else None,
        pan_law=number_at(document.find(root, "PANLAW") or [], 1, 1.0),
        record_path=record[1] if len(record) > 1 else "",
        record_format=_record_format(document),
        tracks=_tracks(document),
    )


def _tracks(document: Document) -> tuple[Track, ...]:
    """All tracks in order; a muted folder mutes what is in it."""
    tracks: list[Track] = []
    folders: list[bool] = []  # of each that is open, whether it is muted
    for number, chunk in enumerate(document.root.chunks("TRACK"), start=1):
        track = _track(document, chunk, number)
        tracks.append(replace(track, muted=track.muted or any(folders)))
        depth = int(number_at(document.find(chunk, "ISBUS") or [], 2))
        if depth > 0:
            folders.append(tracks[-1].muted)
        elif depth < 0:
            del folders[depth:]
    return tuple(tracks)


def _track(document: Document, chunk: Chunk, index: int) -> Track:
    words = document.tokens(chunk.first)
    guid = words[1] if len(words) > 1 else ""
    mode = int(number_at(document.find(chunk, "FREEMODE") or [], 1))
    lanes = max(int(number_at(document.find(chunk, "ITEMLANES") or [], 1)), 1) if mode == 2 else 0
    fixed = document.find(chunk, "FIXEDLANES") or []
    delay = document.find(chunk, "PLAYOFFS") or []
    fader = document.find(chunk, "VOLPAN") or []
    name = document.find(chunk, "NAME") or ["NAME", ""]
    return Track(
        chunk=chunk,
        number=index,
        name=rpp.readable(name[1]) if len(name) > 1 else "",
        guid=_word({"TRACKID": document.find(chunk, "TRACKID") or []}, "TRACKID") or guid,
        muted=number_at(document.find(chunk, "MUTESOLO") or [], 1) != 0,
        gain=number_at(fader, 1, 1.0) * (-1.0 if number_at(document.find(chunk, "IPHASE") or [], 1) else 1.0),
        pan=number_at(fader, 2),
        pan_law=number_at(fader, 3, -1.0),
        free=mode == 1,
        delay_s=number_at(delay, 1) if not int(number_at(delay, 2)) & 1 else 0.0,
        lanes=min(lanes, MAX_LANES),
        masks=mode == 2 and number_at(fixed, 4) != 0,
        playing_lanes=_playing(document.find(chunk, "LANESOLO")) if mode == 2 else None,
        items=tuple(_item(document, item, i) for i, item in enumerate(chunk.chunks("ITEM"), start=1)),
    )


def _playing(words: list[str] | None) -> frozenset[int]:
    """Numbers of the lanes that play: LANESOLO holds 32 bits a word; without that line all do."""
    if words is None:
        return frozenset(range(MAX_LANES))
    masks = [int(number_at(words, i)) for i in range(1, min(len(words), MAX_LANES // 32 + 1))]
    return frozenset(32 * i + bit for i, mask in enumerate(masks) for bit in range(32) if mask >> bit & 1)


def _item(document: Document, chunk: Chunk, index: int) -> Item:
    own: dict[str, list[str]] = {}
    groups: list[tuple[int, list[int | Chunk]]] = [(chunk.first, [])]
    for entry in chunk.entries:
        if isinstance(entry, int):
            key = document.key(entry)
            if key == b"TAKE":
                groups.append((entry, []))
                continue
            if len(groups) == 1:
                words = document.tokens(entry) or [""]
                own.setdefault(words[0], words)
        groups[-1][1].append(entry)
    volume, mute = own.get("VOLPAN", []), own.get("MUTE", [])
    takes = [_take(document, line, entries, first=i == 0, own=own) for i, (line, entries) in enumerate(groups)]
    active = next((i for i, take in enumerate(takes) if take.selected), 0)
    solo = number_at(mute, 2)  # -1: its own, 1: another item's
    lane = own.get("YPOS", [])
    height = number_at(lane, 2)
    return Item(
        chunk=chunk,
        number=index,
        guid=_word(own, "IGUID"),
        start_s=number_at(own.get("POSITION", []), 1),
        length_s=number_at(own.get("LENGTH", []), 1),
        loops=number_at(own.get("LOOP", []), 1) != 0,
        muted=solo > 0 or (solo == 0 and number_at(mute, 1) != 0),
        locked=bool(int(number_at(own.get("LOCK", []), 1)) & 1),
        plays_all_takes=number_at(own.get("ALLTAKES", []), 1) != 0,
        gain=number_at(volume, 1, 1.0),
        fade_in=_fade(own.get("FADEIN", []), 1),
        fade_out=_fade(own.get("FADEOUT", []), -1),
        lane=round(number_at(lane, 1) / height) if height else 0,
        takes=tuple(takes),
        active=active,
    )


def _take(document: Document, line: int, entries: list[int | Chunk], *, first: bool, own: dict[str, list[str]]) -> Take:
    lines: dict[str, list[str]] = {}
    if first:
        lines = own
    else:
        for entry in entries:
            if isinstance(entry, int):
                words = document.tokens(entry) or [""]
                lines.setdefault(words[0], words)
    head = [] if first else document.tokens(line)
    gain = lines.get("VOLPAN", [])[1:] if first else lines.get("TAKEVOLPAN", [])
    rate = lines.get("PLAYRATE", [])
    chunks = [entry for entry in entries if isinstance(entry, Chunk)]
    sources = [chunk for chunk in chunks if chunk.tag == "SOURCE"]
    return Take(
        name=rpp.readable(_word(lines, "NAME")),
        guid=_word(lines, "GUID"),
        pan=number_at(gain, 1),
        gain=number_at(gain, 2, 1.0),
        pan_law=number_at(gain, 3, -1.0),
        offset_s=number_at(lines.get("SOFFS", []), 1),
        rate=number_at(rate, 1, 1.0),
        preserves_pitch=number_at(rate, 2) != 0,
        pitch=number_at(rate, 3),
        channel_mode=int(number_at(lines.get("CHANMODE", []), 1)),
        stretched="SM" in lines,
        envelopes=tuple(sorted(_active_envelopes(document, chunks))),
        moves=any(_moves(document, chunk) for chunk in chunks),
        effects=any(_has_effects(document, chunk) for chunk in chunks if chunk.tag == "TAKEFX"),
        source=_source(document, sources[0]) if sources else None,
        made_by=next((_kept(document, chunk) for chunk in chunks if chunk.tag == "EXT"), ""),
        first_line=line,
        selected="SEL" in head[1:],
    )


def _source(document: Document, chunk: Chunk) -> Source:
    words = document.tokens(chunk.first)
    kind = words[1].upper() if len(words) > 1 else ""
    offline, kind = kind.startswith("_OFFLINE_"), kind.removeprefix("_OFFLINE_")
    inner = next(chunk.chunks("SOURCE"), None)
    if kind == "SECTION" and inner is not None:
        played = _source(document, inner)
        mode = int(number_at(document.find(chunk, "MODE") or [], 1))
        start = number_at(document.find(chunk, "STARTPOS") or [], 1)
        length = number_at(document.find(chunk, "LENGTH") or [], 1)
        return Source(played.kind, played.file, offline or played.offline, (start, length), mode >= 2)
    file = document.find(chunk, "FILE") or []
    return Source(kind, file[1] if len(file) > 1 else "", offline)


def _kept(document: Document, chunk: Chunk) -> str:
    """The value of `punchin` in a take's extension data: a line, or base64 in <BIN where it is long."""
    for entry in chunk.entries:
        if isinstance(entry, int):
            words = document.tokens(entry)
            if words[:1] == [EXT_KEY] and len(words) > 1:
                return words[1]
        elif entry.tag == "BIN" and document.tokens(entry.first)[1:2] == [EXT_KEY]:
            text = "".join(document.text(line).strip() for line in entry.entries if isinstance(line, int))
            try:
                return base64.b64decode(text).decode("utf-8", "replace").rstrip("\0")
            except binascii.Error:
                return ""
    return ""


def _active_envelopes(document: Document, chunks: list[Chunk]) -> Iterator[str]:
    for chunk in chunks:
        name = TAKE_ENVELOPES.get(chunk.tag.rstrip("23"))
        if name and number_at(document.find(chunk, "ACT") or [], 1, 1.0):
            yield name


def _moves(document: Document, chunk: Chunk) -> bool:
    """Whether a take's chunk is an envelope with more than one point, or effects that have such ones."""
    if chunk.tag == "TAKEFX":
        return any(_moves(document, inner) for inner in chunk.chunks("PARMENV"))
    if chunk.tag.rstrip("23") not in (*TAKE_ENVELOPES, "PARMENV"):
        return False
    return sum(isinstance(entry, int) and document.key(entry) == b"PT" for entry in chunk.entries) > 1


def _has_effects(document: Document, chunk: Chunk) -> bool:
    """Whether any effect in the chain is not bypassed. A BYPASS line stands before each effect."""
    bypassed = False
    for entry in chunk.entries:
        if isinstance(entry, int):
            if document.key(entry) == b"BYPASS":
                bypassed = number_at(document.tokens(entry), 1) != 0
        elif not bypassed:
            return True
    return False


def _fade(words: list[str], sign: int) -> FadeShape:
    """FADEIN shape length automatic_length shape state bend ...: an automatic crossfade's length goes first.

    sign: -1 for a fade-out, whose bend REAPER counts the other way round.
    """
    manual, automatic = number_at(words, 2), number_at(words, 3)
    length = automatic if automatic > 0 else manual
    return FadeShape(length if length > SHORTEST_FADE_S else 0.0, int(number_at(words, 1)), sign * number_at(words, 6))


def _record_format(document: Document) -> str:
    """The format that the project records in: RECORD_CFG is base64 of four reversed letters and settings."""
    for chunk in document.root.chunks("RECORD_CFG"):
        for entry in chunk.entries:
            if isinstance(entry, int):
                try:
                    letters = base64.b64decode(document.text(entry).strip())[:4]
                except (binascii.Error, ValueError):
                    return ""
                return {b"evaw": "WAV", b"calf": "FLAC", b"ffia": "AIFF"}.get(letters, "")
    return ""


def _word(lines: dict[str, list[str]], key: str) -> str:
    """The first field of a line, "" without it."""
    words = lines.get(key, [])
    return words[1] if len(words) > 1 else ""
