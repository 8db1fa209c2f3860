"""How far two sounds are apart to the ear, as a loss and as a figure: multi-resolution spectral distance, SI-SDR."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

WINDOWS: Final = (2048, 1024, 512, 256, 128)  # frames; hop is a quarter
LONG: Final = (2048, 1024, 512)
FLOOR: Final = 1e-4  # of magnitude: what is quieter than this is silence


@lru_cache(maxsize=32)
def _hann(frames: int, device: torch.device) -> Tensor:
    return torch.hann_window(frames, device=device)


def magnitudes(audio: Tensor, window: int) -> Tensor:
    """|STFT| of audio [..., n] at one window: [rows, window/2 + 1, frames], a full sine being 0.5."""
    flat = audio.reshape(-1, audio.shape[-1])
    spectrum = torch.stft(flat, window, window // 4, window=_hann(window, audio.device), return_complex=True)
    return spectrum.abs() * (2 / window)


def distance(heard: Tensor, wanted: Tensor) -> Tensor:
    """Multi-resolution STFT distance of audio [B, 2, n]; 0 is equal. Mid and side are compared, not left and right.

    For each window: spectral convergence |W - H| / |W| plus the mean absolute difference of log magnitudes
    (Yamamoto et al., Parallel WaveGAN, 2020); the mean over windows.
    """
    total = heard.new_zeros(())
    for window in WINDOWS:
        h, w = magnitudes(_mid_side(heard), window), magnitudes(_mid_side(wanted), window)
        convergence = (w - h).norm() / w.norm().clamp(min=FLOOR)
        logs = ((h + FLOOR).log() - (w + FLOOR).log()).abs().mean()
        total = total + convergence + logs
    return total / len(WINDOWS)


def low_distance(heard: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference of log magnitudes below 1.5 kHz of audio [B, 2, n], windows of 10 ms and more.

    Most of an ear's bands lie there, but a sixteenth of a spectrum's bins: `distance` hardly hears a hum in silence.
    """
    total = heard.new_zeros(())
    for window in LONG:
        h, w = (magnitudes(_mid_side(each), window)[:, : window // 32] for each in (heard, wanted))
        total = total + ((h + FLOOR).log() - (w + FLOOR).log()).abs().mean()
    return total / len(LONG)


def si_sdr_db(heard: Tensor, wanted: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio of each item, dB: [B] of audio [B, 2, n] (Le Roux et al., 2019)."""
    h, w = heard.flatten(1), wanted.flatten(1)
    scale = (h * w).sum(1, keepdim=True) / w.square().sum(1, keepdim=True).clamp(min=1e-8)
    target = scale * w
    ratio = target.square().sum(1) / (h - target).square().sum(1).clamp(min=1e-8)
    return 10 * ratio.clamp(min=1e-8).log10()


def _mid_side(audio: Tensor) -> Tensor:
    left, right = audio.unbind(-2)
    return torch.stack([left + right, left - right], dim=-2) / 2
