"""Where notes begin, struck or slurred: SuperFlux (Boeck, Widmer, "Maximum filter vibrato suppression for onset
detection", DAFx 2013).

`session.onsets` places attacks to the millisecond in wide bands; a note that enters softly among others has none there.
Here bands are a quarter tone wide. Window, lag, compression and threshold are those that name most notes of true
renders of single instruments, against their scores; nothing that a model plays was asked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

from punchin.protocol.limits import MODEL_HZ

WINDOW: Final = 8192  # 171 ms: tells semitones apart from 200 Hz on
HOP: Final = 240  # 5 ms
LOWEST_HZ, HIGHEST_HZ = 55.0, 16_000.0
PER_OCTAVE: Final = 24
COMPRESSION: Final = 100.0  # a band is heard from about 40 dB below the loudest on
LAG: Final = 16  # hops between the spectra that are compared: half a window
NEAR: Final = 6  # hops: two notes nearer than 30 ms are one
MEAN: Final = 41  # hops around one, over whose mean it must rise
OVER: Final = 0.1  # by this much of the largest rises
EDGE_S: Final = 0.05  # of a sound, where it is cut


def begin(audio: Tensor) -> NDArray[np.float64]:
    """Seconds at which notes of audio [2, n] begin, rising; none in silence."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(audio.mean(0), WINDOW, HOP, window=window, return_complex=True, pad_mode="constant").abs()
    bands = _filters() @ spectrum  # [bands, hops]
    loud = bands.amax()
    if not loud > 0:
        return np.zeros(0)
    levels = (1 + COMPRESSION / loud * bands).log()
    around = max_pool1d(levels.T[:, None], 3, 1, 1)[:, 0].T  # vibrato stays within its neighbours
    rise = torch.zeros(levels.shape[1])
    rise[LAG:] = (levels[:, LAG:] - around[:, :-LAG]).clamp(min=0).sum(0)
    rise = rise / rise.quantile(0.99).clamp(min=1e-9)
    highest = max_pool1d(rise[None], 2 * NEAR + 1, 1, NEAR)[0]
    mean = avg_pool1d(rise[None], MEAN, 1, MEAN // 2)[0]
    peaks = ((rise == highest) & (rise > mean + OVER)).nonzero()[:, 0].numpy()
    apart = np.diff(peaks, prepend=-NEAR - 1) > NEAR  # of equal neighbours the first
    seconds = peaks[apart] * HOP / MODEL_HZ  # 5 ms late in the mean, where scores say
    return seconds[(seconds > EDGE_S) & (seconds < audio.shape[1] / MODEL_HZ - EDGE_S)]


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """Triangles a quarter tone apart, [bands, WINDOW/2 + 1], each summing to 1; as many as differ by a bin."""
    count = int(PER_OCTAVE * np.log2(HIGHEST_HZ / LOWEST_HZ))
    edges = LOWEST_HZ * 2 ** (np.arange(count + 1) / PER_OCTAVE)
    bins = np.unique(np.round(edges / MODEL_HZ * WINDOW))
    at = np.arange(WINDOW // 2 + 1)
    rows = np.stack([np.interp(at, near, (0.0, 1.0, 0.0)) for near in zip(bins, bins[1:], bins[2:], strict=False)])
    return torch.from_numpy(rows / rows.sum(1, keepdims=True)).float()
