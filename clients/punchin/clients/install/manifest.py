"""Files that were installed into a folder of somebody else's, by name and hash: what is ours, and what was edited.

`plan` compares what is there with what should be there and gives changes; `apply` makes them. A file that its user
edited is kept as NAME.edited before the new one takes its place, and never removed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from punchin.protocol.errors import PunchinError

NAME: Final = "manifest.json"

What = Literal["new", "update", "same", "keep edited", "remove", "missing"]


class Manifest(Struct, frozen=True):
    """What an installation left: paths relative to the folder, with the sha256 of what was written."""

    version: str
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One file: what happens to it. data is what it will hold, None where it is removed or stays."""

    what: What
    path: Path
    data: bytes | None = None

    def __str__(self) -> str:
        return f"{self.what:<12} {self.path}"


def read(folder: Path) -> Manifest | None:
    """The manifest in a folder; None where nothing was installed. Raises PunchinError if it cannot be read."""
    try:
        with _told(folder):
            there = _bytes(folder / NAME)
        return None if there is None else msgspec.json.decode(there, type=Manifest)
    except msgspec.MsgspecError as error:
        raise PunchinError(f"{folder / NAME} is damaged: {error}", f"remove {folder}, then install again") from None


def plan(folder: Path, wanted: Mapping[str, bytes]) -> list[Change]:
    """What an installation of `wanted` (relative path to bytes) would change, in the order of names.

    Raises PunchinError for a file that cannot be read.
    """
    manifest = read(folder)
    known = manifest.files if manifest else {}
    with _told(folder):
        changes = [_put(folder / name, data, known.get(name)) for name, data in sorted(wanted.items())]
        gone = [_drop(folder / name, sha256) for name, sha256 in sorted(known.items()) if name not in wanted]
    return changes + [change for change in gone if change.what != "missing"]


def removal(folder: Path) -> list[Change]:
    """What removing an installation would change. Raises PunchinError for a file that cannot be read."""
    manifest = read(folder)
    with _told(folder):
        return [_drop(folder / name, sha256) for name, sha256 in sorted((manifest.files if manifest else {}).items())]


def apply(folder: Path, changes: list[Change], version: str | None) -> None:
    """Make the changes, each file whole or not at all. version: of the new manifest; None removes it with the rest.

    Raises PunchinError when the disk says no; what was done until then stays, and the same call again goes on.
    """
    with _told(folder):
        files = {}
        for change in changes:
            _make(change)
            if change.data is not None:
                files[change.path.relative_to(folder).as_posix()] = _hash(change.data)
        if version is None:
            (folder / NAME).unlink(missing_ok=True)
            _remove_empty(folder)
        else:
            write_whole(folder / NAME, msgspec.json.format(msgspec.json.encode(Manifest(version, files))))


def _make(change: Change) -> None:
    if change.what == "remove":
        change.path.unlink(missing_ok=True)
    elif change.what == "keep edited" and change.data is None:
        return
    elif change.what != "same" and change.data is not None:
        if change.what == "keep edited":
            change.path.replace(_free(change.path.with_name(change.path.name + ".edited")))
        write_whole(change.path, change.data)


def write_whole(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all. Not forced to the disk: another `install` mends what a crash took."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_bytes(data)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def _told(folder: Path) -> Generator[None]:
    """What the disk says no to, as PunchinError."""
    try:
        yield
    except OSError as error:
        hint = "make room or rights there, or move it away; then the same command again"
        raise PunchinError(f"{error.filename or folder}: {error.strerror}", hint) from error


def _bytes(path: Path) -> bytes | None:
    """What a file holds, None where it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _put(path: Path, data: bytes, known: str | None) -> Change:
    there = _bytes(path)
    if there is None:
        return Change("new", path, data)
    if there == data:
        return Change("same", path, data)
    return Change("update" if _hash(there) == known else "keep edited", path, data)


def _drop(path: Path, known: str) -> Change:
    there = _bytes(path)
    if there is None:
        return Change("missing", path)
    return Change("remove" if _hash(there) == known else "keep edited", path)


def _remove_empty(folder: Path) -> None:
    for sub in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            sub.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _free(path: Path) -> Path:
    number, free = 2, path
    while free.exists():
        free, number = path.with_name(f"{path.name}-{number}"), number + 1
    return free


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
