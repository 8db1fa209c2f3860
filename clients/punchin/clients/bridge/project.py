"""A request as REAPER project text: what the DAW plays becomes a session that the journey reads like any other.

So a live project and a saved one are rendered, spliced and landed by the same code.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

from punchin.clients.bridge.request import Fade, Item, RegionRequest, Signature, Tempo, Track
from punchin.session.rpp import number, quote

KINDS: Final = {
    ".flac": "FLAC", ".mp3": "MP3", ".ogg": "VORBIS", ".opus": "OPUS", ".wv": "WAVPACK", ".aif": "AIFF",
    ".aiff": "AIFF",
}  # fmt: skip
SAME_QN: Final = 1e-6  # a bar line this near a grid point is that point: the DAW computes both, each its own way
HOLD: Final = 1  # a tempo point's shape: steps, so that time is linear in beats between two points


def project_text(request: RegionRequest) -> str:
    """The project as text, LF lines. Times, gains and paths are the request's own; nothing is rounded."""
    project = request.project
    lines = [
        '<REAPER_PROJECT 0.1 "7.0/punchin" 0',
        f"  RECORD_PATH {quote(project.media_folder)} {quote('')}",
        f"  SAMPLERATE {project.rate_hz} 1 0",
        f"  PROJOFFS 0 {request.tempo.first_bar - 1} 0",
        *(f"  {line}" for line in _tempo(request.tempo)),
    ]
    end_s = max(region.end_s for region in request.regions)
    for n, track in enumerate(request.tracks):
        lines += [f"  {line}" for line in _track(track, [] if n else _nothing_until(end_s))]
    return "\n".join([*lines, ">", ""])


def _nothing_until(end_s: float) -> list[str]:
    """An item without a source: a project is as long as its items, and a selection may end after the last one sent."""
    return ["<ITEM", "  POSITION 0", f"  LENGTH {number(end_s)}", ">"]


def _tempo(tempo: Tempo) -> list[str]:
    """One stepped tempo point a grid point, and one a signature: both hold exactly what the DAW said."""
    first = tempo.signatures[0]
    points: dict[float, float] = dict(zip(tempo.qn, tempo.seconds, strict=True))
    signatures: dict[float, Signature] = {}
    for signature in tempo.signatures:
        i = bisect_right(tempo.qn, signature.qn)
        near = min(tempo.qn[max(i - 1, 0) : i + 1], key=lambda qn, at=signature.qn: abs(qn - at))
        qn = near if abs(near - signature.qn) < SAME_QN else signature.qn
        signatures[qn] = signature
        points.setdefault(qn, _seconds(tempo, qn))
    beats = sorted(points)
    lines = []
    for i, qn in enumerate(beats):
        later = beats[i + 1] if i + 1 < len(beats) else None
        before = qn if later is not None else beats[i - 1]
        after = later if later is not None else qn
        bpm = 60 * (after - before) / (points[after] - points[before])
        lines.append(f"  PT {number(points[qn])} {number(bpm)} {HOLD}{_signature(signatures.get(qn))}")
    bpm = 60 * (beats[1] - beats[0]) / (points[beats[1]] - points[beats[0]])
    head = f"TEMPO {number(bpm)} {first.numerator} {first.denominator}"
    return [head, "<TEMPOENVEX", *lines, ">"]


def _signature(signature: Signature | None) -> str:
    return "" if signature is None else f" {signature.denominator * 65_536 + signature.numerator} 0 1"


def _seconds(tempo: Tempo, qn: float) -> float:
    """The time of a beat between the grid's points, or on beyond the last one."""
    i = min(max(bisect_right(tempo.qn, qn) - 1, 0), len(tempo.qn) - 2)
    (q0, q1), (s0, s1) = tempo.qn[i : i + 2], tempo.seconds[i : i + 2]
    return s0 + (qn - q0) * (s1 - s0) / (q1 - q0)


def _track(track: Track, more: Sequence[str]) -> list[str]:
    lines = [
        f"<TRACK {track.guid}",
        f"  NAME {quote(track.name)}",
        f"  VOLPAN {number(track.volume)} {number(track.pan)} -1 -1 1",
        f"  TRACKID {track.guid}",
    ]
    for item in track.items:
        lines += [f"  {line}" for line in _item(item)]
    lines += [f"  {line}" for line in more]
    return [*lines, ">"]


def _item(item: Item) -> list[str]:
    take = item.take
    return [
        "<ITEM",
        f"  POSITION {number(item.position_s)}",
        f"  LENGTH {number(item.length_s)}",
        f"  LOOP {int(item.loops)}",
        f"  FADEIN {_fade(item.fade_in)}",
        f"  FADEOUT {_fade(item.fade_out)}",
        "  MUTE 0 0",
        f"  IGUID {item.guid}",
        f"  NAME {quote(take.name)}",
        f"  VOLPAN {number(item.volume)} {number(take.pan)} {number(take.volume)} {number(take.pan_law)}",
        f"  SOFFS {number(item.source.offset_s)}",
        "  PLAYRATE 1 1 0 -1 0 0.0025",
        f"  CHANMODE {int(take.channel_mode)}",
        f"  GUID {take.guid}",
        f"  <SOURCE {KINDS.get(PurePath(item.source.path).suffix.lower(), 'WAVE')}",
        f"    FILE {quote(item.source.path)}",
        "  >",
        ">",
    ]


def _fade(fade: Fade) -> str:
    return f"{int(fade.shape)} {number(fade.length_s)} {number(fade.auto_s)} {int(fade.shape)} 0 {number(fade.curve)}"
