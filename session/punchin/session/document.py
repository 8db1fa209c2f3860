"""Sessions that Punchin can read and land on: a REAPER project, or a bare audio file with a tempo.

    session = open_session("song.rpp")
    region = session.region(bars=(5, 8))
    target = session.target("Keys", region)          # refuses by name what cannot be rendered faithfully
    heard = target.heard(start_s, end_s)             # [2, n] for the model
    placed = target.place(new)                       # un-gained, spliced, in memory
    landing = land(target, [LandingTake(placed, "punchin 7", provenance)])

The input is only ever read. What is written is a new document and new take files.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Protocol

from punchin.protocol.errors import PunchinError, Refused
from punchin.session import bare, landing, rpp_session
from punchin.session.audiofile import FORMATS
from punchin.session.region import Region
from punchin.session.rpp_project import Project
from punchin.session.rpp_target import RppTarget
from punchin.session.target import How, Landing, LandingTake, Placed, Target
from punchin.session.tempo import TempoMap

__all__ = [
    "How", "Landing", "LandingTake", "Placed", "Session", "Target",
    "check_together", "land", "land_all", "open_session", "same_track", "share_files",
]  # fmt: skip


class Session(Protocol):
    """A document as it was when opened. sha256 is of its bytes, so that a landing can see that it has changed.

    rate_hz: the project's own rate (48,000 where it leaves that to the device). end_s: where the last item ends.
    """

    @property
    def path(self) -> Path:
        """The document."""
        ...

    @property
    def sha256(self) -> str:
        """Of the document's bytes."""
        ...

    @property
    def tempo(self) -> TempoMap:
        """Its tempo map."""
        ...

    @property
    def rate_hz(self) -> int:
        """The project's rate."""
        ...

    @property
    def end_s(self) -> float:
        """Where its last item ends."""
        ...

    @property
    def track_names(self) -> tuple[str, ...]:
        """Its tracks' names, in order."""
        ...

    def region(self, *, bars: tuple[int, int] | None = None, time: tuple[float, float] | None = None) -> Region:
        """Bars A to B inclusive, from 1, or a span in seconds. Raises Refused, OverLimit."""
        ...

    def target(self, track: str | None, region: Region, how: How = "take") -> Target:
        """The named track's region. `track` is a name, a number from 1, or a GUID; None only for a bare file."""
        ...

    def layer(self, region: Region, name: str, hear: Sequence[str] = ()) -> Target:
        """A new track called `name` beside the others (layer, extract), its region of them all or of `hear` heard.

        Of a bare file: a new file as long as it, silent but for the region.
        """
        ...


def open_session(
    path: Path | str,
    bpm: float | None = None,
    tempo_map: Path | str | None = None,
    signature: tuple[int, int] | None = None,
    approximate: bool = False,
) -> Session:
    """Read a session: `.rpp`, or `.wav`/`.flac`/`.aiff` with `bpm` or `tempo_map` (a Standard MIDI File).

    signature: of a bare file, until its tempo map has one; 4/4 unless given.
    approximate: take what cannot be read exactly (a project's Bezier tempo points) as near as can be, and note it.
    Raises Refused: missing, unreadable, unknown kind, no tempo for a bare file, or one given for a project.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if path.is_dir():
        raise Refused(f"{path} is a folder, no session", "name a file in it: a .rpp, .wav, .flac or .aiff")
    if kind == ".rpp":
        if bpm is not None or tempo_map is not None:
            raise Refused(f"{path.name} has a tempo of its own", "leave --bpm and --tempo-map out")
        return rpp_session.open_project(path, approximate)
    if kind not in FORMATS:
        raise Refused(f"{path.name} is no session that Punchin reads", "use a .rpp, .wav, .flac or .aiff file")
    if not path.is_file():
        raise Refused(f"session is missing: {path}", "check the path")
    if (bpm is None) == (tempo_map is None):
        raise Refused(f"{path.name} needs one tempo", "use --bpm B, or --tempo-map FILE.mid")
    if tempo_map is not None:
        tempo = TempoMap.from_midi(tempo_map, signature or (4, 4))
    else:
        assert bpm is not None
        tempo = TempoMap.at_bpm(bpm, *(signature or (4, 4)))
    return bare.open_file(path, tempo)


def land(target: Target, takes: Sequence[LandingTake], out: Path | str | None = None) -> Landing:
    """Write the take files and the new document. Nothing that was there before is written, except a named `out`.

    out: None is `NAME-punchin.EXT` beside the session, or the next free number. The first take becomes the active one.
    Raises PunchinError (disk) and leaves neither document nor take files behind then.
    """
    return land_all([(target, takes)], out)[0]


def land_all(
    landings: Sequence[tuple[Target, Sequence[LandingTake]]], out: Path | str | None = None
) -> tuple[Landing, ...]:
    """Land several regions or tracks of one session in one new document; as `land`, one Landing a target.

    Each target brings as many takes. Regions of one item share its takes; regions that touch are refused.
    """
    targets = [target for target, _ in landings]
    if not landings or not landings[0][1] or len({len(takes) for _, takes in landings}) != 1:
        raise PunchinError("each region to land needs the same number of takes, at least one")
    path = None if out is None else Path(out)
    projects = [(t, takes) for t, takes in landings if isinstance(t, RppTarget) and t.project is _project(targets[0])]
    if len(projects) == len(landings):
        return landing.land(projects, path)
    files = [(t, takes) for t, takes in landings if isinstance(t, bare.FileTarget)]
    if len(files) == len(landings) and len({file.session.path for file, _ in files}) == 1:
        return bare.land(files, path)
    raise PunchinError("the regions to land are not of one session that was opened once")


def check_together(targets: Sequence[Target]) -> None:
    """Raise Refused where `land_all` would, by where the regions lie alone: found before their takes are made."""
    for first, second in combinations(targets, 2):
        if isinstance(first, RppTarget) and isinstance(second, RppTarget):
            landing.check_two(first, second)


def same_track(first: Target, second: Target) -> bool:
    """Whether two regions of one session are of one track (or of the file): the same one, not one of the same name."""
    if isinstance(first, RppTarget) and isinstance(second, RppTarget):
        return first.under is second.under
    return first.track == second.track


def share_files(first: Target, second: Target) -> bool:
    """Whether `land_all` puts the takes of two regions of one session into the same files."""
    if isinstance(first, RppTarget) and isinstance(second, RppTarget):
        return landing.same_item(first, second)
    return isinstance(first, bare.FileTarget) and isinstance(second, bare.FileTarget)


def _project(target: Target) -> Project | None:
    return target.project if isinstance(target, RppTarget) else None
