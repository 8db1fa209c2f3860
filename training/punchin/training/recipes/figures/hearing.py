"""What detectors hear of a sound: its levels in bands on the mel scale."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from punchin.protocol.limits import MODEL_HZ

BANDS: Final = 32
WINDOW: Final = 2048
LOW_HZ, HIGH_HZ = 40.0, 16_000.0
FLOOR: Final = 1e-4  # of magnitude, a full sine being about 1


@lru_cache(maxsize=8)
def filters(bands: int, device: torch.device) -> Tensor:
    """Triangles on the mel scale, [bands, WINDOW/2 + 1], each summing to 1: mel = 2595*log10(1 + f/700)."""
    low, high = (2595 * torch.log10(1 + torch.tensor(f) / 700) for f in (LOW_HZ, HIGH_HZ))
    edges = 700 * (10 ** (torch.linspace(float(low), float(high), bands + 2) / 2595) - 1)
    hz = torch.linspace(0, MODEL_HZ / 2, WINDOW // 2 + 1)
    rise = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rise, fall).clamp(min=0)
    nearest = (hz - edges[1:-1, None]).abs().argmin(1)  # a triangle between two bins gets the nearest
    triangles[torch.arange(bands), nearest] = triangles[torch.arange(bands), nearest].clamp(min=1e-3)
    return (triangles / triangles.sum(1, keepdim=True)).to(device)


def levels(audio: Tensor, hop: int, bands: int = BANDS) -> Tensor:
    """Log levels of audio [B, 2, n], [B, n // hop, bands]: about -2 in silence, 2 at full scale."""
    window = torch.hann_window(WINDOW, device=audio.device)
    mono = audio.mean(1)
    power = torch.stft(mono, WINDOW, hop, window=window, return_complex=True, pad_mode="constant").abs() * (4 / WINDOW)
    bands_power = filters(bands, audio.device) @ power.square()
    level = (bands_power.sqrt() + FLOOR).log()[..., : audio.shape[-1] // hop]
    return (level.transpose(1, 2) + 4.6) / 2.3
