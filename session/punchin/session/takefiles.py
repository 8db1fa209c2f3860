"""Take files on disk after they have landed: what made each, and which ones no project uses any more."""

from __future__ import annotations

import binascii
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from punchin.protocol.errors import Refused
from punchin.session import audiofile, render, rpp, rpp_project
from punchin.session.rpp import Chunk, Document

NOTE: Final = ".punchin.json"  # beside each take file: what made it
YOUNG_S: Final = 3_600  # a take that no project names yet may be one on its way
_FOLDERS_UP = 3  # of a take: its own, the project's, and one between
WHOLE: Final = "whole_file"  # in a note: the file is a document of its own, which no project needs to name


@dataclass(frozen=True, slots=True)
class UnusedTake:
    """A take file that no project in its folder names. note: the file with its provenance.

    young: of the last hour; a landing at work writes its project last, and a DAW's may not be saved yet.
    """

    file: Path
    note: Path
    size_bytes: int
    young: bool


def note_file(take_file: Path) -> Path:
    """Where a take file's provenance stands as JSON: beside it."""
    return take_file.with_name(take_file.name + NOTE)


def write_note(take_file: Path, made: Mapping[str, Any]) -> None:
    """Keep what made a take file beside it; nothing at all leaves no note there. Raises OSError."""
    note = note_file(take_file)
    if made:
        audiofile.write_bytes(
            note, json.dumps(dict(made), indent=2, ensure_ascii=False, sort_keys=True).encode() + b"\n"
        )
    else:
        note.unlink(missing_ok=True)


def provenance(take: Path) -> dict[str, Any]:
    """What made a take file, from the note beside it, or where that is gone from a project that plays it.

    Raises Refused where nothing is kept, or no longer readable.
    """
    note = note_file(take)
    try:
        return _checked(json.loads(note.read_text("utf-8")), take.name)
    except FileNotFoundError as error:
        kept = next(_kept_in_projects(take.resolve()), "")
        if not kept:
            text = f"nothing is kept of what made {take}: {note.name} is missing, and no project near it knows"
            raise Refused(text, "make a new take") from error
    except (OSError, ValueError) as error:
        raise Refused(f"what made {take} is not readable: {note.name}: {error}", "make a new take") from error
    try:
        return _checked(json.loads(kept), take.name)
    except ValueError as error:
        raise Refused(f"what the project keeps of {take.name} is not readable: {error}", "make a new take") from error


def _kept_in_projects(take: Path) -> Iterator[str]:
    """What projects in the take's folder and the two above keep with the takes that play this file."""
    for project in (path for folder in take.parents[:_FOLDERS_UP] for path in sorted(folder.glob("*.[rR][pP][pP]"))):
        try:
            document = rpp.read(project)
            tracks = rpp_project.from_document(project, document, approximate=True).tracks
        except Refused:  # one that cannot be read may not hide what another knows
            continue
        for each in (each for track in tracks for item in track.items for each in item.takes):
            if each.made_by and each.source is not None and take in _places(project, document, each.source.file):
                yield each.made_by


def unused(folder: Path) -> tuple[UnusedTake, ...]:
    """The take files in and below a folder that no project in or below it names, backups of projects included.

    A name in a plug-in's state counts too: samplers keep paths there.
    Only files that Punchin made for a project count: those with a note beside them, and no whole files. Raises Refused
    where the folder is missing, has takes and no project, or a project in it is not readable, because then nobody knows
    what is used.
    """
    if not folder.is_dir():
        raise Refused(f"there is no folder {folder}", "name the folder of a project")
    notes = ((note, note.with_name(note.name.removesuffix(NOTE))) for note in sorted(folder.rglob(f"*{NOTE}")))
    left = [(note, take) for note, take in notes if take.is_file() and not _is_whole(note)]
    projects = list(_projects(folder))
    if left and not projects:
        text = f"{folder} holds take files but no project, so nobody knows which ones are used"
        raise Refused(text, "name the project, or the folder that it is in")
    for project in projects:
        document = rpp.read(project)
        media = set(_media(project, document))
        states = list(_states(document, document.root))
        left = [each for each in left if each[1].resolve() not in media and not _is_named(each[1].name, states)]
    return tuple(_unused(take, note) for note, take in left)


def _unused(take: Path, note: Path) -> UnusedTake:
    written = take.stat()
    return UnusedTake(take, note, written.st_size, abs(time.time() - written.st_mtime) < YOUNG_S)


def _is_whole(note: Path) -> bool:
    try:
        made = json.loads(note.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(made, dict) and bool(made.get(WHOLE))


def remove(take: UnusedTake) -> None:
    """Delete a take file and its note. Raises PunchinError with the reason."""
    for path in (take.file, take.note):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise audiofile.disk_error(path, error) from error


def _projects(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".rpp", ".rpp-bak", ".rpp-undo") and path.is_file() and path.stat().st_size:
            yield path  # an empty one is a name that a landing held when it was killed


def _media(project: Path, document: Document) -> Iterator[Path]:
    """Every file that a project's sources name, active or not, wherever it may lie."""
    for name in _names(document, document.root):
        yield from _places(project, document, name)


def _places(project: Path, document: Document, name: str) -> Iterator[Path]:
    """Where a source's file may lie: wherever it is looked for to be heard."""
    record = document.find(document.root, "RECORD_PATH") or []
    for place in render.media_places(project.parent, "".join(record[1:2]), name):
        yield place.resolve()


def _names(document: Document, chunk: Chunk) -> Iterator[str]:
    for entry in chunk.entries:
        if isinstance(entry, Chunk):
            yield from _names(document, entry)
        elif document.key(entry) == b"FILE":
            yield from document.tokens(entry)[1:2]


def _states(document: Document, chunk: Chunk) -> Iterator[bytes]:
    """What the lines of base64 in each chunk hold together: they are cut anywhere."""
    held = list[bytes]()
    for entry in chunk.entries:
        if isinstance(entry, Chunk):
            yield from _states(document, entry)
            continue
        with contextlib.suppress(binascii.Error):
            held.append(binascii.a2b_base64(document.lines[entry].strip(), strict_mode=True))
    yield b"".join(held)


def _is_named(name: str, states: list[bytes]) -> bool:
    words = [name.encode(*rpp.ENCODING), name.encode("utf-16-le", "surrogatepass")]
    return any(word in state for state in states for word in words)


def _checked(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"what made {name} is not readable: it is no JSON object", "make a new take")
    return value
