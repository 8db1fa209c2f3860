"""Whether an edit can be heard: how far the spectrum jumps there, against how far this music jumps at its bar lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]

_WINDOW_S = 512 / 48_000
_HOP_S = 128 / 48_000
_COMPRESSION = 1000.0  # log(1 + 1000 |X|): what lies under -60 dBFS hardly counts, so silence is no music to jump from
_AFTER_S = 0.01  # an attack on the line is in full swing by then
_LEAST_FLUX = 1e-3  # under this the "jump" is numerical; it keeps the ratio finite
_PERCENTILE = 95.0
_FEWEST = 2  # places that sound; fewer are nothing to compare with


def flux(audio: Audio, rate_hz: int) -> NDArray[np.float64]:
    """Spectral flux over time, one value each 128/48000 s: how much the spectrum rises around that moment.

    audio: [channels, n] float32. The mean over frequencies of how much log(1 + 1000 |X|) rises within two hops, falls
    not counted: half-wave rectified flux (Dixon, "Onset detection revisited", DAFx 2006) of a compressed spectrum.
    """
    window, hop = _sizes(rate_hz)
    padded = np.pad(audio, ((0, 0), (window // 2, window)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)[:, ::hop]
    taper = np.hanning(window).astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(frames * taper, axis=2))).mean(axis=0)
    levels = np.log1p(_COMPRESSION * np.sqrt(power) / taper.sum() * 2)
    rise = np.maximum(levels[2:] - levels[:-2], 0.0).mean(axis=1)
    return np.pad(rise, (1, 1))  # the rise from i - 1 to i + 1 belongs to i


def jump(audio: Audio, rate_hz: int, first_frame: int, last_frame: int) -> float:
    """The largest flux from `first_frame` to 10 ms after `last_frame`. Only the sound near them is looked at."""
    window, hop = _sizes(rate_hz)
    low = max(first_frame - 2 * window, 0)
    high = min(last_frame + round(_AFTER_S * rate_hz) + 2 * window, audio.shape[1])
    if high <= low:
        return 0.0
    rises = flux(audio[:, low:high], rate_hz)
    begin, end = (first_frame - low) // hop, -(-(last_frame + round(_AFTER_S * rate_hz) - low) // hop) + 1
    return float(rises[max(begin, 0) : end].max(initial=0.0))


@dataclass(frozen=True, slots=True)
class Habit:
    """How far a piece of music jumps at its bar lines: `usual` is the 95th percentile of the flux there.

    Places are looked at over `width_frames` before them and 10 ms after; lines and edits alike.
    """

    usual: float
    width_frames: int

    def over_db(self, audio: Audio, rate_hz: int, at_frame: int) -> float:
        """How far `audio` jumps at a frame, in dB over the usual."""
        here = jump(audio, rate_hz, at_frame - self.width_frames, at_frame)
        return float(20 * np.log10(max(here, _LEAST_FLUX) / self.usual))

    def attacks_db(self, audio: Audio, rate_hz: int, onsets_frames: Iterable[int]) -> float | None:
        """The 95th percentile of how far `audio` jumps at its own onsets; None for fewer than four."""
        jumps = [self.over_db(audio, rate_hz, int(frame)) for frame in onsets_frames]
        return float(np.percentile(jumps, _PERCENTILE)) if len(jumps) >= 2 * _FEWEST else None


def habit(audio: Audio, rate_hz: int, lines_frames: Iterable[int], width_frames: int) -> Habit | None:
    """The habit of `audio`, [channels, n] float32, at these bar lines; None where fewer than two of them sound."""
    jumps = [jump(audio, rate_hz, line - width_frames, line) for line in lines_frames]
    sounding = [rise for rise in jumps if rise > _LEAST_FLUX]
    return Habit(float(np.percentile(sounding, _PERCENTILE)), width_frames) if len(sounding) >= _FEWEST else None


def _sizes(rate_hz: int) -> tuple[int, int]:
    return max(round(_WINDOW_S * rate_hz), 8), max(round(_HOP_S * rate_hz), 2)
