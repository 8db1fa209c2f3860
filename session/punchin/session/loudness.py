"""How loud a sound is, and how high its peaks reach between the samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]

SHORTEST_LUFS_S = 0.4  # one block of BS.1770; anything shorter is measured by RMS
_PAD_FRAMES = 256  # more than the oversampling filter hears
SILENT_DB = -70.0  # BS.1770's absolute gate; RMS under it counts as silence too


def loudness_db(audio: Audio, rate_hz: int, frames: int | None = None) -> float | None:
    """Integrated loudness in LUFS (BS.1770-4), or RMS in dBFS where the sound is too short. None is silence.

    audio: [channels, n] float32, one or two channels. frames: the length that decides between the two measures when
    several sounds are to be compared (the shortest one's).
    """
    shortest = min(audio.shape[1], audio.shape[1] if frames is None else frames)
    if shortest < SHORTEST_LUFS_S * rate_hz:
        return rms_db(audio)
    import warnings

    import pyloudnorm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it takes the logarithm of silent blocks before it gates them
        loudness = float(pyloudnorm.Meter(rate_hz).integrated_loudness(audio.T.astype(np.float64)))
    return loudness if loudness > SILENT_DB else None


def rms_db(audio: Audio) -> float | None:
    """RMS over all channels in dBFS. None is silence (or no frames)."""
    power = float(np.mean(np.square(audio, dtype=np.float64))) if audio.size else 0.0
    level = 10 * np.log10(power) if power > 0 else -np.inf
    return float(level) if level > SILENT_DB else None


def true_peak_db(audio: Audio, rate_hz: int) -> float | None:
    """The highest peak of the waveform in dBTP: oversampled until 160 kHz at least, as BS.1770-4 Annex 2 asks (4 x 48).

    audio: [channels, n] float32. None when every sample is 0. Beyond its ends a sound is taken to hold their level:
    silence there would make a peak of the cut itself.
    """
    import soxr

    peak = float(np.abs(audio).max(initial=0.0))
    if peak == 0.0:
        return None
    factor = 4 if rate_hz < 80_000 else 2 if rate_hz < 160_000 else 1
    if factor > 1:
        longer = np.pad(audio, ((0, 0), (_PAD_FRAMES, _PAD_FRAMES)), mode="edge")
        dense = soxr.resample(np.ascontiguousarray(longer.T), rate_hz, factor * rate_hz, quality="HQ")
        peak = max(peak, float(np.abs(dense[factor * _PAD_FRAMES : -factor * _PAD_FRAMES]).max()))
    return float(20 * np.log10(peak))
