"""Music from a prompt alone, brought onto the grid that was asked for: its tempo is measured, not believed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from punchin.protocol.limits import MODEL_HZ
from punchin.session import groove, onsets
from punchin.session.groove import Timing
from punchin.session.level import CEILING_DBTP
from punchin.session.loudness import rms_db, true_peak_db
from punchin.session.report import Report
from punchin.session.tempo import Grid, TempoMap
from punchin.session.verdict import SURE, faults
from punchin.session.warp import WORTH_IT, Warp, warp

Audio = NDArray[np.float32]

SPARE = 1.065  # asked for beyond the wanted length: a tempo is told up to 6 % off, and a late start is cut
NEARER = 0.75
LATE_MS = 2.0  # an earlier or later beat than this is moved
START_S, END_S = 0.001, 0.005  # fades at cuts, so that they do not click; the first beat keeps its attack


@dataclass(frozen=True, slots=True, eq=False)
class OnGrid:
    """A take in time, [channels, frames] at 48 kHz, and what was measured on it then."""

    audio: Audio
    report: Report


def on_grid(made: Audio, bpm: float, frames: int, window_s: float) -> OnGrid:
    """The take at `bpm`, its beats on the grid, `frames` long.

    made: [channels, n] at 48 kHz, n >= frames. Where the tempo is surely off it is stretched; where the beat is surely
    late or early, or nearly nothing plays on it, it is moved; where there are too few onsets to tell, neither. Past its
    end there is silence. Nothing says how loud it should be, so only what is over the ceiling is turned down. window_s:
    what the model made.
    """
    audio, timing = made, _timing(made, bpm)
    played = timing.ratio
    if timing.ratio is not None and abs(timing.ratio - 1) > max(WORTH_IT, SURE * timing.ratio_error):
        audio, timing = _if_nearer(_stretched(made, timing.ratio), bpm, audio, timing)
    warped = audio is not made
    late_beats = 0.0 if timing.ratio is None else _empty_beats(audio, bpm)
    if late_beats:
        audio = _moved(audio, late_beats * 60 / bpm)
        timing = _timing(audio, bpm)
    if timing.phase_ms is not None and abs(timing.phase_ms) > max(LATE_MS, SURE * timing.phase_error_ms):
        audio, timing = _if_nearer(_moved(audio, timing.phase_ms / 1000), bpm, audio, timing)
    cut, gain_db = _under_ceiling(_cut(audio, frames))
    now = _timing(cut, bpm)
    found = Report(
        length_error_samples=cut.shape[1] - frames,
        outside_max_abs_diff=None,
        fade_ms=None,
        seam_db=(None, None),
        onset_p95_ms=now.p95_ms,
        tempo_ratio=now.ratio,
        tempo_error=now.ratio_error,
        tempo_ratio_played=played,
        phase_ms=now.phase_ms,
        phase_error_ms=now.phase_error_ms,
        true_peak_dbfs=true_peak_db(cut, MODEL_HZ),
        gain_db=gain_db,
        silent=rms_db(cut) is None,
        resampled=False,
        warped=warped,
        window_s=window_s,
        ok=True,
    )
    failed = faults(found)
    return OnGrid(cut, replace(found, failed=failed, ok=not failed))


def _under_ceiling(audio: Audio) -> tuple[Audio, float]:
    """The sound with its true peak at the ceiling at most, and the gain that took, in dB."""
    peak = true_peak_db(audio, MODEL_HZ)
    gain_db = 0.0 if peak is None else min(CEILING_DBTP - peak, 0.0)
    return (audio * np.float32(10 ** (gain_db / 20)), gain_db) if gain_db else (audio, 0.0)


def _empty_beats(audio: Audio, bpm: float) -> float:
    return groove.empty_beats(onsets.find(audio, MODEL_HZ), MODEL_HZ, _grid(audio, bpm), 0.0)


def _timing(audio: Audio, bpm: float) -> Timing:
    return groove.timing(onsets.find(audio, MODEL_HZ), MODEL_HZ, _grid(audio, bpm), 0.0)


def _grid(audio: Audio, bpm: float) -> Grid:
    return TempoMap.at_bpm(bpm).grid(0.0, audio.shape[1] / MODEL_HZ)


def _if_nearer(changed: Audio, bpm: float, audio: Audio, before: Timing) -> tuple[Audio, Timing]:
    """The changed sound if its onsets lie nearer to the grid; those of noise lie anywhere, whatever is done to it."""
    after = _timing(changed, bpm)
    nearer = after.p95_ms is not None and before.p95_ms is not None and after.p95_ms < NEARER * before.p95_ms
    return (changed, after) if nearer else (audio, before)


def _moved(audio: Audio, late_s: float) -> Audio:
    """A take that is so late, in time. What is cut in the middle of a sound fades in."""
    late = round(late_s * MODEL_HZ)
    return _faded(audio[:, late:], START_S) if late >= 0 else np.pad(audio, ((0, 0), (-late, 0)))


def _faded(audio: Audio, fade_s: float) -> Audio:
    """The sound with a fade at its start."""
    out, fade = audio.copy(), min(round(fade_s * MODEL_HZ), audio.shape[1])
    out[:, :fade] *= np.linspace(0.0, 1.0, fade, dtype=np.float32)
    return out


def _stretched(audio: Audio, ratio: float) -> Audio:
    """A take that is `ratio` times too fast, as long as it should have been."""
    seconds = audio.shape[1] / MODEL_HZ
    return warp(audio, MODEL_HZ, Warp(np.array([0.0, seconds]), np.array([0.0, seconds * ratio])))


def _cut(audio: Audio, frames: int) -> Audio:
    missing = frames - audio.shape[1]
    if not missing:
        return audio
    cut = _faded(audio[:, frames - 1 :: -1] if missing < 0 else audio[:, ::-1], END_S)[:, ::-1]
    return np.pad(cut, ((0, 0), (0, max(missing, 0))))
