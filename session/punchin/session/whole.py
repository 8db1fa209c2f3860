"""Takes as files of their own, which no project names: all of them on disk, or none."""

from __future__ import annotations

import contextlib
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
    replaces = replace and os.path.lexists(first)
    held = dict[Path, WholeFile]()
    try:
        for file in (*files[1:], files[0]) if replaces else files:  # what replaces has a name for the time being
            held[hold_name(file.path)] = file
        for path, file in held.items():
            audiofile.write(path, file.audio, rate_hz, subtype)
            takefiles.write_note(path, {**file.provenance, takefiles.WHOLE: True} if file.provenance else {})
        if not replaces:
            return tuple(held)
        *others, last = held
        _put_over(last, first)
    except BaseException as error:
        for path in held:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # its name may be longer than the disk allows
                takefiles.note_file(path).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise audiofile.disk_error(first, error) from error
        raise
    return first, *others


def _put_over(path: Path, first: Path) -> None:
    """Let a file and its note take the place of another with its own: all else is on disk."""
    note, before = takefiles.note_file(path), takefiles.note_file(first)
    path.replace(first)
    if note.exists():
        note.replace(before)
    else:
        before.unlink(missing_ok=True)
