"""What recorded sound has and our synthesiser has not: overdrive, the body of an instrument, a room.

The autoencoder hears crops through them, so that it also plays sounds that nobody rendered for it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from punchin.protocol.limits import MODEL_HZ


def driven(audio: Tensor, drive: Tensor) -> Tensor:
    """Audio [B, 2, n] through a tanh, as loud as it was: new harmonics. drive [B]: how loud it goes in; 0: past it."""
    gain = drive.clamp(min=1e-3)[:, None, None]
    bent = torch.tanh(gain * audio)
    power, before = (each.square().mean((1, 2), keepdim=True).clamp(min=1e-12) for each in (bent, audio))
    return torch.where(drive[:, None, None] > 0, bent * (before / power).sqrt(), audio)


def roomed(audio: Tensor, room: Tensor, draws: torch.Generator) -> Tensor:
    """Audio [B, 2, n] and what comes back of it from walls of decaying noise, others on each side.

    room [B, 2]: seconds until they are 60 dB down, and the energy of what comes back of white noise, as a root: some
    milliseconds are a body, which colours, a second is a hall. `draws` makes the walls.
    """
    seconds, wet = room[:, :, None, None].unbind(1)
    frames = audio.shape[-1]
    noise = torch.randn(audio.shape, device=audio.device, generator=draws)
    walls = noise * torch.exp(-math.log(1e3) * torch.arange(frames, device=audio.device) / (MODEL_HZ * seconds))
    walls = wet * walls / walls.square().sum(-1, keepdim=True).sqrt()
    back = torch.fft.irfft(torch.fft.rfft(audio, 2 * frames) * torch.fft.rfft(walls, 2 * frames), 2 * frames)
    return audio + back[..., :frames]
