"""The unmuted tracks of a project together, as a rough mix: items, track volume and pan, no effects or sends."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from punchin.session.render import open_item
from punchin.session.rpp_project import Project, Track

Audio = NDArray[np.float32]


def mixdown(project: Project, rate_hz: int, start_s: float, end_s: float, tracks: Collection[str] = ()) -> Audio:
    """What sounds from `start_s` to `end_s`, [2, round((end_s - start_s) * rate_hz)], summed in float64.

    tracks: GUIDs of those to hear; empty is all that are not muted. Raises Refused for items that cannot be rendered
    faithfully. Pan is REAPER's balance at a pan law of 0 dB.
    """
    frames = round((end_s - start_s) * rate_hz)
    total = np.zeros((2, frames))
    for track in project.tracks:
        if track.guid in tracks or (not tracks and not track.muted):
            total += _track(project, track, rate_hz, start_s, frames)
    return total.astype(np.float32)


def _track(project: Project, track: Track, rate_hz: int, start_s: float, frames: int) -> NDArray[np.float64]:
    total, end_s = np.zeros((2, frames)), start_s + frames / rate_hz
    for item in track.sounding():
        if item.start_s < end_s and item.end_s > start_s:
            total += open_item(project, track, item).heard(rate_hz, start_s, 0, frames)
    volume, pan = _volume_and_pan(project, track)
    return total * np.array([[min(1.0, 1.0 - pan)], [min(1.0, 1.0 + pan)]]) * volume


def _volume_and_pan(project: Project, track: Track) -> tuple[float, float]:
    words = project.document.find(track.chunk, "VOLPAN") or ["VOLPAN", "1", "0"]
    return float(words[1]), float(words[2])
