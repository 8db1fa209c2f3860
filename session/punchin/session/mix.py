"""The unmuted tracks of a project together, as a rough mix: items, track volume and pan, no effects or sends."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from punchin.session.rpp_project import Project
from punchin.session.rpp_voices import Voice, Voices

Audio = NDArray[np.float32]


def mixdown(project: Project, rate_hz: int, start_s: float, end_s: float, tracks: Collection[str] = ()) -> Audio:
    """What sounds from `start_s` to `end_s`, [2, round((end_s - start_s) * rate_hz)].

    tracks: GUIDs of those to hear; empty is all that are not muted. Raises Refused for items that cannot be rendered
    faithfully. Pan is REAPER's balance at a pan law of 0 dB.
    """
    heard = [each for each in project.tracks if each.guid in tracks or (not tracks and not each.muted)]
    voices = Voices(project, tuple(Voice.after_fader(track) for track in heard))
    return voices.frames(rate_hz, start_s, 0, round((end_s - start_s) * rate_hz))
