"""A new fixed lane (REAPER 7) that plays a track with the take in it; the lanes that played before are left whole."""

from __future__ import annotations

from collections.abc import Sequence

from punchin.session.rpp import Document, Edits
from punchin.session.rpp import number as text_of
from punchin.session.rpp_project import Track
from punchin.session.rpp_split import copy_part, indent_of, only_touches, set_line


def add_lane(
    document: Document,
    track: Track,
    item: Sequence[str],
    start_s: float,
    end_s: float,
    frame_s: float,
    edits: Edits,
) -> None:
    """Put `item` (an ITEM's lines, from `start_s` to `end_s`) on a new last lane, the only one that plays then.

    The lane also gets copies of what plays before and after, so that it is the whole track by itself. The items that
    were there change in their height alone (YPOS), the track in its lane settings.
    """
    new = max(track.lanes, max((each.lane for each in track.items), default=0) + 1)
    height, words = 1 / (new + 1), ["0"] * 8  # 32 lanes a word
    words[new // 32] = str(1 << new % 32)
    indent = indent_of(document, track.chunk.first) + "  "
    _set(document, track, "FREEMODE", f"{indent}FREEMODE 2", edits)
    _set(document, track, "LANESOLO", f"{indent}LANESOLO {' '.join(words)}", edits)
    _set(document, track, "ITEMLANES", f"{indent}ITEMLANES {new + 1}", edits)
    for each in track.items:
        set_line(document, each, "YPOS", _ypos(each.lane, height), edits)
    copies: list[str] = []
    for each in track.sounding():
        beside = (each.start_s, min(start_s, each.end_s)), (max(end_s, each.start_s), each.end_s)
        whole = only_touches(each, start_s, end_s, frame_s)
        for low, high in [(each.start_s, each.end_s)] if whole else beside:
            if high > low:
                copies += copy_part(document, each, low, high, {"YPOS": _ypos(new, height)})
    own = [item[0], f"  {_ypos(new, height)}", *item[1:]]
    edits.insert(track.chunk.last, [*copies, *(indent + line for line in own)])


def in_playing_lane(track: Track, item: Sequence[str], start_s: float, end_s: float) -> list[str]:
    """An ITEM's lines in the lane of what it replaces between two project times, or in one that plays.

    As they are where the track has no lanes: an item that names none lies in the first, which may be silent.
    """
    if track.playing_lanes is None:
        return list(item)
    replaced = (each.lane for each in track.sounding() if each.start_s < end_s and each.end_s > start_s)
    playing = (lane for lane in track.playing_lanes if lane < track.lanes)
    lane = max(replaced, default=max(playing, default=0))  # the highest is masked by none
    return [item[0], f"  {_ypos(lane, 1 / max(track.lanes, lane + 1))}", *item[1:]]


def _ypos(lane: int, height: float) -> str:
    """Where a lane's items lie: top and height as parts of the track; the lane is round(top / height)."""
    return f"YPOS {text_of(lane * height)} {text_of(height)} 2"


def _set(document: Document, track: Track, key: str, text: str, edits: Edits) -> None:
    """A track's line: in the place of the one with this name, else after its first line."""
    for entry in track.chunk.entries:
        if isinstance(entry, int) and document.key(entry) == key.encode():
            edits.replace(entry, text)
            return
    edits.insert(track.chunk.first + 1, [text])
