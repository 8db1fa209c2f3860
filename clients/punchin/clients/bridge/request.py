"""What a DAW's script asks for, as it stands in `inbox/ID.json`. Decoding checks types and bounds."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from punchin.protocol import limits
from punchin.protocol.errors import Refused

VERSION = 2
MOST_TRACKS, MOST_ITEMS, MOST_POINTS = 1_000, 10_000, 200_000
_UPDATE = "update the scripts: punchin install reaper, for a portable REAPER with --resource-path FOLDER"

Name = Annotated[str, Meta(max_length=1_000)]
Path = Annotated[str, Meta(min_length=1, max_length=4_096)]
Guid = Annotated[str, Meta(pattern=r"^\{[0-9A-Fa-f-]{36}\}$")]
RequestId = Annotated[str, Meta(pattern="^[0-9]{8}-[0-9]{6}-[0-9A-F]{8}$")]
Instance = Annotated[str, Meta(pattern="^[0-9A-Z]{8,32}$")]
Number = Annotated[float, Meta(ge=-1e9, le=1e9)]
Land = Literal["take", "split", "lane", "track"]


class Fade(Struct, frozen=True):
    """An item's fade. `auto_s` is the length of an automatic crossfade, 0 for none; it goes before `length_s`."""

    length_s: Number = 0.0
    auto_s: Number = 0.0
    shape: Number = 0.0
    curve: Number = 0.0


class Source(Struct, frozen=True):
    """Where an item's samples are: the file, and where in it the item begins."""

    path: Path
    offset_s: Number = 0.0


class Take(Struct, frozen=True):
    """The take that is heard."""

    guid: Guid
    name: Name = ""
    volume: Number = 1.0
    pan: Number = 0.0
    pan_law: Number = -1.0
    channel_mode: Number = 0.0


class Item(Struct, frozen=True):
    """One sounding item, at playrate 1."""

    guid: Guid
    position_s: Number
    length_s: Number
    take: Take
    source: Source
    volume: Number = 1.0
    loops: bool = False
    fade_in: Fade = Fade()
    fade_out: Fade = Fade()


class Track(Struct, frozen=True):
    """One track with the items that sound around the region."""

    guid: Guid
    items: Annotated[tuple[Item, ...], Meta(max_length=MOST_ITEMS)]
    name: Name = ""
    volume: Number = 1.0
    pan: Number = 0.0


class Signature(Struct, frozen=True):
    """From this quarter note on."""

    qn: Number
    numerator: Annotated[int, Meta(ge=1, le=255)]
    denominator: Annotated[int, Meta(ge=1, le=limits.MAX_DENOMINATOR)]


class Tempo(Struct, frozen=True):
    """The beat grid: quarter notes and the project time of each, linear between; and where signatures change.

    first_bar: the ruler's number of the bar at the project's start.
    """

    qn: Annotated[tuple[Number, ...], Meta(min_length=2, max_length=MOST_POINTS)]
    seconds: Annotated[tuple[Number, ...], Meta(min_length=2, max_length=MOST_POINTS)]
    signatures: Annotated[tuple[Signature, ...], Meta(min_length=1, max_length=MOST_POINTS)]
    first_bar: Annotated[int, Meta(ge=-100_000, le=100_000)] = 1

    def __post_init__(self) -> None:
        if len(self.qn) != len(self.seconds):
            raise Refused(f"the tempo has {len(self.qn)} beats and {len(self.seconds)} times")
        for points in (self.qn, self.seconds):
            if any(b <= a for a, b in pairwise(points)):
                raise Refused("the tempo's points do not rise")


class Project(Struct, frozen=True):
    """The DAW's project. media_folder: where takes go; it exists."""

    media_folder: Path
    rate_hz: Annotated[int, Meta(ge=8_000, le=192_000)]
    path: Annotated[str, Meta(max_length=4_096)] = ""


class Region(Struct, frozen=True):
    """Project time on one track, the target: its GUID."""

    start_s: Annotated[float, Meta(ge=0, le=1e6)]
    end_s: Annotated[float, Meta(ge=0, le=1e6)]
    target: Guid

    def __post_init__(self) -> None:
        limits.REGION.check(self.end_s - self.start_s)


class Params(Struct, frozen=True):
    """The dialog's words. What is empty or missing is the preset's, or the default of the command line."""

    seed: Annotated[int, Meta(ge=0, lt=2**32)]
    prompt: Annotated[str, Meta(max_length=limits.PROMPT_CHARS)] = ""
    lyrics: Annotated[str, Meta(max_length=limits.LYRICS_CHARS)] = ""
    key: Annotated[str, Meta(max_length=40)] = ""
    strength: Annotated[float, Meta(ge=0, le=1)] | None = None
    variations: Annotated[int, Meta(ge=1, le=limits.MAX_SEEDS)] | None = None
    context: Annotated[str, Meta(pattern="^(auto|whole|[0-9]{1,4})$")] = "auto"
    model: Annotated[str, Meta(max_length=100)] = ""
    preset: Annotated[str, Meta(max_length=100)] = ""
    instrument: Annotated[str, Meta(max_length=200)] = ""


class Base(Struct, frozen=True, kw_only=True, tag_field="action"):
    """Every request: its id, and the run of the DAW that asked and reads the answer."""

    id: RequestId
    instance: Instance
    v: Literal[2] = VERSION


class RegionRequest(Base, frozen=True, kw_only=True):
    """Takes of one or several regions: one job. tracks: all that is heard, the regions' own among them."""

    project: Project
    regions: Annotated[tuple[Region, ...], Meta(min_length=1, max_length=limits.MAX_REGIONS)]
    tempo: Tempo
    tracks: Annotated[tuple[Track, ...], Meta(min_length=1, max_length=MOST_TRACKS)]
    params: Params
    land: Land = "take"

    def __post_init__(self) -> None:
        tracks = {track.guid for track in self.tracks}
        for region in self.regions:
            if region.target not in tracks:
                raise Refused(f"the target {region.target} is none of the request's tracks")


class Repaint(RegionRequest, frozen=True, kw_only=True, tag="repaint"):
    """The region anew, its surroundings heard."""


class Cover(RegionRequest, frozen=True, kw_only=True, tag="cover"):
    """The region in another style."""


class Layer(RegionRequest, frozen=True, kw_only=True, tag="layer"):
    """Another instrument to what is heard."""


class Extract(RegionRequest, frozen=True, kw_only=True, tag="extract"):
    """One instrument out of what is heard."""


class Collect(Base, frozen=True, kw_only=True, tag="collect"):
    """Tell the answers of earlier jobs again, to this run of the DAW."""

    jobs: Annotated[tuple[RequestId, ...], Meta(max_length=1_000)]


class Free(Base, frozen=True, kw_only=True, tag="free"):
    """Give the GPU's memory back."""


Request = Repaint | Cover | Layer | Extract | Collect | Free


def decode(data: bytes) -> Request:
    """A request. Raises Refused with what is wrong, and OverLimit."""
    try:
        return msgspec.json.decode(data, type=Request)
    except UnicodeDecodeError as error:  # what a file is called on a disk need not be text
        name = error.object.decode(errors="replace")
        raise Refused(f'the name "{name}" is not UTF-8', "rename it, then try again") from None
    except RecursionError:
        raise Refused("the request cannot be read: it is nested too deep", _UPDATE) from None
    except msgspec.MsgspecError as error:
        raise Refused(f"the request cannot be read: {error}", _UPDATE) from None
