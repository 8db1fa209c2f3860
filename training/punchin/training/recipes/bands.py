"""How loud a sound is in bands, ten milliseconds at a time: what components of a waveform cannot hold.

Sixteen of the latents say it. Cymbals, breath and attacks are noise to a waveform's components, which spend nothing on
them, and phases are what a music model learns last; a level has no phase. Three bands of the middle, an octave and a
half each around 1.3, 4 and 12 kHz, and one of the sides around 4 kHz.

A level is a soft logarithm: the mean of sin^2(a * x) over scales `a` that are 12 dB apart. Each goes from 0 to 1/2
where x comes above 1 / a, so that their sum rises by 1/2 in 12 dB. It is what a snake computes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import torch
from torch import Tensor, nn

from punchin.protocol.limits import HOP

Taps = tuple[float, ...]
BINOMIAL: Final[Taps] = tuple(each / 64 for each in (1, 6, 15, 20, 15, 6, 1))  # cos^6(pi f d / rate), d its dilation
CUBE: Final[Taps] = tuple(each / 8 for each in (-1, 0, 3, 0, -3, 0, 1))  # a third difference: sin^3(2 pi f d / rate)
NOTHING: Final[Taps] = (0, 0, 0, 1, 0, 0, 0)
# Of each band: how it takes left and right, and its filters at the dilations of the encoder's first layers.
DILATIONS: Final = (1, 1, 3, 9)
BANDS: Final[tuple[tuple[tuple[float, float], tuple[Taps, Taps, Taps, Taps]], ...]] = (
    ((0.5, 0.5), (BINOMIAL, NOTHING, BINOMIAL, CUBE)),
    ((0.5, 0.5), (BINOMIAL, NOTHING, CUBE, NOTHING)),
    ((0.5, 0.5), (CUBE, NOTHING, NOTHING, NOTHING)),
    ((0.5, -0.5), (BINOMIAL, NOTHING, CUBE, NOTHING)),
)
SCALES: Final = tuple(3.3 * 4.0**number for number in range(5))  # sound is heard from about -60 dB on
PARTS: Final = 4  # of a latent frame
COUNT: Final = len(BANDS) * PARTS  # of levels in a latent frame: by band, then by time
GAIN: Final = 2.0  # of a level as a latent, so that it varies as the others do


def rises(audio: Tensor) -> Tensor:
    """The soft logarithm of each frame of audio [B, 2, n] in each band, [B, 4, n]: its mean over time is the level."""
    heard = nn.functional.conv1d(audio, _kernels().to(audio), padding=sum(3 * each for each in DILATIONS))
    total = len(SCALES) * heard
    for scale in SCALES:
        total += (scale * heard).sin().square()
    return total


def levels(audio: Tensor) -> Tensor:
    """The levels of audio [B, 2, n], [B, n // 1920, 16]."""
    size = HOP // PARTS
    parts = rises(audio)[..., : audio.shape[-1] // HOP * HOP].unflatten(-1, (-1, PARTS, size)).mean(-1)
    return parts.permute(0, 2, 1, 3).flatten(2)


def level(power: Tensor) -> Tensor:
    """The level of noise of that power."""
    return sum((0.5 * -torch.expm1(-2 * scale**2 * power) for scale in SCALES), torch.zeros_like(power))


def power(of_level: Tensor) -> Tensor:
    """What `level` makes a level of; two sounds together have the sum of their powers."""
    powers, rising = _table()
    at = torch.searchsorted(rising, of_level.contiguous()).clamp(1, len(rising) - 1)
    share = (of_level - rising[at - 1]) / (rising[at] - rising[at - 1])
    return powers[at - 1] + share.clamp(0, 1) * (powers[at] - powers[at - 1])


@lru_cache(maxsize=1)
def _table() -> tuple[Tensor, Tensor]:
    powers = torch.cat([torch.zeros(1), torch.logspace(-9, 1.5, 2_000)])
    rising = level(powers)
    rises_until = int((rising.diff() > 0).long().cumprod(0).sum()) + 1
    return powers[:rises_until], rising[:rises_until]


@lru_cache(maxsize=1)
def _kernels() -> Tensor:
    """[4, 2, 85]: each band's filters as one."""
    rows = []
    for sides, chain in BANDS:
        whole = torch.ones(1, 1, 1)
        for taps, dilation in zip(chain, DILATIONS, strict=True):
            spread = torch.zeros(1, 1, 6 * dilation + 1)
            spread[..., ::dilation] = torch.tensor(taps)
            size = spread.shape[-1] - 1
            whole = nn.functional.conv1d(nn.functional.pad(whole, (size, size)), spread.flip(-1))
        rows.append(torch.tensor(sides)[:, None] * whole[0])
    return torch.stack(rows)
