"""Takes into a REAPER project: new lines between the old ones, and files beside the old ones.

A take on the item adds lines and turns `TAKE SEL` into `TAKE`, nothing else. Otherwise the items under the region are
split at its edges, the parts between muted, and one item without fades holds the splice. Nothing is deleted.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from punchin.protocol.errors import Refused
from punchin.session import audiofile
from punchin.session.rpp import Chunk, Edits, quote
from punchin.session.rpp import number as text_of
from punchin.session.rpp_lanes import add_lane
from punchin.session.rpp_split import split_item
from punchin.session.takefiles import STORE, note_file
from punchin.session.target import Landing, LandingTake, file_stem, free_name

if TYPE_CHECKING:
    from punchin.session.rpp_session import RppTarget

TAGS: Final = {".wav": "WAVE", ".flac": "FLAC", ".aiff": "WAVE"}


def land(target: RppTarget, takes: Sequence[LandingTake], out: Path | None) -> Landing:
    """Write the take files, then the project that names them. On an error the files written so far go again."""
    session_path = target.project.path
    output = _output(session_path, out)
    folder = media_folder(target)
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for take in takes:
            written.append(_write_take(target, take, folder))
            _write_note(written[-1], take)
        text = _document(target, takes, written, moved=output.absolute().parent != session_path.parent)
        audiofile.write_bytes(output, text)
    except BaseException as error:
        for file in written:
            file.unlink(missing_ok=True)
            note_file(file).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise audiofile.disk_error(folder, error) from error
        raise
    return Landing(output, tuple(written))


def media_folder(target: RppTarget) -> Path:
    """Where take files go: the project's recording folder, else where the item's media lies if that is within the
    project's folder, else `Media` beside the project.
    """
    base = target.project.path.parent
    recorded = target.project.record_path.replace("\\", "/")
    if recorded and not recorded.startswith("/") and ":" not in recorded:
        return base / recorded
    if recorded.startswith("/") and Path(recorded).is_dir():
        return Path(recorded)
    if target.item is not None and target.item.path.resolve().is_relative_to(base.resolve()):
        return target.item.path.parent
    return base / "Media"


def _output(path: Path, out: Path | None) -> Path:
    if out is None:
        return free_name(path.with_name(f"{path.stem}-punchin{path.suffix}"))
    if out.suffix.lower() != path.suffix.lower():
        raise Refused(f"-o {out.name} is no {path.suffix} file", f"name it {out.stem}{path.suffix}")
    if out.exists() and out.samefile(path):
        raise Refused(f"-o {out} is the session itself, which is never written", "choose another name")
    if not out.absolute().parent.is_dir():
        raise Refused(f"the folder of -o {out} does not exist", f"mkdir -p {out.parent}")
    return out


def _write_take(target: RppTarget, take: LandingTake, folder: Path) -> Path:
    """A new file for one take; sums over full scale, which 24 bits would clip, are kept as float."""
    kind, subtype = target.form.format, target.subtype
    if subtype == "PCM_24" and float(np.abs(take.placed.after).max(initial=0.0)) > 1.0:
        kind, subtype = "WAV", "FLOAT"
    stem = file_stem(f"{target.track}-{take.name}")
    path = folder / f"{stem}{audiofile.EXTENSIONS[kind]}"
    while True:
        path = free_name(path)
        try:
            path.open("xb").close()  # holds the name: two landings at once do not meet
            break
        except FileExistsError:
            continue
    try:
        return audiofile.write(path, take.placed.after, target.rate_hz, subtype)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _write_note(file: Path, take: LandingTake) -> None:
    if take.provenance:
        text = json.dumps(dict(take.provenance), indent=2, ensure_ascii=False, sort_keys=True)
        audiofile.write_bytes(note_file(file), text.encode() + b"\n")


def _document(target: RppTarget, takes: Sequence[LandingTake], files: Sequence[Path], moved: bool) -> bytes:
    document, edits = target.project.document, Edits()
    guids = [new_guid() for _ in takes]
    if target.item is not None:
        _add_takes(target, takes, files, guids, edits, moved)
    else:
        _add_item(target, takes, files, guids, edits, moved)
    _add_provenance(target, takes, guids, edits)
    if moved:
        _point_back(target, edits)
    return document.edited(edits)


def _add_takes(
    target: RppTarget,
    takes: Sequence[LandingTake],
    files: Sequence[Path],
    guids: Sequence[str],
    edits: Edits,
    moved: bool,
) -> None:
    """The takes at the item's end, the first of them active."""
    assert target.item is not None
    document, item, old = target.project.document, target.item.item, target.item.take
    for take in item.takes:
        if take.selected:
            line = document.text(take.first_line)
            edits.replace(take.first_line, re.sub(r"\s+SEL\b", "", line, count=1))
    offset_s = max(item.start_s - target.origin_s, 0.0)
    inner = _indent(document.text(item.chunk.first)) + "  "
    for i, (take, file, guid) in enumerate(zip(takes, files, guids, strict=True)):
        lines = [
            "TAKE SEL" if i == 0 else "TAKE",
            f"NAME {quote(take.name)}",
            f"TAKEVOLPAN {text_of(old.pan)} {text_of(old.gain)} {text_of(old.pan_law)}",
            f"SOFFS {text_of(offset_s)}",
            "PLAYRATE 1 1 0 -1 0 0.0025",
            f"CHANMODE {old.channel_mode}",
            f"GUID {guid}",
            *_source_lines(target, file, moved),
        ]
        edits.insert(item.chunk.last, [inner + line for line in lines])


