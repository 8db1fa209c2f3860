"""What a user asks of a session: the values of a command line, a DAW's dialog or a script, checked by themselves."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from punchin.protocol import limits
from punchin.protocol.errors import Refused
from punchin.protocol.order import Task
from punchin.session.rpp import readable
from punchin.session.tempo import TempoMap, in_bars

Raw = bool | int | float | str
LAYERS = frozenset({"lego", "extract", "complete"})
NAME_BYTES = 255  # of a file, on the disks there are
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".aif", ".aiff"})


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the model is told. None is what the session or the model itself says; N/A where they say nothing."""

    text: str = ""
    lyrics: str = ""
    language: str = "unknown"
    instrument: str = ""
    key: str | None = None
    signature: tuple[int, int] | None = None
    model: str = ""  # "" is the daemon's default
    steps: int | None = None
    shift: float | None = None
    guidance: float | None = None
    strength: float = 1.0
    references: tuple[Path, ...] = ()
    loras: tuple[tuple[Path, float], ...] = ()
    raw: dict[str, Raw] = field(default_factory=dict)

    def absolute(self) -> Prompt:
        """The same prompt with absolute paths."""
        return replace(
            self,
            references=tuple(path.resolve() for path in self.references),
            loras=tuple((path.resolve(), strength) for path, strength in self.loras),
        )


@dataclass(frozen=True, kw_only=True)
class Request:
    """Takes of one region of one session. Exactly one of `bars` and `time_s` is given.

    session: `.rpp`, or an audio file; then `bpm` or `tempo_map` tells the tempo and `track` is None.
    bars: first and last, inclusive, counted from 1. time_s: start and end in project time.
    context: `auto`, `whole`, or bars on each side.
    seed: of the first take; the others count on from it.
    level: whether a take's loudness is matched to what it replaces.
    hear: of a layer, the tracks that the model hears; empty is all that are not muted.
    approximate: take what cannot be read exactly (Bezier tempo points) as near as can be.
    pre_fx, return_fx: plug-in chains (TOML) for what the model hears and for the take.
    job_id: the caller's own name for the job, so that a request which is made again finds its job instead of asking
    twice; further rolls add -2, -3. None makes new ones.
    """

    task: Task
    session: Path
    prompt: Prompt
    seed: int
    track: str | None = None
    bars: tuple[int, int] | None = None
    time_s: tuple[float, float] | None = None
    bpm: float | None = None
    tempo_map: Path | None = None
    variations: int = 1
    max_attempts: int = 3
    context: int | Literal["auto", "whole"] = "auto"
    level: bool = True
    hear: tuple[str, ...] = ()
    approximate: bool = False
    land: Literal["take", "split", "lane", "track"] = "take"
    out: Path | None = None
    pre_fx: Path | None = None
    return_fx: Path | None = None
    job_id: str | None = None

    @property
    def is_layer(self) -> bool:
        """Whether the takes go on a track of their own, beside what is heard."""
        return self.task in LAYERS

    @property
    def span(self) -> str:
        """Where the region is, in words like `bars 5-6`."""
        start, end = self.time_s or (0, 0)
        return in_bars(self.bars) if self.bars else f"{start:g}-{end:g} s"

    @property
    def place(self) -> str:
        """The region in words, like `Keys bars 5-6`. A GUID tells people nothing and is left out."""
        tracks = " + ".join(name for name in (self.track, *self.hear) if name and not name.startswith("{"))
        return f"{tracks} {self.span}".strip()

    def absolute(self) -> Request:
        """The same request with absolute paths, for whoever goes on with it from another folder."""
        return replace(
            self,
            session=self.session.resolve(),
            tempo_map=_absolute(self.tempo_map),
            out=None if self.out is None else self.out.absolute(),
            pre_fx=_absolute(self.pre_fx),
            return_fx=_absolute(self.return_fx),
            prompt=self.prompt.absolute(),
        )

    @property
    def is_audio(self) -> bool:
        """Whether the session is a bare audio file."""
        return self.session.suffix.lower() in AUDIO_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class Making:
    """Bars from a prompt alone. bpm: of the result. bars: how many, of `signature`. out: the first take's file."""

    prompt: Prompt
    bpm: float
    bars: int
    signature: tuple[int, int]
    out: Path
    seed: int
    variations: int = 1
    max_attempts: int = 3

    @property
    def frames(self) -> int:
        """The result's length in 48 kHz frames."""
        start_s, end_s = TempoMap.at_bpm(self.bpm, *self.signature).bars_to_seconds(1, self.bars)
        return round((end_s - start_s) * limits.MODEL_HZ)

    def absolute(self) -> Making:
        """The same with absolute paths."""
        return replace(self, out=self.out.absolute(), prompt=self.prompt.absolute())


def check_folder(output: Path) -> None:
    """Raise Refused where an output could not be written: found before the take is made, not after."""
    folder = output.absolute().parent
    if folder.exists() and not folder.is_dir():
        raise Refused(f"{folder} is a file, not a folder", "name another with -o")
    if not folder.is_dir():
        raise Refused(f"the folder {folder} does not exist", f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise Refused(f"the folder {folder} may not be written", "name another with -o")
    size, most = len(os.fsencode(output.name)), NAME_BYTES - len("-punchin-99.punchin.json")
    if size > most:
        text = f"the name {output.name} has {size} bytes, with what a take adds to it at most {most} are allowed"
        raise Refused(text, "name another with -o")


def plain(value: Any) -> Any:
    """What msgspec does not know of a request, as something that it does: paths as text.

    Raises Refused for a path that is no text: its name is older than UTF-8.
    """
    if isinstance(value, Path):
        text = readable(str(value))
        if text != str(value):
            raise Refused(f"a job cannot name {text}: the bytes of that name are not UTF-8", "rename it, and try again")
        return text
    raise NotImplementedError(f"a {type(value).__name__} cannot travel")


def read(kind: type[Any], value: Any) -> Any:
    """The way back of `plain`."""
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"a {kind.__name__} cannot travel")


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()
