"""A project's text with takes in it: new lines between the old ones.

A take on the item adds lines and turns `TAKE SEL` into `TAKE`, nothing else. Otherwise the items under the region are
split at its edges, the parts between muted, and one item without fades holds the splice. Nothing is deleted.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from punchin.protocol.errors import Refused
from punchin.session import rpp
from punchin.session.render import find_media
from punchin.session.rpp import Chunk, Document, Edits, quote
from punchin.session.rpp import number as text_of
from punchin.session.rpp_lanes import add_lane, in_playing_lane
from punchin.session.rpp_project import EXT_KEY, Project
from punchin.session.rpp_split import only_touches, split_item
from punchin.session.rpp_target import RppTarget
from punchin.session.target import LandingTake

TAGS: Final = {".wav": "WAVE", ".flac": "FLAC", ".aiff": "WAVE"}


@dataclass(frozen=True)
class Group:
    """Takes that land together in one place, the first one active, with their files in the same order.

    targets: all whose takes these are; several when they are regions of one item. `target` stands for them.
    """

    target: RppTarget
    targets: list[RppTarget]
    takes: list[LandingTake]
    files: list[Path]
    _guids: list[str] = field(default_factory=list, repr=False)

    def made(self) -> Iterator[tuple[LandingTake, Path, str]]:
        """Each take with its file and its GUID."""
        while len(self._guids) < len(self.takes):
            self._guids.append(new_guid())
        return zip(self.takes, self.files, self._guids, strict=True)

    def shown_s(self) -> tuple[float, float]:
        """The project times between which a new item of these takes lies."""
        return self.target.time_at(self.target.shown.first), self.target.time_at(self.target.shown.stop)


def with_takes(project: Project, groups: Sequence[Group], moved: bool) -> bytes:
    """The project's bytes with the takes in it. moved: it will lie elsewhere, so media paths are written in full."""
    document, edits = project.document, Edits()
    _split(document, groups, edits)
    for group in groups:
        if group.target.item is not None:
            _add_takes(group, edits, moved)
        elif group.target.how != "track":
            _add_item(group, edits, moved)
    _add_tracks(document, [group for group in groups if group.target.how == "track"], edits, moved)
    data = document.edited(edits)
    return _pointed_back(rpp.parse(data), project) if moved else data


def _split(document: Document, groups: Sequence[Group], edits: Edits) -> None:
    """Cut and mute what the new items replace; an item under several of them is cut once for all."""
    cutting = [g for g in groups if g.target.item is None and g.target.replaces and g.target.how != "lane"]
    for target in {id(g.target.under): g.target for g in cutting}.values():
        track = target.under
        if track is None:
            continue
        spans = sorted(group.shown_s() for group in cutting if group.target.under is track)
        for item in track.sounding():
            met = [span for span in spans if target.voices.meets(track, item, *span)]
            under = [span for span in met if not only_touches(item, *span, 1 / target.rate_hz)]
            if under:
                split_item(document, item, under, edits)


def _add_takes(group: Group, edits: Edits, moved: bool) -> None:
    """The takes at the item's end, the first of them active."""
    target = group.target
    assert target.item is not None
    document, item, old = target.project.document, target.item.item, target.item.take
    for take in item.takes:
        if take.selected:
            line = document.text(take.first_line)
            edits.replace(take.first_line, re.sub(r"\s+SEL\b", "", line, count=1))
    offset_s = max(item.start_s - target.time_at(target.file.first), 0.0)
    inner = _indent(document.text(item.chunk.first)) + "  "
    for i, (take, file, guid) in enumerate(group.made()):
        lines = [
            "TAKE SEL" if i == 0 else "TAKE",
            f"NAME {quote(take.shown)}",
            f"TAKEVOLPAN {text_of(old.pan)} {text_of(old.gain)} {text_of(old.pan_law)}",
            f"SOFFS {text_of(offset_s)}",
            "PLAYRATE 1 1 0 -1 0 0.0025",
            f"CHANMODE {old.channel_mode}",
            f"GUID {guid}",
            *_source_lines(target, file, moved),
            *_kept_lines(take),
        ]
        edits.insert(item.chunk.last, [inner + line for line in lines])


