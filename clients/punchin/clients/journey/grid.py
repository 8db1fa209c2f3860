"""Music from a prompt alone, brought onto the grid that was asked for: its tempo is measured, not believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from punchin.clients.journey.plan import FilePlan
from punchin.protocol import limits
from punchin.protocol.limits import MODEL_HZ
from punchin.protocol.order import Order
from punchin.session import groove, onsets
from punchin.session.groove import Timing
from punchin.session.loudness import true_peak_db
from punchin.session.tempo import TempoMap
from punchin.session.warp import WORTH_IT, Warp, warp

Audio = NDArray[np.float32]

SPARE = 1.065  # asked for beyond the wanted length: a tempo is told up to 6 % off, and a late start is cut
SURE = 2.0  # standard errors: what may be chance is left alone
NEARER = 0.75
LATE_MS = 2.0  # an earlier or later beat than this is moved
END_S = 0.005  # the fade at the cut, so that it does not click


@dataclass(frozen=True, slots=True, eq=False)
class OnGrid:
    """A take in time: [channels, frames] at 48 kHz, what was measured on it then, and whether it was stretched.

    played: its tempo over the asked one as the model played it, None where that cannot be told.
    """

    audio: Audio
    timing: Timing
    warped: bool
    played: float | None

    def report(self, order: Order, plan: FilePlan) -> dict[str, Any]:
        """The report's keys; what does not apply without a session is None."""
        error = self.audio.shape[1] - plan.frames
        ratio = self.timing.ratio
        slope = 0.0 if ratio is None else 100 * max(abs(ratio - 1) - SURE * self.timing.ratio_error, 0.0)
        limit = limits.TAKE_TEMPO
        failed = [] if slope <= limit.high else [f"{limit.name} is {slope:.3g} %, allowed is at most {limit.high:g}"]
        return {
            "length_error_samples": error,
            "outside_max_abs_diff": None,
            "fade_ms": None,
            "seam_db": [None, None],
            "onset_p95_ms": self.timing.p95_ms,
            "tempo_ratio": ratio,
            "tempo_ratio_played": self.played,
            "phase_ms": self.timing.phase_ms,
            "lufs_delta": None,
            "true_peak_dbfs": true_peak_db(self.audio, MODEL_HZ),
            "resampled": False,
            "warped": self.warped,
            "window_s": order.frames / MODEL_HZ,
            "ok": error == 0 and not failed,
            "failed": failed,
        }


def on_grid(made: Audio, bpm: float, frames: int) -> OnGrid:
    """The take at `bpm`, its beats on the grid, `frames` long.

    made: [channels, n] at 48 kHz, n >= frames. Where the tempo is surely off it is stretched, where the beat is surely
    late or early it is moved; where there are too few onsets to tell, neither. Past its end there is silence.
    """
    audio, timing = made, _timing(made, bpm)
    played = timing.ratio
    if timing.ratio is not None and abs(timing.ratio - 1) > max(WORTH_IT, SURE * timing.ratio_error):
        audio, timing = _if_nearer(_stretched(made, timing.ratio), bpm, audio, timing)
    warped = audio is not made
    if timing.phase_ms is not None and abs(timing.phase_ms) > max(LATE_MS, SURE * timing.phase_error_ms):
        late = round(timing.phase_ms * MODEL_HZ / 1000)
        moved = audio[:, late:] if late >= 0 else np.pad(audio, ((0, 0), (-late, 0)))
        audio, timing = _if_nearer(moved, bpm, audio, timing)
    cut = _cut(audio, frames)
    return OnGrid(cut, _timing(cut, bpm), warped, played)


def _timing(audio: Audio, bpm: float) -> Timing:
    seconds = audio.shape[1] / MODEL_HZ
    return groove.timing(onsets.find(audio, MODEL_HZ), MODEL_HZ, TempoMap.at_bpm(bpm).grid(0.0, seconds), 0.0)


def _if_nearer(changed: Audio, bpm: float, audio: Audio, before: Timing) -> tuple[Audio, Timing]:
    """The changed sound if its onsets lie nearer to the grid; those of noise lie anywhere, whatever is done to it."""
    after = _timing(changed, bpm)
    nearer = after.p95_ms is not None and before.p95_ms is not None and after.p95_ms < NEARER * before.p95_ms
    return (changed, after) if nearer else (audio, before)


def _stretched(audio: Audio, ratio: float) -> Audio:
    """A take that is `ratio` times too fast, as long as it should have been."""
    seconds = audio.shape[1] / MODEL_HZ
    return warp(audio, MODEL_HZ, Warp(np.array([0.0, seconds]), np.array([0.0, seconds * ratio])))


def _cut(audio: Audio, frames: int) -> Audio:
    missing = frames - audio.shape[1]
    if missing >= 0:
        return np.pad(audio, ((0, 0), (0, missing)))
    out, fade = audio[:, :frames].copy(), min(round(END_S * MODEL_HZ), frames)
    out[:, frames - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return out
