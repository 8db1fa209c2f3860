"""Whether an edit can be heard: how far the spectrum jumps there, against how far this music jumps at its bar lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]

_WINDOW_S = 512 / 48_000
_HOP_S = 128 / 48_000
_COMPRESSION = 1000.0  # log(1 + 1000 |X|): what lies under -60 dBFS hardly counts, so silence is no music to jump from
_AFTER_S = 0.01  # an attack on the line is in full swing by then
_LEAST_FLUX = 1e-3  # under this the "jump" is numerical; it keeps the ratio finite
_PERCENTILE = 95.0


def flux(audio: Audio, rate_hz: int) -> tuple[NDArray[np.float64], float]:
    """Spectral flux over time and its hop in seconds: value i is the rise of the spectrum around second i * hop.

    The mean over frequencies of how much log(1 + 1000 |X|) rises within two hops, falls not counted (the half-wave
    rectified flux of Dixon, "Onset detection revisited", DAFx 2006, on a compressed spectrum).
    """
    window, hop = max(round(_WINDOW_S * rate_hz), 8), max(round(_HOP_S * rate_hz), 2)
    if audio.shape[1] == 0:
        return np.zeros(0), hop / rate_hz
    padded = np.pad(audio, ((0, 0), (window // 2, window)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)[:, ::hop]
    taper = np.hanning(window).astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(frames * taper, axis=2))).mean(axis=0)
    levels = np.log1p(_COMPRESSION * np.sqrt(power) / taper.sum() * 2)
    rise = np.maximum(levels[2:] - levels[:-2], 0.0).mean(axis=1)
    return np.pad(rise, (1, 1)), hop / rate_hz  # the rise from i - 1 to i + 1 belongs to i


def seam_db(
    audio: Audio, rate_hz: int, edges: Sequence[tuple[int, int]], context_lines: Sequence[int]
) -> list[float | None]:
    """For each edit the flux at it, in dB over the 95th percentile of the flux at the context's bar lines.

    audio: [channels, n] float32. edges: (first, last) frames of each join: a fade's start and its edge. context_lines:
    frames of the bar lines outside the region. Each place is looked at over the same width, the widest join's, until
    10 ms after the line. None where fewer than two bar lines sound: there is nothing to compare with.
    """
    jumps, hop_s = flux(audio, rate_hz)
    width = max((last - first for first, last in edges), default=0)

    def at(first: int, last: int) -> float:
        low, high = round(first / rate_hz / hop_s) - 1, round((last / rate_hz + _AFTER_S) / hop_s) + 1
        return float(jumps[max(low, 0) : max(high, 0)].max(initial=0.0))

    usual = [jump for jump in (at(line - width, line) for line in context_lines) if jump > _LEAST_FLUX]
    if len(usual) < 2:
        return [None for _ in edges]
    reference = float(np.percentile(usual, _PERCENTILE))
    return [float(20 * np.log10(max(at(last - width, last), _LEAST_FLUX) / reference)) for _, last in edges]