def _add_item(group: Group, edits: Edits, moved: bool) -> None:
    """One item that holds the takes: instead of what is under it, or in a lane of its own."""
    document, track = group.target.project.document, group.target.under
    assert track is not None
    lines = _item_lines(group, moved)
    if group.target.how == "lane":
        add_lane(document, track, lines, *group.shown_s(), 1 / group.target.rate_hz, edits)
    else:
        indent = _indent(document.text(track.chunk.first)) + "  "
        placed = in_playing_lane(track, lines, *group.shown_s())
        edits.insert(track.chunk.last, [indent + line for line in placed])


def _add_tracks(document: Document, groups: Sequence[Group], edits: Edits, moved: bool) -> None:
    """A new track for each item of takes, behind the track it belongs to and in the same folder, or behind the last."""
    last = list(document.root.chunks("TRACK"))[-1:]
    for under in {id(group.target.under): group.target.under for group in groups}.values():
        chunks = [under.chunk] if under is not None else last
        at = chunks[0].last + 1 if chunks else document.root.last
        closing: list[str] = []
        if under is None:
            _close_folders(document, edits)
        else:
            closing = _taken_over(document, under.chunk, edits)
        own = [group for group in groups if group.target.under is under]
        for group in own:
            more = closing if group is own[-1] else []
            edits.insert(at, ["  " + line for line in _track_lines(group, more, _item_lines(group, moved))])


def _taken_over(document: Document, track: Chunk, edits: Edits) -> list[str]:
    """The line by which a track closes folders, for the new last track in them; [] where it closes none."""
    line = _bus_line(document, track)
    if line is None or rpp.number_at(document.tokens(line), 2) >= 0:
        return []
    text = document.text(line)
    edits.replace(line, f"{_indent(text)}ISBUS 0 0")
    return [text.strip()]


def _close_folders(document: Document, edits: Edits) -> None:
    """Let the last track close all folders. REAPER need not: it writes one closed there, and what is open just ends."""
    before = after = 0  # folders that are open, around the track and after it
    tracks = list(document.root.chunks("TRACK"))
    for track in tracks:
        depth = int(rpp.number_at(document.find(track, "ISBUS") or [], 2))
        before, after = after, max(after + min(depth, 1), 0)
    if after == 0:
        return
    bus, line = f"ISBUS 2 {-before}" if before else "ISBUS 0 0", _bus_line(document, tracks[-1])
    if line is None:
        edits.insert(tracks[-1].first + 1, [f"{_indent(document.text(tracks[-1].first))}  {bus}"])
    else:
        edits.replace(line, f"{_indent(document.text(line))}{bus}")


def _bus_line(document: Document, track: Chunk) -> int | None:
    """The line by which a track opens or closes folders."""
    return next((e for e in track.entries if isinstance(e, int) and document.key(e) == b"ISBUS"), None)


def _item_lines(group: Group, moved: bool) -> list[str]:
    """An item without fades that plays the takes' files at gain 1, the first one active."""
    target, length_frames = group.target, group.target.shown.stop - group.target.shown.first
    lines = [
        "<ITEM",
        f"  POSITION {text_of(group.shown_s()[0])}",
        "  SNAPOFFS 0",
        f"  LENGTH {text_of(length_frames / target.rate_hz)}",
        "  LOOP 0",
        "  ALLTAKES 0",
        "  FADEIN 0 0 0 0 0 0 0",
        "  FADEOUT 0 0 0 0 0 0 0",
        "  MUTE 0 0",
        "  SEL 0",
        *_grouped(group),
        f"  IGUID {new_guid()}",
    ]
    offset = text_of((target.shown.first - target.file.first) / target.rate_hz)
    for i, (take, file, guid) in enumerate(group.made()):
        volume = "VOLPAN 1 0 1 -1" if i == 0 else "TAKEVOLPAN 0 1 -1"
        own = [
            f"NAME {quote(take.shown)}",
            volume,
            f"SOFFS {offset}",
            "PLAYRATE 1 1 0 -1 0 0.0025",
            "CHANMODE 0",
            f"GUID {guid}",
            *_source_lines(target, file, moved),
            *_kept_lines(take),
        ]
        lines += [f"  {line}" for line in ([] if i == 0 else ["TAKE"]) + own]
    return [*lines, ">"]


