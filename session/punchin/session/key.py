"""The key a sound is in, as far as it is in one, and how far two keys lie apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]

_NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
# Krumhansl and Kessler, "Tracing the dynamic changes in perceived tonal organization", Psych. Review 89 (1982).
_MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
_MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
_LOW_HZ, _HIGH_HZ = 55.0, 2000.0
_WINDOW_S = 0.17
_SURE = 0.6  # correlation with the profile; under it there is no key to speak of


@dataclass(frozen=True, slots=True)
class Key:
    """A key: tonic in semitones above C, and its mode."""

    tonic: int
    minor: bool

    def __str__(self) -> str:
        return f"{_NAMES[self.tonic]} {'minor' if self.minor else 'major'}"

    def distance(self, other: Key) -> int:
        """Steps on the circle of fifths between the two signatures, 0 to 6. A minor is as near to C major as can be."""
        apart = 7 * (self._major_tonic - other._major_tonic) % 12
        return min(apart, 12 - apart)

    @property
    def _major_tonic(self) -> int:
        return (self.tonic + 3) % 12 if self.minor else self.tonic


def key_of(audio: Audio, rate_hz: int) -> Key | None:
    """The best of the 24 keys for the pitch classes in `audio`, [channels, n] float32; None where none fits well."""
    classes = _pitch_classes(audio, rate_hz)
    if not classes.any() or np.ptp(classes) == 0:
        return None
    fits = {
        Key(tonic, minor): float(np.corrcoef(np.roll(profile, tonic), classes)[0, 1])
        for tonic in range(12)
        for minor, profile in ((False, _MAJOR), (True, _MINOR))
    }
    best = max(fits, key=lambda key: fits[key])
    return best if fits[best] >= _SURE else None


def _pitch_classes(audio: Audio, rate_hz: int) -> NDArray[np.float64]:
    """How much of each of the 12 classes sounds, from the spectrum's peaks between 55 Hz and 2 kHz."""
    window = 2 ** round(np.log2(_WINDOW_S * rate_hz))
    mono = audio.mean(axis=0)
    if len(mono) < window:
        mono = np.pad(mono, (0, window - len(mono)))
    frames = np.lib.stride_tricks.sliding_window_view(mono, window)[:: window // 2]
    spectra = np.abs(np.fft.rfft(frames * np.hanning(window).astype(np.float32), axis=1))
    hz = np.fft.rfftfreq(window, 1 / rate_hz)
    peak = np.zeros(spectra.shape, bool)
    peak[:, 1:-1] = (spectra[:, 1:-1] > spectra[:, :-2]) & (spectra[:, 1:-1] >= spectra[:, 2:])
    peak[:, (hz < _LOW_HZ) | (hz > _HIGH_HZ)] = False
    rows, bins = np.nonzero(peak)
    if not len(rows):
        return np.zeros(12)
    left, here, right = (np.log(spectra[rows, bins + d] + 1e-12) for d in (-1, 0, 1))
    curve = left - 2 * here + right
    shift = np.divide(0.5 * (left - right), curve, out=np.zeros_like(curve), where=curve < 0)
    exact_hz = (bins + np.clip(shift, -0.5, 0.5)) * rate_hz / window
    classes = np.round(12 * np.log2(exact_hz / 440.0) + 9).astype(int) % 12
    return np.bincount(classes, weights=np.sqrt(spectra[rows, bins]), minlength=12).astype(np.float64)
