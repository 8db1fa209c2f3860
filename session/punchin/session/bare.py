"""A bare audio file as a session: one track without a name, a tempo from outside, and files out of it that equal it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from punchin.protocol import limits
from punchin.protocol.errors import Refused
from punchin.session import audiofile, gain, splice
from punchin.session.region import Region, choose, of_span
from punchin.session.target import (
    Audio,
    How,
    Landing,
    LandingTake,
    Placed,
    check_apart,
    check_take,
    file_stem,
    lay_over,
    narrowed,
)
from punchin.session.tempo import TempoMap
from punchin.session.whole import WholeFile, write_all


@dataclass(frozen=True, eq=False)
class AudioSession:
    """A WAV, FLAC or AIFF file with a tempo map that starts at its first sample."""

    path: Path
    sha256: str
    tempo: TempoMap
    info: audiofile.AudioInfo
    track_names: tuple[str, ...] = ()

    @property
    def rate_hz(self) -> int:
        """The file's rate."""
        return self.info.rate_hz

    @property
    def end_s(self) -> float:
        """The file's length."""
        return self.info.length_s

    def region(self, *, bars: tuple[int, int] | None = None, time: tuple[float, float] | None = None) -> Region:
        """Bars A to B inclusive, from 1, or a span in seconds. A last bar that the file cuts short ends with it."""
        whole = choose(self.tempo, self.end_s, bars, time)
        return whole if whole.end_s <= self.end_s else of_span(self.tempo, whole.start_s, self.end_s)

    def target(self, track: str | None, region: Region, how: How = "take") -> FileTarget:
        """The region of the file. Raises Refused where a track is named, or a way to land that files do not have."""
        if track is not None:
            raise Refused(f"{self.path.name} is one audio file without tracks", "leave --track out")
        if how != "take":
            raise Refused(f"a bare audio file has no {how} to land on", "leave --land out")
        return FileTarget(self, region, notes=_lost(self.path))

    def layer(self, region: Region, name: str, hear: Sequence[str] = ()) -> FileTarget:
        """A file beside this one, as long as it, silent but for the region. Raises Refused where tracks are named."""
        if hear:
            raise Refused(f"{self.path.name} is one audio file without tracks", "leave --hear out")
        return FileTarget(self, region, track=name, landing="a file beside the session, as long as it")


@dataclass(frozen=True, eq=False)
class FileTarget:
    """A region of a bare file. Frames are the file's own. A named one is a layer: its takes do not hold the file."""

    session: AudioSession
    region: Region
    track: str = ""
    origin_s: float = 0.0
    landing: str = "a copy of the file with the take in it"
    notes: tuple[str, ...] = ()
    before_frame: int = 0

    @property
    def rate_hz(self) -> int:
        """The file's rate."""
        return self.session.rate_hz

    @property
    def channels(self) -> int:
        """The file's channels."""
        return self.session.info.channels

    @property
    def subtype(self) -> str:
        """The file's subtype; the take's file has the same."""
        return self.session.info.subtype

    @property
    def plays(self) -> tuple[int, int]:
        """All of the file."""
        return 0, self.session.info.frames

    @property
    def start_frame(self) -> int:
        """The region's first frame."""
        return self.frame_at(self.region.start_s)

    @property
    def end_frame(self) -> int:
        """The frame after the region."""
        return min(self.frame_at(self.region.end_s), self.session.info.frames)

    @property
    def before(self) -> NDArray[Any]:
        """The whole file as it is, or silence as long as it under a layer."""
        return self._before

    @property
    def lead_frames(self) -> int:
        """Frames before the region that a take covers."""
        return splice.lead_frames(self.start_frame, self.rate_hz)

    def frame_at(self, at_s: float) -> int:
        """The frame nearest to a time."""
        return round(at_s * self.rate_hz)

    def hearable(self, start_s: float, end_s: float) -> tuple[float, float]:
        """The span within the file."""
        return max(start_s, 0.0), min(end_s, self.session.end_s)

    def heard(self, start_s: float, end_s: float) -> Audio:
        """The file's samples, [2, n]; a mono file in both channels, silence outside it."""
        start, stop = self.frame_at(start_s), self.frame_at(end_s)
        out = np.zeros((2, stop - start), dtype=np.float32)
        piece, _ = audiofile.read(self.session.path, max(start, 0), stop - max(start, 0))
        at = max(-start, 0)
        out[:, at : at + piece.shape[1]] = piece
        return out

    def resamples(self, start: int, stop: int) -> bool:
        """Never: the target's rate is the file's own."""
        return False

    def played(self, held: NDArray[Any], first: int) -> NDArray[Any]:
        """The file as it is."""
        return held

    def audible(self, sound: Audio) -> Audio:
        """All of it, or what a mono file holds of it in both channels."""
        return np.broadcast_to(narrowed(sound, self.channels), sound.shape)

    def place(self, new: Audio) -> Placed:
        """Splice a take into the whole file; see `Target.place`."""
        check_take(new, self)
        start, end, lead = self.start_frame, self.end_frame, self.lead_frames
        before = self.before
        kept = before[:, start - lead : end]
        heard = np.broadcast_to(kept, new.shape).astype(np.float32)
        own, held = gain.ungain(new, heard, kept, 1.0)
        fades = splice.choose(before, own, start, end, self.rate_hz)
        return Placed(before, splice.splice(before, own, start, end, fades), start, end, fades, self.rate_hz, held)

    @cached_property
    def _before(self) -> NDArray[Any]:
        whole = audiofile.read_exact(self.session.path)[0]
        return np.zeros_like(whole) if self.track else whole


