"""Takes as files of their own, which no project names: all of them on disk, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from punchin.session import audiofile, takefiles
from punchin.session.target import hold_name


@dataclass(frozen=True, slots=True, eq=False)
class WholeFile:
    """A take that is to be a file. audio: [channels, frames]. provenance: what made it; empty leaves no note."""

    path: Path
    audio: NDArray[Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)


def write_all(files: Sequence[WholeFile], rate_hz: int, subtype: str, *, replace: bool) -> tuple[Path, ...]:
    """Write each file with its note beside it, and give where they are. On an error those written so far go again.

    replace: whether the first one goes over a file of its name. All others get the first free name like theirs.
    Raises PunchinError with the reason.
    """
    first = files[0].path
    replaces, note = replace and os.path.lexists(first), takefiles.note_file(first)
    before = note.read_bytes() if replaces and note.is_file() else None
    paths: list[Path] = []
    try:
        for file in files:
            paths.append(first if replaces and not paths else hold_name(file.path))
        backwards = reversed([*zip(files, paths, strict=True)])  # nothing is replaced before all else is there
        for file, path in backwards:
            takefiles.write_note(path, {**file.provenance, takefiles.WHOLE: True} if file.provenance else {})
            audiofile.write(path, file.audio, rate_hz, subtype)
    except BaseException as error:
        for path in paths[1:] if replaces else paths:
            path.unlink(missing_ok=True)
            takefiles.note_file(path).unlink(missing_ok=True)
        if before is not None:
            audiofile.write_bytes(note, before)
        elif replaces:
            note.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise audiofile.disk_error(first, error) from error
        raise
    return tuple(paths)
