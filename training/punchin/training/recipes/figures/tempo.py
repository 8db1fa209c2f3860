"""What tempo a piece plays, by a listener who is told nothing: coarse by ear, then a regression over beats.

The coarse ear is a linear softmax over candidate tempos, from the autocorrelations of three bands' onsets at lags of a
quarter beat to eight beats. It learns from training renders which of a tempo, its half and its double a drummer of
these genres means. The fine tempo is the slope of onset times over beats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from punchin.protocol.limits import MODEL_HZ
from punchin.session import onsets
from punchin.training.recipes.figures import hearing

HOP: Final = 240  # 5 ms
BANDS: Final = ((0, 6), (6, 18), (18, 32))  # of 32: kick and bass, body, hats
CANDIDATES: Final = torch.exp(torch.linspace(float(np.log(62)), float(np.log(196)), 300))  # bpm, 0.4 % apart
LAGS_BEATS: Final = (0.25, 1 / 3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_HUBER: Final = 1.345
_SLACK: Final = 0.02  # how far the fine tempo may lie from the coarse one


def features(audio: Tensor) -> Tensor:
    """What the coarse ear sees of audio [2, n]: [300 candidates, features]."""
    levels = hearing.levels(audio[None], hop=HOP)[0]  # [frames, 32]
    rise = (levels[2:] - levels[:-2]).clamp(min=0)
    rows: list[Tensor] = []
    lags = 60 / CANDIDATES[:, None] * torch.tensor(LAGS_BEATS) * MODEL_HZ / HOP  # frames
    for low, high in BANDS:
        envelope = rise[:, low:high].mean(1)
        envelope = envelope - envelope.mean()
        size = 2 * len(envelope)
        spectrum = torch.fft.rfft(envelope, size)
        auto = torch.fft.irfft(spectrum.abs().square(), size)[: len(envelope)]
        auto = auto / auto[0].clamp(min=1e-6) * (len(envelope) / torch.arange(len(envelope), 0, -1))
        rows.append(_at(auto, lags.clamp(max=len(envelope) - 2)))
    prior = torch.log2(CANDIDATES / 115)[:, None]
    return torch.cat([*rows, prior, prior.square(), prior.pow(3), prior.pow(4)], dim=1)


def _at(curve: Tensor, places: Tensor) -> Tensor:
    """The highest of a curve near fractional places, within a frame."""
    whole = places.round().long()
    return torch.stack([curve[(whole + off).clamp(0, len(curve) - 1)] for off in (-1, 0, 1)]).amax(0)


@dataclass(frozen=True, eq=False)
class Ear:
    """The coarse listener: weights over standardised features."""

    mean: Tensor
    spread: Tensor
    weights: Tensor  # [features, hidden]
    second: Tensor  # [hidden]

    def coarse(self, audio: Tensor) -> float:
        """The likeliest candidate, bpm, for audio [2, n]."""
        return float(CANDIDATES[_scores(self, features(audio)).argmax()])

    def tempo(self, audio: Tensor) -> float | None:
        """The tempo of audio [2, n] at 48 kHz, bpm; None where too little begins in it."""
        found = onsets.find(audio.numpy(), MODEL_HZ)
        return None if len(found.frames) < 8 else fine(found.frames / MODEL_HZ, self.coarse(audio))


def _scores(ear: Ear, seen: Tensor) -> Tensor:
    return torch.tanh(((seen - ear.mean) / ear.spread) @ ear.weights) @ ear.second


def trained(audio: Sequence[Tensor], bpm: Sequence[float], hidden: int = 16) -> Ear:
    """An ear taught with true renders [2, n] and their tempos; the same each time."""
    seen = torch.stack([features(each) for each in audio])  # [songs, candidates, features]
    right = torch.stack([(CANDIDATES - each).abs().argmin() for each in torch.tensor(bpm)])
    mean, spread = seen.flatten(0, 1).mean(0), seen.flatten(0, 1).std(0).clamp(min=1e-3)
    start = torch.Generator().manual_seed(5)
    weights = (torch.randn(seen.shape[-1], hidden, generator=start) * 0.2).requires_grad_(True)
    second = (torch.randn(hidden, generator=start) * 0.2).requires_grad_(True)
    near = torch.exp(-((CANDIDATES[None].log() - CANDIDATES[right][:, None].log()) / 0.008).square() / 2)
    near = near / near.sum(1, keepdim=True)
    ear = Ear(mean, spread, weights, second)
    steps = torch.optim.Adam([weights, second], lr=0.03)
    for _ in range(300):
        steps.zero_grad()
        loss = -(near * _scores(ear, seen).log_softmax(1)).sum(1).mean()
        (loss + 1e-3 * (weights.square().sum() + second.square().sum())).backward()
        steps.step()
    return Ear(mean, spread, weights.detach(), second.detach())


def fine(seconds: NDArray[np.float64], coarse_bpm: float) -> float:
    """The tempo within 2 % of `coarse_bpm` by regression over beats: onset times in `seconds` against sixteenths.

    A comb over tempos and phases finds the sixteenths; then a line is fitted with Huber weights.
    """
    ratios = np.exp(np.linspace(-_SLACK, _SLACK, 401))
    turns = np.exp(2j * np.pi * ratios[:, None] * seconds * coarse_bpm / 60 * 4)
    halves = np.exp(2j * np.pi * ratios[:, None] * seconds * coarse_bpm / 60 * 2)
    power = np.abs(turns.sum(1)) + np.abs(halves.sum(1))
    best = int(np.argmax(power))
    step_s = 15 / (coarse_bpm * ratios[best])
    phase_s = float(np.angle(turns[best].sum())) / (2 * np.pi) * step_s
    place = np.round((seconds - phase_s) / step_s)
    weights = np.ones(len(seconds))
    slope, first = step_s, phase_s
    for _ in range(10):
        slope, first = np.polyfit(place, seconds, 1, w=np.sqrt(weights))
        left = np.abs(seconds - first - slope * place)
        weights = np.minimum(1.0, _HUBER * (1.4826 * np.median(left) + 1e-6) / np.maximum(left, 1e-12))
    return float(15 / slope)
