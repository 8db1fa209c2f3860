"""Whether a cover keeps its source's onsets and plays the instrument that the prompt names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from punchin.training.recipes.figures import hearing, notes

NEAR_S: Final = 0.05  # two onsets nearer than this are the same, as in MIREX
BANDS: Final = 64
DECAY: Final = 0.03  # how much the probe's squared weights cost: it has more of them than lessons


def f_measure(source: Tensor, take: Tensor) -> float:
    """How well the onsets of a take [2, n] agree with its source's: F-measure, each onset used once."""
    return matched(notes.begin(source), notes.begin(take))


def matched(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """F-measure of two rising rows of times: 2 * pairs within 50 ms / all of both. 0 where one is empty."""
    pairs = i = j = 0
    while i < len(first) and j < len(second):
        gap = second[j] - first[i]
        if abs(gap) <= NEAR_S:
            pairs, i, j = pairs + 1, i + 1, j + 1
        elif gap > 0:
            i += 1
        else:
            j += 1
    total = len(first) + len(second)
    return 2 * pairs / total if total else 0.0


def timbre(audio: Tensor) -> Tensor:
    """What the probe hears of audio [2, n]: means and deviations of its log-mel levels, and of their rises, [256]."""
    levels = hearing.levels(audio[None], bands=BANDS, hop=480)[0]
    loud = levels.mean(1)
    sounding = levels[loud > loud.max() - 1.5]
    sounding = sounding - sounding.mean(1, keepdim=True)  # not how loud, but how
    rise = (levels[4:] - levels[:-4]).clamp(min=0)
    return torch.cat([sounding.mean(0), sounding.std(0), rise.mean(0), rise.amax(0)])


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier over `timbre`."""

    names: tuple[str, ...]
    mean: Tensor
    spread: Tensor
    weights: Tensor
    bias: Tensor

    def name(self, audio: Tensor) -> str:
        """The instrument that audio [2, n] sounds most like."""
        scores = ((timbre(audio) - self.mean) / self.spread) @ self.weights + self.bias
        return self.names[int(scores.argmax())]


def trained(audio: Sequence[Tensor], names: Sequence[str]) -> Probe:
    """A probe taught with renders [2, n] of single instruments and their names; the same each time."""
    known = tuple(sorted(set(names)))
    seen = torch.stack([timbre(each) for each in audio])
    right = torch.tensor([known.index(name) for name in names])
    mean, spread = seen.mean(0), seen.std(0).clamp(min=1e-3)
    x = (seen - mean) / spread
    weights = torch.zeros(x.shape[1], len(known), requires_grad=True)
    bias = torch.zeros(len(known), requires_grad=True)
    steps = torch.optim.Adam([weights, bias], lr=0.02)
    for _ in range(300):
        steps.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weights + bias, right) + DECAY * weights.square().sum()
        loss.backward()
        steps.step()
    return Probe(known, mean, spread, weights.detach(), bias.detach())