def _add_item(
    target: RppTarget,
    takes: Sequence[LandingTake],
    files: Sequence[Path],
    guids: Sequence[str],
    edits: Edits,
    moved: bool,
) -> None:
    """One item that holds the takes: instead of what is under it, in a lane of its own, or on a new track."""
    document, track = target.project.document, target.under
    start_s, end_s = target.time_at(target.shown.first), target.time_at(target.shown.stop)
    lines = _item_lines(target, takes, files, guids, moved)
    if target.how == "lane" and track is not None:
        add_lane(document, track, lines, start_s, end_s, edits)
        return
    if target.replaces and track is not None:
        for item in track.sounding():
            if item.start_s < end_s and item.end_s > start_s:
                split_item(document, item, start_s, end_s, edits)
    if target.how == "track" or track is None:
        at = document.root.last if track is None else track.chunk.last + 1
        edits.insert(at, ["  " + line for line in _track_lines(target, takes, lines)])
    else:
        indent = _indent(document.text(track.chunk.first)) + "  "
        edits.insert(track.chunk.last, [indent + line for line in lines])


def _item_lines(
    target: RppTarget, takes: Sequence[LandingTake], files: Sequence[Path], guids: Sequence[str], moved: bool
) -> list[str]:
    """An item without fades that plays the takes' files at gain 1, the first one active."""
    start_s, length_frames = target.time_at(target.shown.first), target.shown.stop - target.shown.first
    lines = [
        "<ITEM",
        f"  POSITION {text_of(start_s)}",
        "  SNAPOFFS 0",
        f"  LENGTH {text_of(length_frames / target.rate_hz)}",
        "  LOOP 0",
        "  ALLTAKES 0",
        "  FADEIN 0 0 0 0 0 0 0",
        "  FADEOUT 0 0 0 0 0 0 0",
        "  MUTE 0 0",
        "  SEL 0",
        f"  IGUID {new_guid()}",
    ]
    offset = text_of((target.shown.first - target.file.first) / target.rate_hz)
    for i, (take, file, guid) in enumerate(zip(takes, files, guids, strict=True)):
        volume = "VOLPAN 1 0 1 -1" if i == 0 else "TAKEVOLPAN 0 1 -1"
        own = [
            f"NAME {quote(take.name)}",
            volume,
            f"SOFFS {offset}",
            "PLAYRATE 1 1 0 -1 0 0.0025",
            "CHANMODE 0",
            f"GUID {guid}",
        ]
        lines += [f"  {line}" for line in ([] if i == 0 else ["TAKE"]) + own + _source_lines(target, file, moved)]
    return [*lines, ">"]


def _track_lines(target: RppTarget, takes: Sequence[LandingTake], item: Sequence[str]) -> list[str]:
    guid = new_guid()
    name = f"{target.track} {takes[0].name}" if target.replaces else target.track
    return [f"<TRACK {guid}", f"  NAME {quote(name)}", f"  TRACKID {guid}", *(f"  {line}" for line in item), ">"]


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


def _add_provenance(target: RppTarget, takes: Sequence[LandingTake], guids: Sequence[str], edits: Edits) -> None:
    """One line a take in the project's own store, by the take's GUID: what GetProjExtState("PUNCHIN", GUID) returns."""
    document = target.project.document
    entries = [f"{guid} '{_one_line_json(take)}'" for take, guid in zip(takes, guids, strict=True) if take.provenance]
    if not entries:
        return
    root = document.root
    store = next(root.chunks("EXTSTATE"), None)
    section = next(store.chunks(STORE), None) if store else None
    if section is not None:
        edits.insert(section.last, [f"      {entry}" for entry in entries])
        return
    lines = [f"    <{STORE}", *(f"      {entry}" for entry in entries), "    >"]
    if store is not None:
        edits.insert(store.last, lines)
    else:
        edits.insert(root.last, ["  <EXTSTATE", *lines, "  >"])


def _one_line_json(take: LandingTake) -> str:
    """JSON in ASCII without apostrophes, so that it stands between two of them as it is."""
    return json.dumps(dict(take.provenance), ensure_ascii=True, sort_keys=True).replace("'", "\\u0027")


def _point_back(target: RppTarget, edits: Edits) -> None:
    """Relative media paths made absolute: the new project does not lie beside its media."""
    document = target.project.document
    base = target.project.path.parent

    def walk(chunk: Chunk) -> None:
        for entry in chunk.entries:
            if isinstance(entry, Chunk):
                walk(entry)
            elif chunk.tag == "SOURCE" and document.key(entry) == b"FILE":
                words = document.tokens(entry)
                found = base / words[1].replace("\\", "/") if len(words) > 1 else None
                if found is not None and found.is_file() and not os.path.isabs(words[1]):
                    tail = "".join(f" {word}" for word in words[2:])
                    edits.replace(entry, f"{_indent(document.text(entry))}FILE {quote(str(found.absolute()))}{tail}")

    walk(document.root)


def new_guid() -> str:
    """A GUID as REAPER writes it."""
    return "{" + str(uuid.uuid4()).upper() + "}"


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