def _grouped(group: Group) -> list[str]:
    """The line that puts a new item into the group of what it replaces, so that both move; [] where there is none."""
    target, track = group.target, group.target.under
    if track is None or not target.replaces:
        return []
    under = (item for item in track.sounding() if target.voices.meets(track, item, *group.shown_s()))
    found = (target.project.document.find(item.chunk, "GROUP") for item in under)
    return next(([f"  {' '.join(words)}"] for words in found if words), [])


def _track_lines(group: Group, more: Sequence[str], item: Sequence[str]) -> list[str]:
    guid, target = new_guid(), group.target
    name = f"{target.track} {group.takes[0].name}" if target.replaces else target.track
    own = [f"NAME {quote(name)}", *more, f"TRACKID {guid}", *item]
    return [f"<TRACK {guid}", *(f"  {line}" for line in own), ">"]


def _source_lines(target: RppTarget, file: Path, moved: bool) -> list[str]:
    return [f"<SOURCE {TAGS[file.suffix]}", f"  FILE {quote(_written_path(target, file, moved))}", ">"]


def _written_path(target: RppTarget, file: Path, moved: bool) -> str:
    """Relative to the project in its own style of slashes; absolute where the new project lies elsewhere."""
    base = target.project.path.parent
    if moved or not file.is_relative_to(base):
        return str(file.absolute())
    relative = file.relative_to(base).as_posix()
    take = target.item.take if target.item is not None else None
    windows = take is not None and take.source is not None and "\\" in take.source.file
    return relative.replace("/", "\\") if windows else relative


def _kept_lines(take: LandingTake) -> list[str]:
    """What made a take, as the take's own extension data: what P_EXT:punchin gives to scripts.

    REAPER writes long values as base64 in a chunk of their own, lines of 128; it reads that for any length.
    """
    if not take.provenance:
        return []
    text = json.dumps(dict(take.provenance), ensure_ascii=True, sort_keys=True).encode()
    coded = base64.b64encode(text).decode()
    lines = [f"    {coded[i : i + 128]}" for i in range(0, len(coded), 128)]
    return ["<EXT", f"  <BIN {EXT_KEY}", *lines, "  >", ">"]


def _pointed_back(document: Document, project: Project) -> bytes:
    """The media that `project` finds named in full, that of cut parts too: the new project does not lie beside it."""
    edits = Edits()

    def point_back(line: int) -> None:
        _, *words = document.tokens(line)
        try:
            found = find_media(project, words[0] if words else "")
        except Refused:
            return  # what is missing stays as it is written
        if found != Path(words[0]):
            named = " ".join([f"FILE {quote(str(found))}", *words[1:]])
            edits.replace(line, f"{_indent(document.text(line))}{named}")

    def walk(chunk: Chunk) -> None:
        for entry in chunk.entries:
            if isinstance(entry, Chunk):
                walk(entry)
            elif chunk.tag == "SOURCE" and document.key(entry) == b"FILE":
                point_back(entry)

    walk(document.root)
    return document.edited(edits)


def new_guid() -> str:
    """A GUID as REAPER writes it."""
    return "{" + str(uuid.uuid4()).upper() + "}"


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
