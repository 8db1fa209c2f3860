"""Where sounds begin: attacks found in the spectrum, then placed in the waveform to the millisecond."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]
Floats = NDArray[np.float64]

_WINDOW_S = 1024 / 48_000
_HOP_S = 256 / 48_000
_BLOCK_HOPS = 1024  # spectra at once: all of them take 10 MB a second of sound
_BACK_HOPS = 7  # a level must exceed its highest of the last 10 to 37 ms: beating and noise come back, attacks are new
_BANDS = 40  # half-octave-ish bands from 60 Hz to 16 kHz: single bins of noise rise and fall by themselves
_EDGE_S = 0.012
_APART_S = 0.03  # two attacks nearer than this are one (a flam)
_MEDIAN_S = 0.5  # around each moment, the flux that this music has anyway
_OVER_MEDIAN = 1.6
_LEAST_RISE = 0.07  # mean rise of log level over the bands, nepers: 0.8 dB in every band, or 8 dB in a tenth of them
_ACTIVE_DB = -52.0  # below the sound's own loudest moment: nothing starts there that anyone hears
_FINE_S = 0.0005
_SEARCH_S = 0.018  # around the spectrum's peak
_BEGIN = 0.15  # an attack begins where the waveform first has this part of its first peak


@dataclass(frozen=True, slots=True, eq=False)
class Onsets:
    """The attacks in a sound. frames: [N] rising, where each begins. strength: [N], rise of log level, above 0."""

    frames: NDArray[np.int64]
    strength: Floats

    def within(self, start_frame: int, end_frame: int) -> Onsets:
        """Those in [start_frame, end_frame), still counted from the same frame 0."""
        inside = (self.frames >= start_frame) & (self.frames < end_frame)
        return Onsets(self.frames[inside], self.strength[inside])


def find(audio: Audio, rate_hz: int) -> Onsets:
    """The attacks in `audio`, [channels, n] float32; none in silence, none within 12 ms of its ends, where it is cut.

    A peak of the half-wave rectified log-band flux (Boeck, Krebs, Schedl, "Evaluating the online capabilities of onset
    detection methods", ISMIR 2012, with 40 bands) over 1.6 times its median within half a second. Its place is then
    taken from the waveform: the steepest rise of level near the peak, and there the attack's first part.
    """
    rises, hop = _band_flux(audio, rate_hz)
    peaks = _peaks(rises, hop / rate_hz)
    if not len(peaks):
        return Onsets(np.zeros(0, np.int64), np.zeros(0))
    energy = _edge_energy(audio)
    frames = np.array([_place(energy, int(peak * hop), rate_hz) for peak in peaks], dtype=np.int64)
    strength = rises[peaks]
    keep = _strongest(frames, strength, _APART_S / 2 * rate_hz)
    keep &= (frames > _EDGE_S * rate_hz) & (frames < audio.shape[1] - _EDGE_S * rate_hz)
    return Onsets(frames[keep], strength[keep])


def _strongest(frames: NDArray[np.int64], strength: Floats, apart_frames: float) -> NDArray[np.bool_]:
    """Which attacks stay where some lie no further apart than that: the stronger of two, the first of equals."""
    keep = np.ones(len(frames), dtype=bool)
    last = 0
    for i in range(1, len(frames)):
        if frames[i] - frames[last] <= apart_frames:
            weaker = i if strength[i] <= strength[last] else last
            keep[weaker] = False
            if weaker == i:
                continue
        last = i
    return keep


def _band_flux(audio: Audio, rate_hz: int) -> tuple[Floats, int]:
    """Mean rise of log level over the bands against two hops before, per hop; and the hop in frames."""
    window, hop = 2 ** round(np.log2(_WINDOW_S * rate_hz)), max(round(_HOP_S * rate_hz), 1)
    edge = window // 2 + _BACK_HOPS * hop
    if audio.shape[1] <= edge:
        return np.zeros(0), hop
    padded = np.pad(audio[:2], ((0, 0), (edge, edge)), mode="reflect", reflect_type="odd")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)[:, ::hop]
    edges = np.geomspace(60, min(16_000, rate_hz / 2), _BANDS + 1) / rate_hz * window
    edges = np.unique(np.maximum(np.round(edges), 1).astype(int))
    pieces = (frames[:, at : at + _BLOCK_HOPS] for at in range(0, frames.shape[1], _BLOCK_HOPS))
    bands = np.concatenate([_bands(piece, edges) for piece in pieces])
    floor = bands.max(initial=0.0) * 10 ** (_ACTIVE_DB / 10) + 1e-12
    levels = np.log(bands + floor) / 2
    recent = np.lib.stride_tricks.sliding_window_view(levels, _BACK_HOPS - 1, axis=0).max(axis=2)
    return np.maximum(levels[_BACK_HOPS:] - recent[: len(levels) - _BACK_HOPS], 0.0).mean(axis=1), hop


def _bands(frames: NDArray[np.float32], edges: NDArray[np.int64]) -> NDArray[np.float32]:
    """Power in each band, [hops, bands], the mean over channels. frames: [channels, hops, window]."""
    spectra = np.fft.rfft(frames * np.hanning(frames.shape[2]).astype(np.float32), axis=2)
    return np.add.reduceat(np.square(np.abs(spectra)).mean(axis=0), edges[:-1], axis=1)


def _peaks(rises: Floats, hop_s: float) -> NDArray[np.int64]:
    """Indices of local maxima that stand out."""
    if not len(rises):
        return np.zeros(0, np.int64)
    near, wide = max(round(_APART_S / hop_s / 2), 1), round(_MEDIAN_S / hop_s)
    highest = np.lib.stride_tricks.sliding_window_view(np.pad(rises, near), 2 * near + 1).max(axis=1)
    every = max(wide // 8, 1)
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(rises, wide, mode="reflect" if len(rises) > wide else "edge"), 2 * wide + 1
    )
    median = np.repeat(np.median(around[::every], axis=1), every)[: len(rises)]
    return np.flatnonzero((rises == highest) & (rises > _OVER_MEDIAN * median) & (rises > _LEAST_RISE))


def _edge_energy(audio: Audio) -> Floats:
    """Power of the waveform's slope, over all channels: an attack stands out there even over a loud bass."""
    slope = np.diff(audio, axis=1, prepend=audio[:, :1])
    return np.square(slope, dtype=np.float64).sum(axis=0)


def _place(energy: Floats, near_frame: int, rate_hz: int) -> int:
    """The frame at which the attack near `near_frame` begins."""
    step = max(round(_FINE_S * rate_hz), 1)
    before, after = round(0.01 * rate_hz), round(0.005 * rate_hz)
    first, last = near_frame - round(_SEARCH_S * rate_hz), near_frame + round(_SEARCH_S * rate_hz)
    low, high = max(first - before, 0), min(last + after, len(energy))
    sums = np.concatenate([[0.0], np.cumsum(energy[low:high])])
    at = np.arange(max(first, low), min(last, high - after), step) - low
    if not len(at):
        return min(max(near_frame, 0), len(energy) - 1)
    floor = energy[low:high].max() * 1e-6 + 1e-18
    ahead = (sums[at + after] - sums[at]) / after
    behind = (sums[at] - sums[np.maximum(at - before, 0)]) / before
    steepest = int(at[np.argmax(np.log((ahead + floor) / (behind + floor)) * np.sqrt(ahead))]) + low
    span = energy[steepest : steepest + after]
    return steepest + int(np.argmax(span >= _BEGIN**2 * span.max())) if len(span) else steepest
