"""Sessions that Punchin can read and land on: a REAPER project, or a bare audio file with a tempo.

    session = open_session("song.rpp")
    region = session.region(bars=(5, 8))
    target = session.target("Keys", region)          # refuses by name what cannot be rendered faithfully
    heard = target.heard(start_s, end_s)             # [2, n] for the model
    placed = target.place(new, fade_frames)          # un-gained, spliced, in memory
    landing = land(target, [LandingTake(placed, "punchin 7", provenance)])

The input is only ever read. What is written is a new document and new take files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from punchin.session.region import Region
from punchin.session.tempo import TempoMap

How = Literal["take", "split", "lane", "track"]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """One take spliced into the original, not on disk yet: exactly the samples its file will hold.

    before, after: [channels, frames] at `rate_hz`, the same span without and with the take.
    start_frame, end_frame: the region within them; each fade ends at its edge and is `fade_frames` long.
    held_frames: frames where the item's gain was too low to divide by, so that the original stays (design: un-gain).
    """

    before: NDArray[Any]
    after: NDArray[Any]
    start_frame: int
    end_frame: int
    fade_frames: int
    rate_hz: int
    held_frames: int = 0


@dataclass(frozen=True, slots=True)
class LandingTake:
    """A take to land: its audio, the name the DAW shows, and what made it (JSON values; kept with the take)."""

    placed: Placed
    name: str
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Landing:
    """What was written: the new document (for a bare file, its first take), and one file a take, in order."""

    output: Path
    take_files: tuple[Path, ...]


class Target(Protocol):
    """One track's (or file's) region, ready to be heard and landed on.

    Frames count at `rate_hz` from `origin_s` of project time, so that they fall on the source's own samples; frames
    before the origin are negative. The region is [start_frame, end_frame).
    channels, subtype: of the take files. landing: in words, how takes will land ("a take on the item", ...).
    notes: what is approximated or unusual, for the report; empty in the plain case.
    """

    region: Region
    track: str
    rate_hz: int
    channels: int
    subtype: str
    origin_s: float
    start_frame: int
    end_frame: int
    landing: str
    notes: tuple[str, ...]

    def frame_at(self, at_s: float) -> int:
        """The frame nearest to a project time."""
        ...

    def heard(self, start_s: float, end_s: float) -> NDArray[np.float32]:
        """What sounds on the track, [2, frame_at(end_s) - frame_at(start_s)], silence where nothing does.

        Item gain, fades and pan are in; track gain and effects are not.
        """
        ...

    def place(self, new: NDArray[np.float32], fade_frames: int) -> Placed:
        """Splice a take into the original.

        new: [1 or 2, n] at `rate_hz`, over [start_frame - fade_frames, end_frame), as loud as `heard` is.
        Raises ValueError when n is not that span's length.
        """
        ...


class Session(Protocol):
    """A document as it was when opened. sha256 is of its bytes, so that a landing can see that it has changed.

    rate_hz: the project's own rate (48,000 where it leaves that to the device). end_s: where the last item ends.
    """

    path: Path
    sha256: str
    tempo: TempoMap
    rate_hz: int
    end_s: float
    track_names: tuple[str, ...]

    def region(self, *, bars: tuple[int, int] | None = None, time: tuple[float, float] | None = None) -> Region:
        """Bars A to B inclusive, from 1, or a span in seconds. Raises Refused, OverLimit."""
        ...

    def target(self, track: str | None, region: Region, how: How = "take") -> Target:
        """The named track's region. `track` is a name, a number from 1, or a GUID; None only for a bare file."""
        ...


def open_session(
    path: Path | str,
    bpm: float | None = None,
    tempo_map: Path | str | None = None,
    signature: tuple[int, int] | None = None,
) -> Session:
    """Read a session: `.rpp`, or `.wav`/`.flac`/`.aiff` with `bpm` or `tempo_map` (a Standard MIDI File).

    Raises Refused: missing, unreadable, unknown kind, no tempo for a bare file, or one given for a project.
    """
    raise NotImplementedError


def land(target: Target, takes: Sequence[LandingTake], out: Path | str | None = None) -> Landing:
    """Write the take files and the new document. Nothing that was there before is written, except a named `out`.

    out: None is `NAME-punchin.EXT` beside the session, or the next free number. The first take becomes the active one.
    Raises PunchinError (disk), and leaves no document behind then.
    """
    raise NotImplementedError
