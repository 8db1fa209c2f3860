"""What `punchin demo` does: the bundled session copied, one region of it made anew, drawn, and mixed down."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from punchin.clients.demo import session_folder
from punchin.clients.journey import Listener, Request, Result, perform
from punchin.clients.journey.drawing import draw
from punchin.protocol.errors import Cancelled
from punchin.session import audiofile, mix, rpp_session

SUBTYPE = "PCM_24"


@dataclass(frozen=True, slots=True)
class Tour:
    """Where everything is that the demo made."""

    session: Path
    result: Result
    picture: Path
    mix: Path

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`: the journey's object, and what the demo adds."""
        more = {
            "input": str(self.session.absolute()),
            "picture": str(self.picture.absolute()),
            "mix": str(self.mix.absolute()),
        }
        return self.result.to_json() | more


def copy_session(folder: Path) -> Path:
    """The bundled session in `folder`, as `demo.rpp`. Files that are there already stay as they are."""
    source = session_folder()
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        copy = folder / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            _copy(file, copy)
    return folder / "demo.rpp"


def _copy(file: Path, copy: Path) -> None:
    """Whole or not at all: a part that stays would be taken for the file the next time. Raises OSError."""
    part = copy.with_name(f".{copy.name}-{os.getpid()}")
    try:
        shutil.copyfile(file, part)
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)


def go(request: Request, listener: Listener) -> Tour:
    """Land a take on the copied session that `request` names, and put a picture and a mix beside it.

    Raises what `perform` does.
    """
    result = perform(request, listener)
    output = result.output
    try:
        picture = draw(result.rolled[0], output.with_suffix(".png"), result.takes[0].name)
        return Tour(request.session, result, picture, mix_down(output))
    except KeyboardInterrupt:
        raise Cancelled(f"stopped; the take is in {output}, its picture or mix is missing") from None


def mix_down(session: Path) -> Path:
    """All tracks of a project in one WAV file beside it, 24 bit."""
    opened = rpp_session.open_project(session)
    audio = mix.mixdown(opened.project, opened.rate_hz, 0.0, opened.end_s)
    return audiofile.write(session.with_suffix(".wav"), audio, opened.rate_hz, SUBTYPE)