def land(landings: Sequence[tuple[FileTarget, Sequence[LandingTake]]], out: Path | None) -> tuple[Landing, ...]:
    """Write each take as a whole file of the session's format; the first one is the output.

    landings: targets of one session with their takes, each target as many; their regions lie in the same files.
    """
    target, takes = landings[0][0], list(landings[0][1])
    for i, (_, more) in enumerate(landings[1:], start=1):
        check_apart([landing[1][0].placed for landing in landings[: i + 1]])
        takes = [lay_over(*pair) for pair in zip(takes, more, strict=True)]
    path = target.session.path
    what = f"punchin-{file_stem(target.track)}" if target.track else "punchin"
    first = out or path.with_name(f"{path.stem}-{what}{path.suffix}")
    if first.suffix.lower() != path.suffix.lower():
        raise Refused(f"-o {first.name} is no {path.suffix} file", f"name it {first.stem}{path.suffix}")
    if out is not None and out.exists() and out.samefile(path):
        raise Refused(f"-o {first} is the session itself, which is never written", "choose another name")
    files = [WholeFile(first, take.placed.after, take.provenance) for take in takes]
    written = write_all(files, target.rate_hz, target.subtype, replace=out is not None)
    names = tuple(take.shown for take in takes)
    return tuple(Landing(written[0], written, names) for _ in landings)


def _lost(path: Path) -> tuple[str, ...]:
    """What a WAV file tells beside its sound and a take's file, which is written anew, does not: one note, or none."""
    held = audiofile.unwritten(path)
    return (f"what {path.name} holds in {', '.join(held)} is not in the take's file",) if held else ()


def open_file(path: Path, tempo: TempoMap) -> AudioSession:
    """A bare file as a session.

    Raises Refused: missing, unreadable, compressed with loss, over two channels, a rate outside the limits.
    """
    info = audiofile.info(path)
    if info.subtype not in audiofile.EXACT:
        text = f"{path.name} holds {info.subtype}, which changes all of a file whenever it is written"
        raise Refused(text, "export it as 16 or 24 bit PCM, and use that file")
    if info.channels > limits.CHANNELS.high:
        text = f"{path.name} has {info.channels} channels, allowed is 1 to {limits.CHANNELS.high}"
        raise Refused(text, "make it stereo or mono first", "over_limit")
    limits.SESSION_RATE.check(info.rate_hz, f"resample {path.name} first")
    short = info.length_s < limits.SESSION_FILE.low
    hint = "choose a longer file" if short else f"cut the part of {path.name} out that you want to work on"
    limits.SESSION_FILE.check(info.length_s, hint)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return AudioSession(path, digest, tempo, info)
