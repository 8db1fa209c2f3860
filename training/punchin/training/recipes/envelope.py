"""How loud latents are: by groups of neighbouring channels, over stretches of a channel, altogether.

At the noisy end of the flow nobody knows a sound's phases, and the mean over them is silence: an error of velocities
is then all but blind to when something sounds. Its envelope has a mean that says it, and so has its own error here.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

GROUP: Final = 4  # channels: neighbours of the first components share their frequencies
STRETCH: Final = 5  # latent frames
FLOOR: Final = 1e-3  # of energy


def groups(latent: Tensor, weight: Tensor) -> Tensor:
    """Levels of groups of channels of latents [B, T, C], each channel times weight [C]: [B, T, C / 4]."""
    return _root((latent * weight).square().unflatten(-1, (-1, GROUP)).mean(-1))


def unlike(made: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """How far the envelopes of latents [B, T, C] are apart, [B, T]: mean squares over groups, stretches and the sum."""
    total = made.new_zeros(made.shape[:2])
    for a, b in zip(_levels(made, weight), _levels(wanted, weight), strict=True):
        total = total + (a - b).square().mean(-1)
    return total


def _levels(latent: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    energy = (latent * weight).square()
    long = nn.functional.avg_pool1d(energy.transpose(1, 2), STRETCH, stride=1, padding=STRETCH // 2).transpose(1, 2)
    return groups(latent, weight), _root(long), _root(energy.mean(-1, keepdim=True))


def _root(energy: Tensor) -> Tensor:
    return torch.sqrt(energy + FLOOR)
