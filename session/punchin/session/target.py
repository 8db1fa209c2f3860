"""What a session hands to the journey: a region of one track that can be heard, spliced into, and landed on."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from punchin.protocol.errors import PunchinError, Refused
from punchin.session.region import Region
from punchin.session.splice import Fades

How = Literal["take", "split", "lane", "track"]
Audio = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """One take spliced into the original, not on disk yet: exactly the samples its file will hold.

    before, after: [channels, frames] at `rate_hz`, the same span without and with the take.
    start_frame, end_frame: the region within them. fades: as the splice chose them; they end at or before its edges.
    held_frames: frames where the item's gain was too low to divide by, so that the original stays (`gain.ungain`).
    """

    before: NDArray[Any]
    after: NDArray[Any]
    start_frame: int
    end_frame: int
    fades: Fades
    rate_hz: int
    held_frames: int = 0


@dataclass(frozen=True, slots=True)
class LandingTake:
    """A take to land: its audio, its name, and what made it (JSON values; kept with the take).

    file_name: what its file is called after the track; the name itself where it is empty.
    warnings: what is wrong with it, for the name that the DAW shows.
    """

    placed: Placed
    name: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    file_name: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The name that the DAW shows."""
        return with_warnings(self.name, self.warnings)


@dataclass(frozen=True, slots=True)
class Landing:
    """What was written for one target: the new document (for a bare file, its first take), each take's file and name.

    names: as the DAW shows them, with warnings of all regions that a take holds.
    """

    output: Path
    take_files: tuple[Path, ...]
    names: tuple[str, ...]


class Target(Protocol):
    """One track's (or file's) region, ready to be heard and landed on.

    Frames count at `rate_hz` from `origin_s` of project time, so that they fall on the source's own samples; frames
    before the origin are negative. The region is [start_frame, end_frame), a take covers `lead_frames` before it too.
    channels, subtype: of the take files. landing: in words, how takes will land.
    notes: what is approximated or unusual, for the report; empty in the plain case.
    """

    @property
    def region(self) -> Region:
        """The span to be made anew."""
        ...

    @property
    def track(self) -> str:
        """The track's name, an empty text for a bare file."""
        ...

    @property
    def rate_hz(self) -> int:
        """Frames a second, of frames and take files."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the take files."""
        ...

    @property
    def subtype(self) -> str:
        """Subtype of the take files."""
        ...

    @property
    def origin_s(self) -> float:
        """Project time of frame 0."""
        ...

    @property
    def start_frame(self) -> int:
        """The region's first frame."""
        ...

    @property
    def end_frame(self) -> int:
        """The frame after the region."""
        ...

    @property
    def lead_frames(self) -> int:
        """Frames before the region that a take covers."""
        ...

    @property
    def landing(self) -> str:
        """In words, how takes will land."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What is approximated or unusual."""
        ...

    @property
    def before(self) -> NDArray[Any]:
        """What takes are spliced into, as files hold it: `Placed.before`, [channels, n] from `before_frame` on."""
        ...

    @property
    def before_frame(self) -> int:
        """The frame at which `before` begins."""
        ...

    @property
    def plays(self) -> tuple[int, int]:
        """The frames [first, stop) of `before` that are heard where it lands; beyond them are handles to slip into."""
        ...

    def frame_at(self, at_s: float) -> int:
        """The frame nearest to a project time."""
        ...

    def hearable(self, start_s: float, end_s: float) -> tuple[float, float]:
        """The part of a span around the region in which everything can be rendered; at least the region itself."""
        ...

    def heard(self, start_s: float, end_s: float) -> Audio:
        """What sounds, [2, frame_at(end_s) - frame_at(start_s)], silence where nothing does.

        Item gain, fades and pan are in; track gain and effects are not. Raises Refused for what cannot be rendered.
        """
        ...

    def resamples(self, start: int, stop: int) -> bool:
        """Whether anything that sounds in frames [start, stop) is brought to the target's rate from another one."""
        ...

    def played(self, held: NDArray[Any], first: int) -> NDArray[Any]:
        """What a piece of the take's file sounds like where it lands, [1 or 2, n], by itself.

        held: [channels, n], shaped as `before`, whose frame `first` is the piece's first.
        """
        ...

    def audible(self, sound: Audio) -> Audio:
        """What of a sound over the region is heard when a take holds it, [2, n]: what a take's level is judged by.

        sound: [2, end_frame - start_frame]. One channel plays what the two have in common; a side that the item does
        not play is silent, as are frames where its gain is too low for a take (`gain.ungain`).
        """
        ...

    def place(self, new: Audio) -> Placed:
        """Splice a take into the original.

        new: [2, lead_frames + end_frame - start_frame] at `rate_hz`, ending at `end_frame`, as loud as `heard` is.
        """
        ...


def check_take(new: Audio, target: Target) -> None:
    """Raise PunchinError unless `new` covers the target's lead and region with two channels."""
    wanted = (2, target.lead_frames + target.end_frame - target.start_frame)
    if new.shape != wanted:
        raise PunchinError(f"the take is {new.shape[0]} x {new.shape[1]} samples, {wanted[0]} x {wanted[1]} are wanted")


def check_apart(regions: Sequence[Placed]) -> None:
    """Refuse regions of one file that touch each other, fades included."""
    spans = sorted((p.start_frame - p.fades.into.reach_frames, p.end_frame) for p in regions)
    if any(first[1] > second[0] for first, second in pairwise(spans)):
        raise Refused("two regions of one item touch each other", "select them as one region")


def lay_over(first: LandingTake, second: LandingTake) -> LandingTake:
    """One take with the regions of two in it, spans of the same file that `check_apart` let pass."""
    low, high = second.placed.start_frame - second.placed.fades.into.reach_frames, second.placed.end_frame
    after = first.placed.after.copy()
    after[:, low:high] = second.placed.after[:, low:high]
    also = [*first.provenance.get("also", ()), dict(second.provenance)]
    placed = replace(first.placed, after=after, held_frames=first.placed.held_frames + second.placed.held_frames)
    return LandingTake(
        placed,
        first.name,
        {**first.provenance, "also": also} if second.provenance else first.provenance,
        first.file_name,
        tuple(dict.fromkeys((*first.warnings, *second.warnings))),
    )


def narrowed(sound: Audio, channels: int) -> Audio:
    """Two channels as a file of `channels` holds them: as they are, or their mean in one."""
    return sound if channels == 2 else sound.mean(axis=0, keepdims=True)


def with_warnings(name: str, warnings: Sequence[str]) -> str:
    """A take's name that says what is wrong with it, if anything is."""
    return f"{name} CHECK: {'; '.join(warnings)}" if warnings else name


def free_name(path: Path) -> Path:
    """The path, or the first of `NAME-2.EXT`, `NAME-3.EXT`, ... that does not exist."""
    number, free = 2, path
    while free.exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def hold_name(path: Path) -> Path:
    """As `free_name`, with an empty file there already: two landings at once do not meet. Raises OSError."""
    while True:
        free = free_name(path)
        try:
            free.open("xb").close()
        except FileExistsError:
            continue
        return free


def file_stem(name: str) -> str:
    """A name for a file on any system: letters, digits, dash and underscore, at most 60, and at most 180 bytes."""
    stem = re.sub(r"[^\w-]+", "-", unicodedata.normalize("NFKC", name)).strip("-_")
    short = stem[:60].encode()[:180]  # systems count 255 bytes, and the name of its note is longer
    return short.decode(errors="ignore") or "take"
