"""A REAPER project as a session: its tracks by name, its regions, and the targets in them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from punchin.protocol import limits
from punchin.protocol.errors import Refused
from punchin.session import rpp, rpp_aim, rpp_project
from punchin.session.region import Region, choose
from punchin.session.rpp_project import Project, Track
from punchin.session.rpp_target import RppTarget
from punchin.session.target import How
from punchin.session.tempo import TempoMap


@dataclass(frozen=True, eq=False)
class RppSession:
    """A REAPER project. Only read; what lands is a new file."""

    path: Path
    sha256: str
    project: Project

    @property
    def tempo(self) -> TempoMap:
        """The project's tempo map."""
        return self.project.tempo

    @property
    def rate_hz(self) -> int:
        """The project's rate; 48,000 where it leaves that to the audio device."""
        return self.project.rate_hz or limits.MODEL_HZ

    @property
    def end_s(self) -> float:
        """Where the last item ends."""
        return self.project.end_s

    @property
    def track_names(self) -> tuple[str, ...]:
        """The tracks' names, in order; nameless ones are empty."""
        return tuple(track.name for track in self.project.tracks)

    def region(self, *, bars: tuple[int, int] | None = None, time: tuple[float, float] | None = None) -> Region:
        """Bars A to B inclusive, from 1, or a span in seconds. Raises Refused, OverLimit."""
        return choose(self.tempo, self.end_s, bars, time)

    def target(self, track: str | None, region: Region, how: How = "take") -> RppTarget:
        """The region of one track, by its name, its number from 1, or its GUID. Raises Refused."""
        return rpp_aim.at_track(self.project, self.find_track(track), region, how)

    def layer(self, region: Region, name: str, hear: Sequence[str] = ()) -> RppTarget:
        """A new track called `name` over the region; `hear` names what the model hears, () is all unmuted tracks.

        Raises Refused for named tracks that cannot be rendered; of all tracks, such items are left out and noted.
        """
        named = tuple(self.find_track(each) for each in hear)
        return rpp_aim.over_tracks(self.project, region, name, named)

    def find_track(self, wanted: str | None) -> Track:
        """One track by name, number from 1, or GUID. Raises Refused with the list of tracks."""
        tracks = self.project.tracks
        listing = ", ".join(f"{t.number} {t.name}".rstrip() for t in tracks) or "none"
        if wanted is None:
            raise Refused(f"no track is named; the tracks are: {listing}", "use --track NAME")
        named = [t for t in tracks if t.name == wanted] or [t for t in tracks if t.name.lower() == wanted.lower()]
        if len(named) > 1:
            numbers = " or ".join(str(t.number) for t in named)
            raise Refused(f"{len(named)} tracks are named {wanted!r}", f"choose by number: {numbers}")
        if named:
            return named[0]
        for track in tracks:
            if wanted == str(track.number) or (
                track.guid and wanted.strip("{}").lower() == track.guid.strip("{}").lower()
            ):
                return track
        raise Refused(f"there is no track {wanted!r}; the tracks are: {listing}", "use one of these, or its number")


def open_project(path: Path, approximate: bool = False) -> RppSession:
    """A `.rpp` as a session. Raises Refused where it is missing or no project; see `rpp_project.from_document`."""
    document = rpp.read(path)
    digest = hashlib.sha256(document.dump()).hexdigest()
    return RppSession(path, digest, rpp_project.from_document(path.absolute(), document, approximate))
